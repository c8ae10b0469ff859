"""The stages of one phase: features of its frozen layers, then its epochs; and what stages share.

Keras and its backend take a second or more to import. That is done beside the features, so this
module imports what needs them where it is needed.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

import mnv2tl
from mnv2tl import backend
from mnv2tl.cache_folder import cache_folder
from mnv2tl.config import TrainConfig
from mnv2tl.data.manifest import LeftOut, Manifest
from mnv2tl.data.views import PLAIN, ViewMaker
from mnv2tl.epoch_report import report_epoch
from mnv2tl.errors import show
from mnv2tl.feature_jobs import Jobs
from mnv2tl.features import FeatureSource, prepare
from mnv2tl.interrupts import raise_pending, wait_for
from mnv2tl.mobilenet import Layer, cut_at
from mnv2tl.phase import Phase
from mnv2tl.preparation import leave_out
from mnv2tl.progress import say, show_bar, show_step
from mnv2tl.state import Commit, StateStore
from mnv2tl.trackers import Trackers
from mnv2tl.trunk import choose_runtime, open_trunk

if TYPE_CHECKING:
    import keras

    from mnv2tl.finish import Networks


@dataclass(slots=True, kw_only=True)
class Training:
    """What the stages share; it changes on the way."""

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


@contextlib.contextmanager
def work_beside() -> Iterator[Executor]:
    """Give a thread that works beside the training; at an error it leaves what is not begun.

    An error in a command does not wait for the import of Keras, see `cli.run`.
    """
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        is_left = mnv2tl.is_command and backend.is_importing()
        pool.shutdown(wait=not is_left, cancel_futures=True)


def read_features(
    training: Training, phase: Phase, views: tuple[int, ...], beside: Executor | None = None
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


def run_phase(
    training: Training, phase: Phase, source: FeatureSource, commit: Commit | None
) -> tuple[Commit, keras.Model]:
    """Train one phase; return its last commit and its model."""
    from mnv2tl.fit import Split, fit_phase
    from mnv2tl.keras_model import describe_trainable

    config, manifest = training.config, training.manifest
    split = Split(train=manifest.of_split("train"), val=manifest.of_split("val"))
    head = open_head(training, phase, source)
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


def open_head(training: Training, phase: Phase, source: FeatureSource) -> keras.Model:
    """Return the model that a phase trains, see `fit.build_head`."""
    from mnv2tl.fit import build_head

    classes = len(training.manifest.class_names)
    return build_head(training.layers, phase, training.config, classes=classes, shape=source.shape)


def start_networks(training: Training) -> Future[Networks]:
    """Begin to open beside what `finish` fills, see `finish.open_networks`."""
    classes = len(training.manifest.class_names)
    return training.beside.submit(_open_networks, training.config, classes)


def _open_networks(config: TrainConfig, classes: int) -> Networks:
    from mnv2tl.finish import open_networks

    return open_networks(config, classes)
