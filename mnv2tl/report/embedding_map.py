"""The report's map of what the network sees: one mark per image, its picture under the pointer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnv2tl.report.answers import Answers
from mnv2tl.report.projection import project
from mnv2tl.report.thumbnails import MAP_SIDE_PX, Picture, embed
from mnv2tl.text import percent, printable, shorten

CAP = 2000
"""Marks at most, drawn by hash from all classes."""
SHAPES = 8
"""Kinds of marks that the page knows."""
COLOURS = 7
"""Colours that the page knows; 7 and 8 have no common divisor, so 56 classes look unlike."""
PLANE = 400
"""Width and height of the plane, in units of the drawing."""
_MARGIN = 10
_TEXT_LENGTH = 42


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One image on the map."""

    x: float
    """From the left, 0 to `PLANE`."""
    y: float
    """From the top, 0 to `PLANE`."""
    label: int
    """True class; it decides shape and colour."""
    is_right: bool
    """Whether the answer is the true class."""
    picture: Picture
    """The image."""
    lines: tuple[str, ...]
    """What is said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingMap:
    """The whole map."""

    marks: tuple[Mark, ...]
    """At most `CAP`."""
    total: int
    """Images that there are."""
    shown_variance: float
    """Share of the variance that the plane shows, 0 to 1."""


def make_map(answers: Answers) -> EmbeddingMap:
    """Lay out the images of a split by their pooled features."""
    positions, share = project(answers.pooled)
    low, high = positions.min(axis=0), positions.max(axis=0)
    scale = (PLANE - 2 * _MARGIN) / max(float((high - low).max()), 1e-9)
    placed = (positions - (low + high) / 2) * scale + PLANE / 2
    hashes = [entry.sha256 for entry in answers.entries]
    rows = sorted(np.argsort(hashes, kind="stable")[:CAP].tolist())
    probabilities, predicted = answers.probabilities, answers.predicted
    marks = []
    for row in rows:
        entry, answer = answers.entries[row], int(predicted[row])
        name = shorten(printable(answers.class_names[entry.label]), _TEXT_LENGTH)
        says = shorten(printable(answers.class_names[answer]), _TEXT_LENGTH - 10)
        marks.append(
            Mark(
                x=round(float(placed[row, 0]), 1),
                y=round(float(PLANE - placed[row, 1]), 1),
                label=entry.label,
                is_right=answer == entry.label,
                picture=embed(answers.thumbnails[row], side_px=MAP_SIDE_PX),
                lines=(
                    shorten(printable(entry.path), _TEXT_LENGTH),
                    f"is {name}",
                    f"answer {says}, {percent(float(probabilities[row, answer]))}",
                ),
            )
        )
    return EmbeddingMap(marks=tuple(marks), total=len(answers.entries), shown_variance=share)
