"""What the gate compares, what it allows, and how it says so.

`gate` measures; this file judges. Where an artifact and Keras part is told apart: pixels against
pixels, graph against graph on equal pixels, and the whole way from file to probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data.entries import Entry
from mnv2tl.errors import ResultError
from mnv2tl.metrics import top1_accuracy, wilson_interval
from mnv2tl_export.golden import SelfTest

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far an artifact may be from Keras; None where it may be any."""

    probabilities: float | None
    """Each of them, on equal pixels."""
    logits: float | None
    """Each of them, on equal pixels."""
    top1_agreement: float | None
    """Least share of equal labels on equal pixels."""
    batches: float
    """Each probability, between batch sizes."""
    file_probabilities: float | None
    """Each of them, from file to probability."""
    accuracy_lost: float = 0.0
    """Accuracy on equal pixels below that of Keras, as a share."""
    resizes: float = 1e-3
    """Each probability, between Pillow's pixels and those that the graph makes itself."""
    pixel_mean: float = 0.02
    """Mean difference of the graph's own resize over all images, in levels of 255."""


FP32 = Limits(
    probabilities=5e-5, logits=2e-4, top1_agreement=1.0, batches=5e-5, file_probabilities=2e-3
)
"""Keras on JAX and on TensorFlow differ by 4e-6 already; see `benchmarks/gate.py`."""


