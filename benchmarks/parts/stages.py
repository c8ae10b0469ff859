"""mnv2tl's stages from features to the best epoch, on folds, without the files of a run.

The self-check and the whole model are left out, which change no figure. Importing this imports
Keras: choose the backend first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.parts.folds import assign_folds
from benchmarks.parts.pooled import list_predictions
from mnv2tl.batches import views_of_phases
from mnv2tl.config import TrainConfig
from mnv2tl.data.entries import Entries
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.views import PLAIN, ViewMaker
from mnv2tl.feature_jobs import Jobs
from mnv2tl.features import FeatureSource, prepare
from mnv2tl.fit import Split, build_head, fit_phase, predict_logits
from mnv2tl.keras_model import set_arrays
from mnv2tl.metrics import softmax
from mnv2tl.mobilenet import cut_at, list_layers
from mnv2tl.phase import Phase, list_phases
from mnv2tl.preparation import first_dense, load_base
from mnv2tl.state import Commit, StateStore
from mnv2tl.trunk import Trunk, choose_runtime, open_trunk

Arrays = dict[str, NDArray[np.float32]]


def split_manifests(manifest: Manifest, folds: int) -> list[Manifest]:
    """Return one manifest for each fold; with its own split, the manifest itself.

    Args:
        manifest: The data set.
        folds: Number of folds; 1 keeps the split that it has.
    """
    if folds == 1:
        return [manifest]
    fold_of = assign_folds(((e.sha256, e.label) for e in manifest.entries), folds=folds)
    return [
        dataclasses.replace(
            manifest,
            entries=Entries(
                dataclasses.replace(e, split="val" if fold_of[e.sha256] == fold else "train")
                for e in manifest.entries
            ),
        )
        for fold in range(folds)
    ]


class Stages:
    """mnv2tl's stages from features to the best epoch, on a manifest that is split already."""

    def __init__(self, config: TrainConfig, *, cache_root: Path) -> None:
        self.config, self.cache_root = config, cache_root
        self.layers = list_layers(alpha=config.alpha, image_px=config.image_px)
        self.trunks: dict[int, Trunk] = {}
        self.seconds: dict[str, float] = {}

    def fit(self, manifest: Manifest) -> dict[str, Any]:
        """Train; return history and the best epoch's prediction of each validation picture."""
        config = self.config
        self.seconds = {"features": 0.0, "fit": 0.0}
        names = manifest.class_names
        base, last_layer = load_base(config)
        dense = first_dense(config, names, last_layer, channels=self.layers[-1].channels)
        arrays = dict(base.arrays) | dense
        sources: list[FeatureSource] = []
        with tempfile.TemporaryDirectory() as made:
            state, commit = StateStore(Path(made)), None
            for phase in list_phases(config):
                with self._timed("features"):
                    sources.append(self._features(phase, manifest, arrays))
                with self._timed("fit"):
                    commit = self._fit_phase(phase, sources[-1], manifest, arrays, state)
            if commit is None:
                raise ValueError("there is no phase to train")
            best = state.load_arrays(commit.best.file)
        head = self._head(list_phases(config)[commit.best.phase], sources[commit.best.phase], names)
        set_arrays(head, best)
        val = manifest.of_split("val")
        probabilities = softmax(predict_logits(head, sources[commit.best.phase], val))
        keras.backend.clear_session()
        return {
            "history": commit.history,
            "best_epoch": commit.best.epoch,
            "predictions": list_predictions(
                [entry.path for entry in val], [entry.label for entry in val], probabilities
            ),
            "seconds": dict(self.seconds),
        }

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

    def _features(self, phase: Phase, manifest: Manifest, arrays: Arrays) -> FeatureSource:
        config = self.config
        cut = cut_at(self.layers, phase.trainable_layers)
        if cut not in self.trunks:
            self.trunks[cut] = open_trunk(
                self.layers[:cut],
                arrays,
                scaling=config.scaling,
                runtime=choose_runtime(config.trunk_runtime),
                image_px=config.image_px,
            )
        maker = ViewMaker(
            root=manifest.root, image_px=config.image_px, augment=config.augment, seed=config.seed
        )
        views = views_of_phases(config)
        train, val = manifest.of_split("train"), manifest.of_split("val")
        jobs = Jobs(train + val, [views] * len(train) + [(PLAIN,)] * len(val))
        limit = int(config.cache_limit_gb * 1e9)
        return prepare(maker, self.trunks[cut], jobs, cache_root=self.cache_root, limit_bytes=limit)

    def _fit_phase(
        self,
        phase: Phase,
        source: FeatureSource,
        manifest: Manifest,
        arrays: Arrays,
        state: StateStore,
    ) -> Commit:
        start = state.commits[-1] if state.commits else None
        return fit_phase(
            self._head(phase, source, manifest.class_names),
            phase,
            self.config,
            source=source,
            split=Split(train=manifest.of_split("train"), val=manifest.of_split("val")),
            state=state,
            start=start,
            first_arrays=arrays | state.load_arrays(start.best.file) if start else arrays,
            advance=lambda count: None,
            report=lambda row, is_best: None,
        )

    def _head(self, phase: Phase, source: FeatureSource, names: tuple[str, ...]) -> keras.Model:
        return build_head(self.layers, phase, self.config, classes=len(names), shape=source.shape)


def run_piece(
    manifest: Manifest, config: TrainConfig, *, folds: int, cache: Path | None
) -> dict[str, Any]:
    """Train all folds with one setting and seed.

    Args:
        manifest: The data set.
        config: The setting.
        folds: Number of folds; 1 keeps the data set's own split.
        cache: Feature cache to share; None for a new one, as timings need it.
    """
    with tempfile.TemporaryDirectory() as made:
        stages = Stages(config, cache_root=cache or Path(made))
        fits = [stages.fit(each) for each in split_manifests(manifest, folds)]
    return {
        "predictions": [row for fit in fits for row in fit["predictions"]],
        "histories": [fit["history"] for fit in fits],
        "best_epochs": [fit["best_epoch"] for fit in fits],
        "val_images": [len(fit["predictions"]) for fit in fits],
        "seconds": None if cache else fits[0]["seconds"],
    }
