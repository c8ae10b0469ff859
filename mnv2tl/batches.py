"""The batches of an epoch: which images, in which order, which view of them, and their weights.

All of it comes from NumPy and the seed, so that both backends get the same batches and a resumed
run gets those of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mnv2tl.config import TrainConfig
from mnv2tl.data.entries import Entries
from mnv2tl.data.views import PLAIN
from mnv2tl.features import FeatureSource


def batches_of_epoch(
    source: FeatureSource,
    entries: Entries,
    config: TrainConfig,
    epoch: int,
    class_weights: NDArray[np.float32],
) -> Iterator[tuple[NDArray[np.float32], ...]]:
    """Yield features (n, ...), one-hot targets (n, classes) and weights (n,).

    A batch of another size would be traced and compiled anew, so one that the images do not fill
    is padded with rows of zeros, which weigh nothing; the others then weigh more, so that the mean
    over all rows is that over the images. Only where BatchNorm takes statistics of a batch, the
    last one is left as small as it is.

    Args:
        source: Gives the features.
        entries: Images to learn from.
        config: Settings of the run.
        epoch: Which one, counted from 0.
        class_weights: Weight of each class's images in the loss, shape (classes,).
    """
    ordered = entries.take(order_of_epoch(config.seed, epoch, len(entries)))
    view = view_of_epoch(config, epoch)
    rows = min(config.batch_size, len(ordered))
    for start in range(0, len(ordered), config.batch_size):
        batch = ordered[start : start + config.batch_size]
        labels = list(batch.labels())
        targets = np.eye(len(class_weights), dtype=np.float32)[labels]
        arrays = source.read(batch, view), targets, class_weights[labels]
        is_whole = len(batch) == rows or config.batch_norm == "train"
        yield arrays if is_whole else _pad(*arrays, rows=rows)


def _pad(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    *,
    rows: int,
) -> tuple[NDArray[np.float32], ...]:
    weights = weights * np.float32(rows / len(weights))
    return tuple(
        np.concatenate([each, np.zeros((rows - len(each), *each.shape[1:]), np.float32)])
        for each in (features, targets, weights)
    )


def order_of_epoch(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the order of the images in an epoch, counted from 0; equal on both backends."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def view_of_epoch(config: TrainConfig, epoch: int) -> int:
    """Return the view that an epoch sees, counted from 0; epochs walk through the views."""
    return epoch % config.views if config.is_augmented else PLAIN


def views_of_phases(config: TrainConfig) -> tuple[int, ...]:
    """Return all views that the epochs see."""
    return tuple(sorted({view_of_epoch(config, epoch) for epoch in range(config.all_epochs)}))


def weigh_classes(entries: Entries, config: TrainConfig, *, classes: int) -> NDArray[np.float32]:
    """Return the weight of each class's images in the loss, shape (classes,)."""
    if config.class_weights == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(list(entries.labels()), minlength=classes)
    return (len(entries) / (classes * np.maximum(counts, 1))).astype(np.float32)
