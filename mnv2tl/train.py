"""From a folder of images to a run folder: the one road through all stages.

scan -> base weights -> frozen trunk -> features -> head, epoch by epoch -> best.keras -> self-check
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import platform
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mnv2tl import backend, checkpoint, store
from mnv2tl.batches import views_of_phases
from mnv2tl.cache_folder import cache_folder
from mnv2tl.checkpoint import Run, load_run
from mnv2tl.config import TrainConfig
from mnv2tl.data import images
from mnv2tl.data.manifest import LeftOut, Manifest
from mnv2tl.data.views import PLAIN, ViewMaker
from mnv2tl.epoch_report import report_epoch
from mnv2tl.errors import InterruptError, show
from mnv2tl.feature_jobs import Jobs
from mnv2tl.features import FeatureSource, prepare
from mnv2tl.finish import Networks, Outcome, describe_trainable, finish, open_networks
from mnv2tl.interrupts import raise_pending, watch_signals
from mnv2tl.keras_model import set_arrays
from mnv2tl.mobilenet import Layer, cut_at, list_layers
from mnv2tl.phase import (
    Phase,
    Split,
    build_head,
    fit_phase,
    list_phases,
    list_trained,
    predict_logits,
)
from mnv2tl.preparation import (
    check_same_settings,
    check_same_weights,
    first_dense,
    leave_out,
    load_base,
    scan_data,
)
from mnv2tl.progress import say, show_bar
from mnv2tl.run_guard import explain_interrupt, hold_folder, is_complete
from mnv2tl.state import Commit, StateStore
from mnv2tl.trackers import Trackers, open_trackers, require_trackers
from mnv2tl.trunk import choose_runtime, open_trunk
from mnv2tl.weights import Weights


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    force: bool = False,
    accept_changes: bool = False,
) -> Run:
    """Train, and return the finished run.

    Choose the backend first: `mnv2tl.backend.use_backend("jax")`.

    Args:
        config: All settings.
        resume: Go on from the last committed epoch of `config.out`, to the same result as if the
            training had not stopped. Without a former start it starts.
        force: Replace a run that is already there; the former one goes when the new is finished.
        accept_changes: Resume though images were added, removed or changed.

    Raises:
        ExistsError: `config.out` holds something already (E504).
        BusyError: Another process trains there (E701).
        InterruptError: Ctrl-C or a termination; finished epochs are kept (E901).
        DataError: The images cannot be used.
        ArtifactError: Weights, or the run to resume, are refused.
        MachineError: Disk, memory, a permission or a missing package.
        ResultError: The loss is not finite (E602), or the checkpoint does not answer as the
            training did (E603).
    """
    config = _with_backend(config)
    with hold_folder(config.out, resume=resume, force=force) as folder:
        run = _train_in(dataclasses.replace(config, out=folder), accept_changes=accept_changes)
    return dataclasses.replace(run, folder=config.out)


def _with_backend(config: TrainConfig) -> TrainConfig:
    """Return the settings with the backend that Keras has.

    Raises:
        ValueError: They name another one.
    """
    name = keras.backend.backend()
    if config.backend not in (None, name):
        message = f"backend must be {name}, which Keras uses in this process"
        raise ValueError(f"{message}, got {config.backend}")
    return dataclasses.replace(config, backend=name)


def _train_in(config: TrainConfig, *, accept_changes: bool) -> Run:
    former = None
    if (config.out / "run.json").is_file():
        former = load_run(config.out)
        check_same_settings(config, former.info["config"])
        if former.is_finished and is_complete(config):
            say("the run is finished already")
            return former
    require_trackers(config.trackers)
    try:
        with watch_signals(), open_trackers(config) as trackers:
            return _go_through_stages(config, former, trackers, accept_changes=accept_changes)
    except InterruptError as error:
        raise explain_interrupt(config, error.signal_number) from error


@dataclass(slots=True, kw_only=True)
class _Training:
    """What the stages share."""

    config: TrainConfig
    layers: tuple[Layer, ...]
    arrays: dict[str, NDArray[np.float32]]
    manifest: Manifest
    maker: ViewMaker
    state: StateStore
    trackers: Trackers
    seconds: dict[str, float] = field(default_factory=dict)


def _go_through_stages(
    config: TrainConfig, former: Run | None, trackers: Trackers, *, accept_changes: bool
) -> Run:
    began = time.perf_counter()
    seconds: dict[str, float] = dict.fromkeys(("scan", "features", "fit"), 0.0)
    state = StateStore(config.out / "state")
    commit = state.load()
    state.prune()
    layers = list_layers(alpha=config.alpha, image_px=config.image_px)
    weights, last_layer = load_base(config)  # before the scan, which may take long
    if former is not None:
        check_same_weights(weights, former)
    with _timed(seconds, "scan"):
        manifest = scan_data(config, config.out / "manifest.json", accept_changes=accept_changes)
    dense = first_dense(config, manifest.class_names, last_layer, channels=layers[-1].channels)
    training = _Training(
        config=config,
        layers=layers,
        arrays=dict(weights.arrays) | dense,
        manifest=manifest,
        maker=_view_maker(config, manifest),
        state=state,
        trackers=trackers,
        seconds=seconds,
    )
    with _work_beside() as beside:
        commit, source, networks = _fit_phases(training, commit, _describe(config, weights), beside)
        return _finish(training, commit, source, networks, began)


def _finish(
    training: _Training,
    commit: Commit,
    source: FeatureSource,
    networks: Future[Networks],
    began: float,
) -> Run:
    config, state = training.config, training.state
    best_phase = list_phases(config)[commit.best.phase]
    if best_phase.index != list_phases(config)[-1].index:
        source = _read_features(training, best_phase, ())
    outcome = Outcome(
        commit=commit,
        arrays=training.arrays | state.load_arrays(commit.best.file),
        logits=_predict_val(training, best_phase, source),
        trained=list_trained(training.layers, best_phase),
        trunk_runtime=source.trunk.runtime,
        seconds=training.seconds,
        began=began,
        networks=networks,
    )
    return finish(config, training.manifest, training.maker, outcome)


def _fit_phases(
    training: _Training, commit: Commit | None, info: dict[str, Any], beside: Executor
) -> tuple[Commit, FeatureSource, Future[Networks]]:
    """Train all phases from the last commit on; open what the end needs beside the last of them.

    Features of later epochs are computed beside the first ones, before that.

    Returns:
        The last commit, the last source of features, and what `open_networks` returns.
    """
    config = training.config
    for phase in list_phases(config):
        if commit is not None and commit.phase > phase.index:
            continue
        with _timed(training.seconds, "features"):
            source = _read_features(training, phase, views_of_phases(config), beside)
        _write_start(config, training.manifest, info)
        if phase.index == list_phases(config)[-1].index:
            networks = beside.submit(open_networks, config, len(training.manifest.class_names))
        with _timed(training.seconds, "fit"):
            commit = _fit(training, phase, source, commit)
        source.stop()
    if commit is None:
        raise ValueError("there is no phase to train")
    return commit, source, networks


@contextlib.contextmanager
def _work_beside() -> Iterator[Executor]:
    """Give a thread that works beside the training; at an error it leaves what is not begun."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] += time.perf_counter() - start


