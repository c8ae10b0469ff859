"""Which pictures the report shows of what the network answers, and what it says of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.report.answers import Answers
from mnv2tl.report.gradcam import overlay
from mnv2tl.report.label_errors import find_suspects
from mnv2tl.report.thumbnails import Picture, embed, encode, open_small

Labels = NDArray[np.integer[Any]]

CAP = 24
"""Pictures that a gallery shows at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One picture of a gallery."""

    path: str
    """As in the manifest."""
    picture: Picture
    """The picture itself."""
    overlays: tuple[Picture, ...]
    """Grad-CAM of `first` and of `second`, or of `first`, or of none."""
    first: str
    """Name of the class that the network answers, or that is suggested."""
    first_probability: float
    """0 to 1."""
    second: str
    """Name of the class to compare it with: the given one, or the runner-up."""
    second_probability: float
    """0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """The first pictures of an ordered list."""

    cases: tuple[Case, ...]
    """At most `CAP`."""
    total: int
    """How many there are."""


def show_mistakes(answers: Answers) -> Gallery:
    """Return the pictures answered wrongly, the least probable true class first."""
    labels, predicted = answers.labels, answers.predicted
    of_true = answers.probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(of_true[wrong], kind="stable")]
    return _show(answers, order[:CAP], (predicted, labels), total=len(order), maps=2)


def show_doubtful(answers: Answers) -> Gallery:
    """Return the pictures answered rightly whose second class came nearest."""
    predicted, probabilities = answers.predicted, answers.probabilities
    rows = np.arange(len(predicted))
    rivals = probabilities.copy()
    rivals[rows, predicted] = -1.0
    second = rivals.argmax(axis=1)
    margins = probabilities[rows, predicted] - probabilities[rows, second]
    right = np.flatnonzero(predicted == answers.labels)
    order = right[np.argsort(margins[right], kind="stable")]
    return _show(answers, order[: CAP // 2], (predicted, second), total=len(order), maps=1)


def show_suspects(answers: Answers) -> Gallery:
    """Return the pictures whose class looks wrong, by confident learning."""
    suspects = find_suspects(answers.probabilities, answers.labels)
    suggested = answers.predicted
    for suspect in suspects:
        suggested[suspect.row] = suspect.suggested
    rows = np.array([suspect.row for suspect in suspects[:CAP]], np.int64)
    return _show(answers, rows, (suggested, answers.labels), total=len(suspects), maps=0)


def _show(
    answers: Answers, rows: Labels, classes: tuple[Labels, Labels], *, total: int, maps: int
) -> Gallery:
    """Return a gallery of some rows.

    Args:
        answers: Of all images.
        rows: The images to show, in order.
        classes: The two classes that are named for each of all images.
        total: How many images the gallery would have without its cap.
        maps: For how many of the two classes Grad-CAM is shown: the answer, and the true one.
    """
    probabilities, names = answers.probabilities, answers.class_names
    cases = []
    for row in rows.tolist():
        first, second = (int(each[row]) for each in classes)
        image = open_small(answers.thumbnails[row])
        heat = (answers.predicted_maps[row], answers.true_maps[row])[:maps]
        overlays = [embed(encode(overlay(image, each))) for each in heat]
        cases.append(
            Case(
                path=answers.entries[row].path,
                picture=embed(answers.thumbnails[row]),
                overlays=tuple(overlays),
                first=names[first],
                first_probability=float(probabilities[row, first]),
                second=names[second],
                second_probability=float(probabilities[row, second]),
            )
        )
    return Gallery(cases=tuple(cases), total=total)
