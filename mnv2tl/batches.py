"""The batches of an epoch: which images, in which order, which view of them, and their weights.

All of it comes from NumPy and the seed, so that both backends get the same batches and a resumed
run gets those of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from mnv2tl.config import TrainConfig
from mnv2tl.data.manifest import Entry
from mnv2tl.data.views import PLAIN
from mnv2tl.features import FeatureSource


class EpochBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of one epoch: features, one-hot targets, weights."""

    def __init__(
        self,
        source: FeatureSource,
        entries: Sequence[Entry],
        config: TrainConfig,
        epoch: int,
        class_weights: NDArray[np.float32],
    ) -> None:
        # No workers of Keras: with them the same features gave other weights than without, as if
        # an epoch saw its batches in another order (Keras 3.15.1).
        super().__init__()
        self.source, self.class_weights = source, class_weights
        self.entries = [entries[i] for i in order_of_epoch(config.seed, epoch, len(entries))]
        self.view = view_of_epoch(config, epoch)
        self.batch_size = config.batch_size

    def __len__(self) -> int:
        """Return the number of batches; the last one may be smaller."""
        return math.ceil(len(self.entries) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], ...]:
        """Return features (n, ...), targets (n, classes) and weights (n,) of a batch."""
        entries = self.entries[index * self.batch_size : (index + 1) * self.batch_size]
        labels = [entry.label for entry in entries]
        targets = np.eye(len(self.class_weights), dtype=np.float32)[labels]  # (n, classes)
        return self.source.read(entries, self.view), targets, self.class_weights[labels]


def order_of_epoch(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the order of the images in an epoch, counted from 0; equal on both backends."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def view_of_epoch(config: TrainConfig, epoch: int) -> int:
    """Return the view that an epoch sees, counted from 0; epochs walk through the views."""
    return epoch % config.views if config.is_augmented else PLAIN


def views_of_phases(config: TrainConfig) -> tuple[int, ...]:
    """Return all views that the epochs see."""
    return tuple(sorted({view_of_epoch(config, epoch) for epoch in range(config.all_epochs)}))


def weigh_classes(
    entries: Sequence[Entry], config: TrainConfig, *, classes: int
) -> NDArray[np.float32]:
    """Return the weight of each class's images in the loss, shape (classes,)."""
    if config.class_weights == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount([entry.label for entry in entries], minlength=classes)
    return (len(entries) / (classes * np.maximum(counts, 1))).astype(np.float32)
