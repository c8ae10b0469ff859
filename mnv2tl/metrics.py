"""Figures that say how good probabilities are; NumPy only, so every runtime is judged alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

# Two-sided 95 % point of the normal distribution.
_Z95 = 1.959963984540054


def softmax(logits: Floats, *, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return probabilities, shape (n, classes), rows summing to 1, of logits over a temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def top1_accuracy(probabilities: Floats, labels: Labels) -> float:
    """Return the share of images whose most likely class is the true one.

    Args:
        probabilities: One row per image, shape (n, classes); logits do as well.
        labels: Index of the true class, shape (n,), each in [0, classes).

    Returns:
        A share from 0.0 to 1.0, not a percentage. A tie goes to the lower class index.

    Raises:
        ValueError: There is no image, or there are not as many labels as rows.

    >>> top1_accuracy(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    0.5
    """
    _check(probabilities, labels)
    return float((probabilities.argmax(axis=1) == labels).mean())


def log_loss(probabilities: Floats, labels: Labels) -> float:
    """Return the mean of -log(probability of the true class), in nats; 0 is perfect.

    Args:
        probabilities: Shape (n, classes), rows summing to 1; below 1e-15 counts as 1e-15.
        labels: Index of the true class, shape (n,).
    """
    _check(probabilities, labels)
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, 1e-15)).mean())


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's score.

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.

    Args:
        correct: Number of hits, 0 to total.
        total: Number of trials, at least 1.

    >>> [round(bound, 3) for bound in wilson_interval(70, 79)]
    [0.797, 0.939]
    """
    share = correct / total
    centre = share + _Z95**2 / (2 * total)
    spread = _Z95 * math.sqrt(share * (1 - share) / total + _Z95**2 / (4 * total**2))
    scale = 1 + _Z95**2 / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def expected_calibration_error(probabilities: Floats, labels: Labels, *, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equal-width bins of confidence.

    Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, equation 3.

    Returns:
        A share from 0.0 (calibrated) to 1.0; bins weigh as many images as they hold.
    """
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1)
    hits = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[bin_of == b].sum() - hits[bin_of == b].sum()))
        for b in np.unique(bin_of)
    ]
    return sum(gaps) / len(labels)


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Return the temperature from 0.05 to 20 whose softmax(logits / T) has the least log loss.

    Guo et al., arXiv:1706.04599, section 4.2. The loss is convex in 1/T, so a golden-section
    search over log(T), where it has one valley, finds the least to 1e-6.

    Returns:
        1.0 where every image is right: the loss then falls without end as T does, and the images
        do not tell how sure to be.
    """
    if top1_accuracy(logits, labels) == 1.0:
        return 1.0
    low, high = math.log(0.05), math.log(20.0)
    golden = (math.sqrt(5) - 1) / 2

    def loss(log_temperature: float) -> float:
        # Not by `log_loss`, whose smallest probability would make level ground.
        scaled = np.asarray(logits, np.float64) / math.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        true = scaled[np.arange(len(labels)), labels]
        return float((np.log(np.exp(scaled).sum(axis=1)) - true).mean())

    while high - low > 1e-6:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def per_class(
    probabilities: Floats, labels: Labels, class_names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of every class, in the order of the names.

    A share whose denominator is 0 (a class never predicted, or without images) is None.
    """
    _check(probabilities, labels)
    predicted = probabilities.argmax(axis=1)
    rows = []
    for index, name in enumerate(class_names):
        hits = int(((predicted == index) & (labels == index)).sum())
        called, support = int((predicted == index).sum()), int((labels == index).sum())
        rows.append(
            {
                "class_name": name,
                "precision": hits / called if called else None,
                "recall": hits / support if support else None,
                "f1": 2 * hits / (called + support) if called + support else None,
                "support": support,
            }
        )
    return rows


def _check(rows: Floats, labels: Labels) -> None:
    if rows.ndim != 2 or labels.shape != (len(rows),):
        shapes = f"{rows.shape} and {labels.shape}"
        raise ValueError(f"expected shapes (n, classes) and (n,), got {shapes}")
    if not len(labels):
        raise ValueError("there is no image")