def _view_maker(config: TrainConfig, manifest: Manifest) -> ViewMaker:
    return ViewMaker(
        root=manifest.root,
        image_px=config.image_px,
        augment=config.augment,
        seed=config.seed,
        max_pixels=config.scan.max_pixels,
    )


def _describe(config: TrainConfig, weights: Weights) -> dict[str, Any]:
    """Return the part of `run.json` that is known before the first epoch."""
    return {
        "schema": checkpoint.SCHEMA,
        "finished": False,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "config": config.to_json(),
        "backend": config.backend,
        "preprocessing": images.PREPROCESSING,
        "weights": {"name": weights.name, "sha256": weights.sha256, "licence": weights.licence},
        "versions": backend.list_versions(),
        "machine": {"platform": platform.platform(), "processor": platform.machine()},
        "git": checkpoint.git_state(Path.cwd()),
    }


def _write_start(config: TrainConfig, manifest: Manifest, info: dict[str, Any]) -> None:
    info |= {"class_names": manifest.class_names, "manifest_sha256": manifest.sha256}
    manifest.save(config.out / "manifest.json")
    store.write_sealed_json(config.out / "run.json", info)


def _read_features(
    training: _Training, phase: Phase, views: tuple[int, ...], beside: Executor | None = None
) -> FeatureSource:
    """Return the features of a phase; images that cannot be read any more are left out.

    Args:
        training: What is trained; it gets a manifest without those images.
        phase: Says which layers are frozen.
        views: Of the training images; validation images have theirs.
        beside: Computes most of the views while the caller goes on, see `prepare`.
    """
    config, manifest = training.config, training.manifest
    train, val = manifest.of_split("train"), manifest.of_split("val")
    jobs = Jobs(train + val, [views] * len(train) + [(PLAIN,)] * len(val))
    trunk = open_trunk(
        training.layers[: cut_at(training.layers, phase.trainable_layers)],
        training.arrays,
        scaling=config.scaling,
        runtime=choose_runtime(
            config.trunk_runtime,
            has_gpu=backend.has_gpu(keras.backend.backend()),
            views=jobs.count_views(),
        ),
        image_px=config.image_px,
    )
    source = prepare(
        training.maker,
        trunk,
        jobs,
        cache_root=cache_folder("features"),
        limit_bytes=int(config.cache_limit_gb * 1e9),
        beside=beside,
    )
    lost = tuple(
        LeftOut(path=path, code=error.reason, reason=error.message)
        for path, error in source.lost.items()
    )
    for each in lost:
        say(f"warning: left out {show(each.path)}: {each.reason}")
    training.manifest = leave_out(manifest, lost, config)
    return source


