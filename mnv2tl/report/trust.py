"""The report's part on probabilities: what they are worth, and where to stop answering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mnv2tl.metrics import expected_calibration_error, softmax
from mnv2tl.report.answers import Answers
from mnv2tl.report.calibration import (
    Operation,
    make_bins,
    operate,
    suggest_threshold,
    trace_risk,
)
from mnv2tl.report.charts import draw_reliability, draw_risk
from mnv2tl.report.svg import Chart

_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What the report tells of the probabilities."""

    split: str
    """The images that they are judged on: validation or test."""
    temperature: float
    """What logits are divided by."""
    before: float
    """Expected calibration error without the temperature, 0 to 1."""
    after: float
    """The same with it."""
    charts: tuple[Chart, Chart]
    """Reliability before and after."""
    risk: Chart
    """Error rate over coverage."""
    area: float
    """Mean of the risk over all coverages, 0 to 1."""
    suggested: float | None
    """Threshold that the validation images suggest, if they do."""
    operations: tuple[Operation, ...]
    """What several thresholds give, the suggested one among them, in rising order."""


def judge(answers: Mapping[str, Answers]) -> Trust:
    """Judge the probabilities on the test images where there are any, else on validation.

    Args:
        answers: Of the split `val`, and of `test` where there is one.
    """
    val = answers["val"]
    found = answers.get("test", val)
    split = "test" if "test" in answers else "validation"
    labels, after = found.labels, found.probabilities
    before = softmax(found.logits)
    errors = [expected_calibration_error(each, labels) for each in (before, after)]
    suggested = suggest_threshold(val.probabilities, val.labels)
    thresholds = sorted({*_THRESHOLDS, *([] if suggested is None else [suggested])})
    coverage, risk = trace_risk(after, labels)
    return Trust(
        split=split,
        temperature=found.temperature,
        before=errors[0],
        after=errors[1],
        charts=(
            draw_reliability(
                make_bins(before, labels),
                name="reliability-before",
                title="Before the temperature",
                error=errors[0],
            ),
            draw_reliability(
                make_bins(after, labels),
                name="reliability-after",
                title="After the temperature",
                error=errors[1],
            ),
        ),
        risk=draw_risk(
            coverage,
            risk,
            suggested=None if suggested is None else operate(after, labels, suggested),
            split=split,
        ),
        area=float(np.mean(risk)),
        suggested=suggested,
        operations=tuple(operate(after, labels, each) for each in thresholds),
    )
