from __future__ import annotations

import numpy as np
import pytest

from mnv2tl.metrics import expected_calibration_error
from mnv2tl.report.calibration import make_bins, operate, suggest_threshold, trace_risk

# Confidence of the first class, and whether it is right: wrong at 0.6 and at 0.8.
_CONFIDENCE = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
_PROBABILITIES = np.stack([_CONFIDENCE, 1 - _CONFIDENCE], axis=1)
_LABELS = np.array([0, 0, 1, 0, 1])


def test_trace_risk_gives_the_known_curve() -> None:
    """Errors among the 1, 2, 3, 4 and 5 surest images."""
    coverage, risk = trace_risk(_PROBABILITIES, _LABELS)

    np.testing.assert_allclose(coverage, [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 4, 2 / 5])


def test_trace_risk_answers_equal_confidence_together() -> None:
    """No threshold parts images that are equally sure, so the curve has no point between them."""
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.7, 0.3]])

    coverage, risk = trace_risk(probabilities, np.array([0, 1, 0]))

    np.testing.assert_allclose(coverage, [1 / 3, 1])
    np.testing.assert_allclose(risk, [0, 1 / 3])


def test_operate_counts_what_is_answered() -> None:
    """An image at the threshold itself is answered."""
    found = operate(_PROBABILITIES, _LABELS, 0.8)

    assert (found.answered, found.wrong, found.coverage) == (3, 1, 0.6)
    assert found.accuracy == pytest.approx(2 / 3)


def test_operate_above_all_images_has_no_accuracy() -> None:
    """Nothing is answered: no share of nothing."""
    found = operate(_PROBABILITIES, _LABELS, 0.99)

    assert (found.answered, found.accuracy, found.interval) == (0, None, None)


def test_suggest_threshold_is_the_lowest_that_halves_the_error() -> None:
    """2 of 5 are wrong, so at most 1 in 5 may be: above 0.80 none of two is."""
    assert suggest_threshold(_PROBABILITIES, _LABELS) == 0.81


def test_suggest_threshold_says_nothing_where_nothing_can_be_said() -> None:
    """No image is wrong, or the surest is."""
    assert suggest_threshold(_PROBABILITIES, np.zeros(5, np.int64)) is None
    assert suggest_threshold(_PROBABILITIES, np.ones(5, np.int64)) is None


def test_make_bins_add_up_to_the_calibration_error() -> None:
    """The chart shows the very bins that the figure is made of."""
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(3), 500)
    labels = rng.integers(0, 3, 500)

    bins = make_bins(probabilities, labels)

    gaps = sum(each.images * abs(each.confidence - each.accuracy) for each in bins) / 500
    assert gaps == pytest.approx(expected_calibration_error(probabilities, labels))
    assert sum(each.images for each in bins) == 500
    assert all(each.interval[0] <= each.accuracy <= each.interval[1] for each in bins)


@pytest.mark.parametrize("judge", [make_bins, trace_risk, suggest_threshold])
def test_rows_and_labels_must_go_together(judge: object) -> None:
    """NumPy would broadcast one label over all rows."""
    assert callable(judge)
    with pytest.raises(ValueError, match="expected a row for each label"):
        judge(_PROBABILITIES, np.array([0]))
