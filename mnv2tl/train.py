"""From a folder of images to a run folder: the one road through all stages.

scan -> base weights -> frozen trunk -> features -> head, epoch by epoch -> best.keras -> self-check

Keras and its backend take a second or more to import. That is done beside the stages up to the
features, so this module imports what needs them where it is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
from mnv2tl.interrupts import raise_pending, wait_for, watch_signals
from mnv2tl.mobilenet import Layer, cut_at, list_layers
from mnv2tl.phase import Phase, list_phases, list_trained
from mnv2tl.preparation import (
    check_same_settings,
    check_same_weights,
    first_dense,
    leave_out,
    load_base,
    scan_data,
)
from mnv2tl.progress import say, show_bar, show_step
from mnv2tl.run_guard import explain_interrupt, hold_folder, is_complete
from mnv2tl.state import Commit, StateStore
from mnv2tl.trackers import Trackers, open_trackers, require_trackers
from mnv2tl.trunk import choose_runtime, open_trunk
from mnv2tl.weights import Weights

if TYPE_CHECKING:
    import keras

    from mnv2tl.finish import Networks


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    force: bool = False,
    accept_changes: bool = False,
) -> Run:
    """Train, and return the finished run.

    Keras is imported beside the first stages, with the backend of the settings, else that of
    KERAS_BACKEND, else JAX, else TensorFlow. Where it was imported before, it keeps its own.

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
        ValueError: Keras was imported with another backend than that of the settings.
        ResultError: The loss is not finite (E602), or the checkpoint does not answer as the
            training did (E603).
    """
    config = _with_backend(config)
    with hold_folder(config.out, resume=resume, force=force) as folder:
        run = _train_in(dataclasses.replace(config, out=folder), accept_changes=accept_changes)
    return dataclasses.replace(run, folder=config.out)


def _with_backend(config: TrainConfig) -> TrainConfig:
    """Return the settings with the backend that Keras has, or will have.

    Raises:
        ValueError: Keras has another one than they name.
        MachineError: Keras or the backend is not installed (E508).
    """
    name = backend.imported_backend()
    if name is None:
        name = backend.choose_backend(config.backend)
        backend.prepare_process(name)
        return dataclasses.replace(config, backend=name)
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
    beside: Executor
    """One thread, for what needs no waiting."""
    keras: Future[None] | None = None
    """What ends when Keras is imported."""
    seconds: dict[str, float] = field(default_factory=dict)

    def start_keras(self) -> Future[None]:
        """Begin to import Keras and its backend beside, and return what ends with that."""
        if self.keras is None:
            name = cast(str, self.config.backend)
            self.keras = self.beside.submit(backend.use_backend, name)
        return self.keras

    def wait_for_keras(self) -> None:
        """Return when Keras is imported.

        Raises:
            InterruptError: A signal came.
        """
        future = self.start_keras()
        with contextlib.nullcontext() if future.done() else show_step("starting Keras"):
            wait_for(future)

    def has_gpu(self) -> bool:
        """Tell whether the backend computes on a graphics card."""
        self.wait_for_keras()
        return backend.has_gpu(sys.modules["keras"].backend.backend())


def _go_through_stages(
    config: TrainConfig, former: Run | None, trackers: Trackers, *, accept_changes: bool
) -> Run:
    began = time.perf_counter()
    seconds: dict[str, float] = dict.fromkeys(("scan", "features", "fit"), 0.0)
    with _work_beside() as beside:
        state = StateStore(config.out / "state")
        commit = state.load()
        state.prune()
        layers = list_layers(alpha=config.alpha, image_px=config.image_px)
        weights, last_layer = load_base(config)  # before the scan, which may take long
        if former is not None:
            check_same_weights(weights, former)
        with _timed(seconds, "scan"):
            former_manifest = config.out / "manifest.json"
            manifest = scan_data(config, former_manifest, accept_changes=accept_changes)
        dense = first_dense(config, manifest.class_names, last_layer, channels=layers[-1].channels)
        training = _Training(
            config=config,
            layers=layers,
            arrays=dict(weights.arrays) | dense,
            manifest=manifest,
            maker=_view_maker(config, manifest),
            state=state,
            trackers=trackers,
            beside=beside,
            seconds=seconds,
        )
        fitted = _fit_phases(training, commit, _describe(config, weights))
        return _finish(training, fitted, began)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """What the phases leave to the end."""

    commit: Commit
    """The last one."""
    source: FeatureSource
    """Features of the last phase."""
    head: keras.Model
    """What the last phase trained."""
    networks: Future[Networks]
    """What `open_networks` returns."""


def _finish(training: _Training, fitted: _Fitted, began: float) -> Run:
    from mnv2tl.finish import Outcome, finish
    from mnv2tl.fit import predict_logits
    from mnv2tl.keras_model import set_arrays

    commit, source, head = fitted.commit, fitted.source, fitted.head
    last_phase = list_phases(training.config)[-1]
    best_phase = list_phases(training.config)[commit.best.phase]
    if best_phase.index != last_phase.index:
        source = _read_features(training, best_phase, ())
        head = _build_head(training, best_phase, source)
    best = training.state.load_arrays(commit.best.file)
    set_arrays(head, best)
    outcome = Outcome(
        commit=commit,
        arrays=training.arrays | best,
        logits=predict_logits(head, source, training.manifest.of_split("val")),
        trained=list_trained(training.layers, best_phase),
        trunk_runtime=source.trunk.runtime,
        seconds=training.seconds,
        began=began,
        networks=fitted.networks,
    )
    return finish(training.config, training.manifest, training.maker, outcome)


def _fit_phases(training: _Training, commit: Commit | None, info: dict[str, Any]) -> _Fitted:
    """Train all phases from the last commit on; open what the end needs beside the last of them.

    Features of later epochs are computed beside the first ones, before that.
    """
    config = training.config
    for phase in list_phases(config):
        if commit is not None and commit.phase > phase.index:
            continue
        with _timed(training.seconds, "features"):
            source = _read_features(training, phase, views_of_phases(config), training.beside)
        training.wait_for_keras()  # before anything is written
        _write_start(config, training.manifest, info)
        if phase.index == list_phases(config)[-1].index:
            networks = training.beside.submit(
                _open_networks, config, len(training.manifest.class_names)
            )
        with _timed(training.seconds, "fit"):
            commit, head = _fit(training, phase, source, commit)
        source.stop()
    if commit is None:
        raise ValueError("there is no phase to train")
    return _Fitted(commit=commit, source=source, head=head, networks=networks)


def _open_networks(config: TrainConfig, classes: int) -> Networks:
    from mnv2tl.finish import open_networks

    return open_networks(config, classes)


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
    runtime = choose_runtime(
        config.trunk_runtime, has_gpu=training.has_gpu, views=jobs.count_views()
    )
    if runtime == "keras":
        training.wait_for_keras()
    trunk = open_trunk(
        training.layers[: cut_at(training.layers, phase.trainable_layers)],
        training.arrays,
        scaling=config.scaling,
        runtime=runtime,
        image_px=config.image_px,
    )
    training.start_keras()
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


def _fit(
    training: _Training, phase: Phase, source: FeatureSource, commit: Commit | None
) -> tuple[Commit, keras.Model]:
    """Train one phase; return its last commit and its model."""
    from mnv2tl.fit import Split, fit_phase
    from mnv2tl.keras_model import describe_trainable

    config, manifest = training.config, training.manifest
    split = Split(train=manifest.of_split("train"), val=manifest.of_split("val"))
    head = _build_head(training, phase, source)
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

        commit = fit_phase(
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
    return commit, head


def _build_head(training: _Training, phase: Phase, source: FeatureSource) -> keras.Model:
    from mnv2tl.fit import build_head

    classes = len(training.manifest.class_names)
    return build_head(training.layers, phase, training.config, classes=classes, shape=source.shape)
