"""How far probabilities can be trusted, and below which one it is better not to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.metrics import wilson_interval

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

BINS = 15
"""As in `metrics.expected_calibration_error`."""
_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Images whose most likely class has about the same probability."""

    confidence: float
    """Its mean, 0 to 1."""
    accuracy: float
    """Share of them that are right."""
    interval: tuple[float, float]
    """95 % interval of that share."""
    images: int
    """How many there are, at least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What answering only above a threshold gives."""

    threshold: float
    """Least probability of the most likely class at which an image is answered."""
    answered: int
    """Images that reach it."""
    coverage: float
    """Their share of all."""
    wrong: int
    """How many of them are wrong."""
    accuracy: float | None
    """Share of them that are right; None if there is none."""
    interval: tuple[float, float] | None
    """95 % interval of that share."""


def make_bins(probabilities: Floats, labels: Labels) -> list[Bin]:
    """Sort images by confidence into `BINS` bins of equal width; empty ones are left out."""
    confidence, hits = _judge(probabilities, labels)
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for index in np.unique(bin_of):
        inside = bin_of == index
        right, count = int(hits[inside].sum()), int(inside.sum())
        bins.append(
            Bin(
                confidence=float(confidence[inside].mean()),
                accuracy=right / count,
                interval=wilson_interval(right, count),
                images=count,
            )
        )
    return bins


def trace_risk(probabilities: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Return the risk-coverage curve: the error rate of the most confident images.

    Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", 2017,
    arXiv:1705.08500. Images of equal confidence are answered together, or not at all.

    Returns:
        Coverage, rising to 1, and the risk at each, both shares of the same shape.
    """
    confidence, hits = _judge(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(~hits[order])
    counts = np.arange(1, len(order) + 1)
    is_last = np.append(np.diff(confidence[order]) != 0, True)
    return counts[is_last] / len(order), wrong[is_last] / counts[is_last]


def operate(probabilities: Floats, labels: Labels, threshold: float) -> Operation:
    """Return what answering only at a confidence of `threshold` or more gives."""
    confidence, hits = _judge(probabilities, labels)
    taken = confidence >= threshold
    answered, right = int(taken.sum()), int(hits[taken].sum())
    return Operation(
        threshold=threshold,
        answered=answered,
        coverage=answered / len(labels),
        wrong=answered - right,
        accuracy=right / answered if answered else None,
        interval=wilson_interval(right, answered) if answered else None,
    )


def suggest_threshold(probabilities: Floats, labels: Labels) -> float | None:
    """Return the lowest threshold, in steps of 0.01, that halves the error rate.

    At it, at most half as large a share of the answered images is wrong as of all images.

    Returns:
        None where no image is wrong, or no threshold below 1 does it.
    """
    all_of_them = operate(probabilities, labels, 0.0)
    if not all_of_them.wrong:
        return None
    limit = all_of_them.wrong / all_of_them.answered / 2
    for step in range(1, _STEPS):
        found = operate(probabilities, labels, step / _STEPS)
        if found.answered and found.wrong / found.answered <= limit:
            return found.threshold
    return None


def _judge(probabilities: Floats, labels: Labels) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the confidence of each image and whether it is right, both of shape (n,)."""
    if not len(labels) or probabilities.shape[0] != len(labels):
        raise ValueError(f"expected a row for each label, got {probabilities.shape}, {len(labels)}")
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
