"""Predictions pooled over folds and seeds, and how sure a comparison of two recipes is.

A *piece* is the JSON of one training on one fold with one seed; `predictions` in it has one row
for each validation picture. Pictures are what varies, so intervals resample pictures, and both
recipes keep their answers to the same picture together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000

Shares = NDArray[np.float64]
Piece = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """What one recipe answered to each picture."""

    paths: tuple[str, ...]
    """Pictures, sorted."""
    errors: Shares
    """Share of seeds that answered wrongly, shape (n,)."""
    losses: Shares
    """Mean over seeds of -log(probability of the true class), shape (n,)."""
    by_seed: tuple[float, ...]
    """Accuracy of each seed over all pictures."""

    @property
    def accuracy(self) -> float:
        """Share of right answers over pictures and seeds."""
        return 1.0 - float(self.errors.mean())


def list_predictions(
    paths: Sequence[str], labels: Sequence[int], probabilities: NDArray[np.floating[Any]]
) -> list[dict[str, Any]]:
    """Return the rows of a piece.

    Args:
        paths: Validation pictures, the same whatever recipe and fold.
        labels: Their true classes.
        probabilities: Shape (n, classes).
    """
    return [
        {
            "path": path,
            "label": int(label),
            "predicted": int(row.argmax()),
            "probability": float(row[label]),
        }
        for path, label, row in zip(paths, labels, probabilities, strict=True)
    ]


def read_pieces(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the pieces in these files."""
    return [json.loads(path.read_bytes()) for path in paths]


def pool(pieces: Sequence[Piece]) -> Pooled:
    """Bring the pieces of one recipe together.

    Raises:
        ValueError: A picture is predicted twice with one seed, or not with every seed.
    """
    by_seed: dict[int, dict[str, tuple[float, float]]] = {}
    for piece in pieces:
        known = by_seed.setdefault(piece["seed"], {})
        for row in piece["predictions"]:
            if row["path"] in known:
                raise ValueError(f"{row['path']} is predicted twice with seed {piece['seed']}")
            wrong = float(row["predicted"] != row["label"])
            known[row["path"]] = wrong, -float(np.log(max(row["probability"], 1e-15)))
    if not by_seed:
        raise ValueError("there is no piece")
    paths = sorted(next(iter(by_seed.values())))
    for seed, known in by_seed.items():
        if sorted(known) != paths:
            raise ValueError(f"seed {seed} predicted other pictures than the first seed")
    figures = np.array([[known[path] for path in paths] for known in by_seed.values()])
    return Pooled(  # figures: (seeds, n, 2)
        paths=tuple(paths),
        errors=figures[:, :, 0].mean(axis=0),
        losses=figures[:, :, 1].mean(axis=0),
        by_seed=tuple(1.0 - float(wrong) for wrong in figures[:, :, 0].mean(axis=1)),
    )


def compare(ours: Pooled, other: Pooled) -> dict[str, Any]:
    """Return the ratio of errors and the difference of accuracies, with 95 % intervals.

    Returns:
        `error_ratio` is ours / other (None where the other makes no error), `points` is the gain
        in accuracy in percentage points; each with `..._interval`.

    Raises:
        ValueError: They were asked about different pictures.
    """
    if ours.paths != other.paths:
        raise ValueError("the two recipes were asked about different pictures")
    a, b = ours.errors, other.errors
    result: dict[str, Any] = {
        "error_ratio": None,
        "error_ratio_interval": None,
        "points": 100 * float(b.mean() - a.mean()),
        "points_interval": bootstrap(lambda x, y: 100 * (y - x), a, b),
    }
    if b.any():
        result["error_ratio"] = float(a.mean() / b.mean())
        result["error_ratio_interval"] = bootstrap(_ratio, a, b)
    return result


def bootstrap(
    statistic: Callable[[Shares, Shares], Shares], first: Shares, second: Shares, *, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic of two means, resampled in pairs.

    B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.

    Args:
        statistic: Takes the means of the two samples, shape (resamples,) each.
        first: One value per picture, shape (n,).
        second: The same pictures, in the same order.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(first), (RESAMPLES, len(first)))
    values = statistic(first[rows].mean(axis=1), second[rows].mean(axis=1))
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _ratio(first: Shares, second: Shares) -> Shares:
    # A resample without any error of the other recipe counts as its smallest possible error.
    return first / np.maximum(second, 1e-9)
