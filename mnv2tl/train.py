"""From a folder of images to a run folder: the one road through all stages.

scan -> base weights -> frozen trunk -> features -> head, epoch by epoch -> best.keras -> self-check

Keras is imported beside the features, see `stages`; what needs it is imported where it is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import platform
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnv2tl import backend, checkpoint, machine, store
from mnv2tl.batches import views_of_phases
from mnv2tl.checkpoint import Run, load_run
from mnv2tl.config import TrainConfig
from mnv2tl.data import images
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.views import ViewMaker
from mnv2tl.errors import InterruptError
from mnv2tl.features import FeatureSource
from mnv2tl.interrupts import watch_signals
from mnv2tl.mobilenet import list_layers
from mnv2tl.phase import list_phases, list_trained
from mnv2tl.preparation import (
    check_same_settings,
    check_same_weights,
    first_dense,
    load_base,
    scan_data,
)
from mnv2tl.progress import say
from mnv2tl.run_guard import check_place, explain_interrupt, hold_folder, is_complete
from mnv2tl.stages import Training, open_head, read_features, run_phase, start_networks, work_beside
from mnv2tl.state import Commit, StateStore
from mnv2tl.trackers import Trackers, open_trackers, require_trackers
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
        ExistsError: `config.out` holds something already, or lies in `config.data` (E504).
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
    check_place(config)
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
            say("the run is finished already; nothing was read or trained")
            return former
    require_trackers(config.trackers)
    try:
        with watch_signals(), open_trackers(config) as trackers:
            return _go_through_stages(config, former, trackers, accept_changes=accept_changes)
    except InterruptError as error:
        raise explain_interrupt(config, error.signal_number) from error


def _go_through_stages(
    config: TrainConfig, former: Run | None, trackers: Trackers, *, accept_changes: bool
) -> Run:
    began = time.perf_counter()
    seconds: dict[str, float] = dict.fromkeys(("scan", "features", "fit"), 0.0)
    with work_beside() as beside:
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
        training = Training(
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


def _finish(training: Training, fitted: _Fitted, began: float) -> Run:
    from mnv2tl.finish import Outcome, finish
    from mnv2tl.fit import predict_logits
    from mnv2tl.keras_model import set_arrays

    commit, source, head = fitted.commit, fitted.source, fitted.head
    last_phase = list_phases(training.config)[-1]
    best_phase = list_phases(training.config)[commit.best.phase]
    if best_phase.index != last_phase.index:
        source = read_features(training, best_phase, ())
        head = open_head(training, best_phase, source)
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


def _fit_phases(training: Training, commit: Commit | None, info: dict[str, Any]) -> _Fitted:
    """Train all phases from the last commit on; open what the end needs beside the last of them.

    Features of later epochs are computed beside the first ones, before that.
    """
    config = training.config
    for phase in list_phases(config):
        if commit is not None and commit.phase > phase.index:
            continue
        with _timed(training.seconds, "features"):
            source = read_features(training, phase, views_of_phases(config), training.beside)
        training.wait_for_keras()  # before anything is written
        _write_start(config, training.manifest, info)
        if phase.index == list_phases(config)[-1].index:
            networks = start_networks(training)
        with _timed(training.seconds, "fit"):
            commit, head = run_phase(training, phase, source, commit)
        source.stop()
    if commit is None:
        raise ValueError("there is no phase to train")
    return _Fitted(commit=commit, source=source, head=head, networks=networks)


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
        "git": machine.git_state(Path.cwd()),
    }


def _write_start(config: TrainConfig, manifest: Manifest, info: dict[str, Any]) -> None:
    info |= {"class_names": manifest.class_names, "manifest_sha256": manifest.sha256}
    manifest.save(config.out / "manifest.json")
    store.write_sealed_json(config.out / "run.json", info)
