"""The report's part on classes: which are taken for which, and how good each one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mnv2tl.metrics import per_class, wilson_interval
from mnv2tl.report.answers import Answers

CAP = 40
"""Classes up to which the whole matrix is shown."""
PAIRS = 12
"""Pairs of classes that are named at most."""
_SHADES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the matrix."""

    count: int
    """Images of the row's class that are answered as the column's."""
    shade: int
    """Share of the row, 0 to 9; 0 only for no image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """What the report tells of the classes."""

    class_names: tuple[str, ...]
    """Of rows and columns."""
    matrix: tuple[tuple[Cell, ...], ...]
    """True class by answer; empty above `CAP` classes."""
    pairs: tuple[tuple[str, str, int], ...]
    """True class, answer and number of images, the most frequent mistakes first."""
    rows: tuple[dict[str, Any], ...]
    """As `metrics.per_class`, with `wrong` and the interval of the recall; most wrong first."""


def make_confusion(answers: Answers) -> Confusion:
    """Count the answers on a split by class."""
    names, labels = answers.class_names, answers.labels
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels, answers.predicted), 1)
    mistakes = [
        (names[true], names[answer], int(counts[true, answer]))
        for true, answer in np.argwhere(counts).tolist()
        if true != answer
    ]
    return Confusion(
        class_names=names,
        matrix=tuple(map(_shade, counts.tolist())) if len(names) <= CAP else (),
        pairs=tuple(sorted(mistakes, key=lambda pair: -pair[2])[:PAIRS]),
        rows=_sort_by_error(per_class(answers.probabilities, labels, names)),
    )


def _shade(row: list[int]) -> tuple[Cell, ...]:
    total = max(sum(row), 1)
    return tuple(Cell(count=each, shade=-(-_SHADES * each // total)) for each in row)


def _sort_by_error(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    for row in rows:
        support = row["support"]
        hits = round((row["recall"] or 0.0) * support)
        row["wrong"] = support - hits
        row["interval"] = wilson_interval(hits, support) if support else None
    order = sorted(rows, key=lambda row: (row["recall"] is None, row["recall"], row["class_name"]))
    return tuple(order)