def _fit(training: _Training, phase: Phase, source: FeatureSource, commit: Commit | None) -> Commit:
    config, manifest = training.config, training.manifest
    split = Split(train=manifest.of_split("train"), val=manifest.of_split("val"))
    classes = len(manifest.class_names)
    head = build_head(training.layers, phase, config, classes=classes, shape=source.shape)
    described = describe_trainable(head)
    say(
        f"phase {phase.index + 1} trains {described['parameters']:,} parameters in "
        f"{len(described['layers'])} layers: {', '.join(described['layers'])}"
    )
    first_arrays = training.arrays
    if commit is not None and commit.phase < phase.index:
        first_arrays = first_arrays | training.state.load_arrays(commit.best.file)
    done = len(commit.history) if commit is not None and commit.phase == phase.index else 0
    total = (phase.epochs - done) * len(split.train)
    with show_bar("train", total=total) as show_progress:

        def advance(images: int) -> None:
            raise_pending()
            show_progress(images)

        return fit_phase(
            head,
            phase,
            config,
            source=source,
            split=split,
            state=training.state,
            start=commit,
            first_arrays=first_arrays,
            advance=advance,
            report=functools.partial(report_epoch, config, training.trackers),
        )


def _predict_val(training: _Training, phase: Phase, source: FeatureSource) -> NDArray[np.float32]:
    """Return the best epoch's logits on the validation split, from its features."""
    manifest = training.manifest
    classes = len(manifest.class_names)
    head = build_head(training.layers, phase, training.config, classes=classes, shape=source.shape)
    best = training.state.load_arrays(training.state.commits[-1].best.file)
    set_arrays(head, best)
    return predict_logits(head, source, manifest.of_split("val"))
