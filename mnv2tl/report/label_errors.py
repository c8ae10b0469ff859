"""Pictures whose class looks wrong, by confident learning.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR
2021, arXiv:1911.00068. The rule stands here in a few lines: the package cleanlab, which knows it
too, would bring pandas and scikit-learn along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One picture that may lie in the wrong folder."""

    row: int
    """Its row in the probabilities."""
    suggested: int
    """The class that it rather seems to be of."""
    margin: float
    """Probability of the suggested class less that of its own, -1 to 1."""


def class_thresholds(probabilities: Floats, labels: Labels) -> NDArray[np.float64]:
    """Return how sure the model is, in the mean, of a class on the pictures that are said to be it.

    Args:
        probabilities: Of pictures that the model was not trained on, shape (n, classes).
        labels: Their given classes, shape (n,).

    Returns:
        Shape (classes,); infinite for a class without pictures, which then is never suggested.
    """
    classes = probabilities.shape[1]
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=classes)
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def find_suspects(probabilities: Floats, labels: Labels) -> list[Suspect]:
    """Return pictures that are confidently of another class than the given one.

    A picture counts as confidently of the likeliest among the classes whose probability reaches
    that class's threshold; it is suspect if that is not its own class: the entries of the
    confident joint off its diagonal (section 3.1 of the paper).

    Args:
        probabilities: As for `class_thresholds`.
        labels: As for `class_thresholds`.

    Returns:
        The largest margin first; of equal ones the lower row.
    """
    reached = probabilities >= class_thresholds(probabilities, labels)
    confident = np.where(reached, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    rows = np.flatnonzero(reached.any(axis=1) & (suggested != labels))
    margins = probabilities[rows, suggested[rows]] - probabilities[rows, labels[rows]]
    return [
        Suspect(row=int(rows[i]), suggested=int(suggested[rows[i]]), margin=float(margins[i]))
        for i in np.argsort(-margins, kind="stable")
    ]