def limits_of(format_name: str, *, accuracy_budget: float) -> Limits:
    """Return what a format is allowed.

    Args:
        format_name: Such as `onnx-int8`.
        accuracy_budget: Accuracy that fp16 and int8 may lose, as a share.
    """
    if format_name == "onnx-fp16":
        # 11 bits of a weight move a sound network by 0.01; see benchmarks/results/quantised.json.
        return Limits(
            probabilities=2e-2,
            logits=None,
            top1_agreement=None,
            batches=2e-2,
            file_probabilities=2.2e-2,
            accuracy_lost=accuracy_budget,
        )
    if format_name == "onnx-int8":
        return Limits(
            probabilities=None,
            logits=None,
            top1_agreement=None,
            batches=1e-3,
            file_probabilities=None,
            accuracy_lost=accuracy_budget,
        )
    return FP32


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What Keras and an artifact answered on the same images, one row per image."""

    entries: Sequence[Entry]
    """The images."""
    expected: Floats
    """Probabilities of Keras on Pillow's pixels, shape (n, classes)."""
    on_pixels: Floats
    """Probabilities of the artifact on the same pixels, shape (n, classes)."""
    from_files: Floats
    """Probabilities of the artifact on the decoded pictures, shape (n, classes)."""
    logit_diffs: Floats | None
    """Largest difference of a logit on equal pixels, shape (n,); None if there are no logits."""
    pixel_means: Floats
    """Mean difference of the graph's resize from Pillow's, in levels of 255, shape (n,)."""
    pixel_maxima: Floats
    """Largest difference of a level, shape (n,)."""
    batch_diff: float
    """Largest difference of a probability between batches of 1, 2 and 16 and an odd rest."""
    selftest: SelfTest
    """What the artifact answers to the picture that it carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure beside its limit."""

    name: str
    """What is measured, in a few words."""
    value: float
    """What came out."""
    limit: float | None
    """What is allowed; None where the figure is only told."""
    is_least: bool = False
    """Whether the value may not be below the limit, in place of above it."""
    worst: str | None = None
    """Path of the image where it is worst, if it is a matter of one image."""

    @property
    def passed(self) -> bool:
        """Whether the value is within the limit; NaN never is."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.is_least else self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return the keys of `parity.json`; a figure that is not finite is a text."""
        return {
            "name": self.name,
            "value": self.value if math.isfinite(self.value) else str(self.value),
            "limit": self.limit,
            "is_least": self.is_least,
            "passed": self.passed,
            "worst": self.worst,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What the gate found about one artifact."""

    format: str
    """Of the artifact, such as `onnx`."""
    checks: tuple[Check, ...]
    """In the order of the table."""
    figures: Mapping[str, Any]
    """Further figures for `parity.json`."""

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the keys of `parity.json`."""
        checks = [check.to_json() for check in self.checks]
        return {"format": self.format, "passed": self.passed, "checks": checks, **self.figures}

    def raise_if_failed(self) -> None:
        """Refuse the artifact.

        Raises:
            ResultError: A check failed; the first one and its worst image are named (E601).
        """
        for check in self.checks:
            if not check.passed:
                word = "at least" if check.is_least else "at most"
                message = f"{self.format} differs from Keras: {check.name} {check.value:.3g}"
                message += f", allowed {word} {check.limit:.3g}"
                raise ResultError("E601", message, path=check.worst)


def judge(measured: Measured, *, format_name: str, limits: Limits = FP32) -> Parity:
    """Hold figures against their limits.

    A label from file may differ only where the two probabilities lie within twice
    `file_probabilities` of each other, which that limit itself sees to; how many do is a figure.

    Args:
        measured: What was answered, at least one image.
        format_name: Of the artifact, such as `onnx`.
        limits: What is allowed.
    """
    labels = np.array([entry.label for entry in measured.entries])
    on_pixels = np.abs(measured.on_pixels - measured.expected).max(axis=1)
    from_files = np.abs(measured.from_files - measured.expected).max(axis=1)
    resizes = np.abs(measured.from_files - measured.on_pixels).max(axis=1)
    same = measured.on_pixels.argmax(axis=1) == measured.expected.argmax(axis=1)
    accuracy, expected_accuracy = (
        top1_accuracy(each, labels) for each in (measured.on_pixels, measured.expected)
    )
    worst = _Worst(measured.entries)
    checks = [
        worst.check("images with a value that is not finite", _not_finite(measured), 0, np.sum),
        worst.check("difference of a probability on equal pixels", on_pixels, limits.probabilities),
    ]
    if measured.logit_diffs is not None:
        name = "difference of a logit on equal pixels"
        checks.append(worst.check(name, measured.logit_diffs, limits.logits))
    checks += [
        Check(
            name="share of equal labels on equal pixels",
            value=float(same.mean()),
            limit=limits.top1_agreement,
            is_least=True,
            worst=None if same.all() else measured.entries[int(same.argmin())].path,
        ),
        # Rounded, so that one point of a hundred images is within a budget of one point.
        Check(
            name="accuracy lost on equal pixels",
            value=round(max(0.0, expected_accuracy - accuracy), 9),
            limit=limits.accuracy_lost,
        ),
        Check(
            name="difference between batch sizes", value=measured.batch_diff, limit=limits.batches
        ),
        worst.check(
            "mean difference of a resized level", measured.pixel_means, limits.pixel_mean, np.mean
        ),
        worst.check("difference of a probability from file", from_files, limits.file_probabilities),
        worst.check("difference between both resizes", resizes, limits.resizes),
        Check(
            name="difference in the self-test",
            value=measured.selftest.max_abs_diff,
            limit=measured.selftest.tolerance,
        ),
    ]
    return Parity(
        format=format_name,
        checks=tuple(checks),
        figures={
            "images": len(labels),
            "max_abs_diff": _json_float(on_pixels.max()),
            "mean_abs_diff": _json_float(np.abs(measured.on_pixels - measured.expected).mean()),
            "top1_agreement": float(same.mean()),
            "val_accuracy": accuracy,
            "val_accuracy_interval": wilson_interval(round(accuracy * len(labels)), len(labels)),
            "keras_accuracy": expected_accuracy,
            "pixels_max_abs_diff": _json_float(measured.pixel_maxima.max()),
            "from_file": _from_file(measured, labels, from_files),
        },
    )


def _from_file(measured: Measured, labels: NDArray[Any], differences: Floats) -> dict[str, Any]:
    """Return the figures of the whole way from file to probability."""
    expected = measured.expected
    found = measured.from_files.argmax(axis=1)
    rows = np.arange(len(labels))
    turned = np.flatnonzero(found != expected.argmax(axis=1))
    margins = expected.max(axis=1) - expected[rows, found]
    return {
        "max_abs_diff": _json_float(differences.max()),
        "accuracy": top1_accuracy(measured.from_files, labels),
        "labels_turned": len(turned),
        "largest_margin_turned": float(margins[turned].max()) if len(turned) else 0.0,
    }


def _not_finite(measured: Measured) -> Floats:
    """Return 1 for each image with an answer that is not finite, else 0, shape (n,)."""
    finite = np.isfinite(measured.on_pixels) & np.isfinite(measured.from_files)
    return np.asarray(1.0 - finite.all(axis=1))


def _json_float(value: Any) -> float | str:
    return float(value) if np.isfinite(value) else str(value)


@dataclass(frozen=True, slots=True)
class _Worst:
    """Makes checks of a figure per image."""

    entries: Sequence[Entry]

    def check(self, name: str, values: Floats, limit: float | None, reduce: Any = np.max) -> Check:
        """Return a check of the reduced values that names the image with the largest one."""
        index = int(np.nan_to_num(values, nan=np.inf, posinf=np.inf).argmax())
        path = self.entries[index].path
        return Check(name=name, value=float(reduce(values)), limit=limit, worst=path)
