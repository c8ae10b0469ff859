from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mnv2tl.metrics import (
    expected_calibration_error,
    fit_temperature,
    log_loss,
    per_class,
    softmax,
    top1_accuracy,
    wilson_interval,
)

Floats = NDArray[np.float64]

LOGITS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 20), st.integers(2, 6)),
    elements=st.floats(-50, 50, width=32),
)


def _labels_for(logits: Floats, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, logits.shape[1], len(logits))


def _calibrated(count: int, scale: float, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Return logits and labels drawn from the probabilities that softmax(logits) gives."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, scale, (count, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    drawn = rng.random((count, 1)) > probabilities.cumsum(axis=1)
    return logits, drawn.sum(axis=1)


@given(logits=LOGITS, temperature=st.floats(0.05, 20), shift=st.floats(-1e3, 1e3))
@settings(max_examples=50, deadline=None)
def test_softmax_gives_probabilities_that_ignore_a_shift(
    logits: Floats, temperature: float, shift: float
) -> None:
    """Rows sum to 1, stay in order, and adding a number to all logits changes nothing."""
    probabilities = softmax(logits, temperature=temperature)

    assert probabilities.dtype == np.float64
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-12)
    chosen = np.take_along_axis(probabilities, logits.argmax(axis=1)[:, None], axis=1)[:, 0]
    np.testing.assert_array_equal(chosen, probabilities.max(axis=1))
    # A shift of 1000 costs 1e-13 of the logits, which a temperature of 0.05 enlarges.
    np.testing.assert_allclose(
        softmax(logits + shift, temperature=temperature), probabilities, atol=1e-9
    )


def test_softmax_equals_its_formula_and_survives_large_logits() -> None:
    """exp(1000) overflows; the largest logit is taken off first."""
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 1000.0, -1000.0]])

    probabilities = softmax(logits, temperature=2.0)

    powers = [math.exp(value / 2) for value in (1.0, 2.0, 3.0)]
    np.testing.assert_allclose(probabilities[0], [p / sum(powers) for p in powers], rtol=1e-14)
    np.testing.assert_array_equal(probabilities[1], [0.5, 0.5, 0.0])


def test_softmax_of_float32_is_computed_in_float64() -> None:
    """Figures must not depend on the type that a runtime hands over."""
    logits = np.array([[0.1, 0.2, 0.7]], np.float32)

    probabilities = softmax(logits)

    np.testing.assert_array_equal(probabilities, softmax(logits.astype(np.float64)))


def test_top1_accuracy_gives_a_tie_to_the_lower_class() -> None:
    """Every runtime must count a tie alike."""
    probabilities = np.array([[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]])

    assert top1_accuracy(probabilities, np.array([0, 1, 1])) == 2 / 3


@given(logits=LOGITS)
@settings(max_examples=50, deadline=None)
def test_top1_accuracy_equals_a_loop_and_needs_no_probabilities(logits: Floats) -> None:
    """Counting one by one gives the same share; the temperature does not matter."""
    labels = _labels_for(logits)

    accuracy = top1_accuracy(logits, labels)

    hits = sum(
        max(range(len(row)), key=lambda i: (row[i], -i)) == label
        for row, label in zip(logits.tolist(), labels, strict=True)
    )
    assert accuracy == hits / len(labels)


def test_log_loss_equals_its_formula() -> None:
    """A mean of -log p, in nats; a probability of 0 counts as 1e-15."""
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0]])

    loss = log_loss(probabilities, np.array([1, 1]))

    assert loss == pytest.approx((-math.log(0.75) - math.log(1e-15)) / 2, rel=1e-14)
    assert log_loss(probabilities[1:], np.array([0])) == 0.0


@given(logits=LOGITS)
@settings(max_examples=30, deadline=None)
def test_log_loss_is_never_negative_and_ignores_the_order(logits: Floats) -> None:
    """It is a mean over images."""
    labels = _labels_for(logits)
    order = np.random.default_rng(1).permutation(len(labels))

    loss = log_loss(softmax(logits), labels)

    assert loss >= 0
    assert log_loss(softmax(logits[order]), labels[order]) == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0000),
        (1, 1, 0.2065, 1.0000),
    ],
)
def test_wilson_interval_gives_published_values(
    correct: int, total: int, low: float, high: float
) -> None:
    """Newcombe, "Two-sided confidence intervals for the single proportion", 1998, method 3."""
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(total=st.integers(1, 10_000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_wilson_interval_holds_the_share_and_mirrors(total: int, data: st.DataObject) -> None:
    """Hits and misses exchanged give the mirrored interval, within [0, 1]."""
    correct = data.draw(st.integers(0, total))

    low, high = wilson_interval(correct, total)

    assert 0.0 <= low <= high <= 1.0
    assert low - 1e-12 <= correct / total <= high + 1e-12
    assert wilson_interval(total - correct, total) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_expected_calibration_error_equals_a_hand_example() -> None:
    """Two bins: four images at 0.9 with three hits, and two at 0.6 with both."""
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 0, 0, 1, 0, 0])

    error = expected_calibration_error(probabilities, labels, bins=5)

    assert error == pytest.approx((4 * abs(0.9 - 3 / 4) + 2 * abs(0.6 - 1.0)) / 6, rel=1e-12)


def test_expected_calibration_error_counts_full_confidence_in_the_last_bin() -> None:
    """A confidence of exactly 1 would fall into a bin of its own."""
    probabilities = np.array([[1.0, 0.0], [0.97, 0.03]])

    error = expected_calibration_error(probabilities, np.array([0, 1]), bins=10)

    # One bin: confidence 1.97 against one hit; two bins would give (0 + 0.97) / 2.
    assert error == pytest.approx(0.97 / 2, rel=1e-12)
    assert expected_calibration_error(probabilities[:1], np.array([0])) == 0.0


@given(logits=LOGITS, bins=st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_expected_calibration_error_is_a_share_above_the_overall_gap(
    logits: Floats, bins: int
) -> None:
    """Gaps in bins cannot cancel out, so it is at least |confidence - accuracy| over all."""
    labels = _labels_for(logits)
    probabilities = softmax(logits)

    error = expected_calibration_error(probabilities, labels, bins=bins)

    gap = abs(probabilities.max(axis=1).mean() - top1_accuracy(probabilities, labels))
    assert gap - 1e-9 <= error <= 1.0


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_fit_temperature_recovers_a_known_one(temperature: float) -> None:
    """Logits of a calibrated source, multiplied by T, need that T again."""
    logits, labels = _calibrated(20_000, 1.5, seed=2)

    found = fit_temperature(logits * temperature, labels)

    # 20,000 draws fix the temperature to about 1.5 %.
    assert found == pytest.approx(temperature, rel=0.05)


def test_fit_temperature_finds_the_least_loss() -> None:
    """No temperature of a fine grid is better."""
    logits, labels = _calibrated(200, 2.0, seed=3)

    found = fit_temperature(logits * 3, labels)

    grid = np.exp(np.linspace(math.log(0.05), math.log(20), 2000))
    losses = [log_loss(softmax(logits * 3, temperature=float(t)), labels) for t in grid]
    assert log_loss(softmax(logits * 3, temperature=found), labels) <= min(losses)


def test_fit_temperature_stays_within_its_bounds() -> None:
    """Images that are all wrong would want infinity."""
    logits = np.array([[3.0, 0.0], [0.0, 3.0]])

    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(20.0, rel=1e-4)


def test_fit_temperature_learns_nothing_from_images_that_are_all_right() -> None:
    """They would want 0, which makes every answer certain; 1 leaves the model as it is."""
    logits = np.array([[3.0, 0.0], [0.0, 3.0]])

    assert fit_temperature(logits, np.array([0, 1])) == 1.0


def test_fit_temperature_tames_logits_beyond_the_smallest_probability() -> None:
    """Where every wrong image counts as 1e-15 the loss is level, and the search must not stay."""
    logits = np.array([[200.0, 0.0], [200.0, 0.0], [0.0, 200.0], [0.0, 200.0]])
    labels = np.array([0, 1, 1, 0])  # half are wrong, all with probability 1e-87

    assert fit_temperature(logits, labels) == pytest.approx(20.0, rel=1e-4)


def test_per_class_equals_a_hand_example() -> None:
    """Three classes: one good, one never predicted, one without images."""
    probabilities = np.eye(4)[[0, 0, 0, 2, 2]]
    labels = np.array([0, 0, 1, 1, 0])

    rows = per_class(probabilities, labels, ("a", "b", "c", "d"))

    assert rows == [
        {"class_name": "a", "precision": 2 / 3, "recall": 2 / 3, "f1": 4 / 6, "support": 3},
        {"class_name": "b", "precision": None, "recall": 0.0, "f1": 0.0, "support": 2},
        {"class_name": "c", "precision": 0.0, "recall": None, "f1": 0.0, "support": 0},
        {"class_name": "d", "precision": None, "recall": None, "f1": None, "support": 0},
    ]


@given(logits=LOGITS)
@settings(max_examples=30, deadline=None)
def test_per_class_agrees_with_the_accuracy(logits: Floats) -> None:
    """Recalls weighed by support are the accuracy; F1 is the harmonic mean."""
    labels = _labels_for(logits)
    names = tuple("abcdef")[: logits.shape[1]]

    rows = per_class(logits, labels, names)

    assert sum(row["support"] for row in rows) == len(labels)
    hits = sum(row["recall"] * row["support"] for row in rows if row["support"])
    assert hits / len(labels) == pytest.approx(top1_accuracy(logits, labels), abs=1e-12)
    for row in rows:
        if row["precision"] and row["recall"]:
            mean = 2 / (1 / row["precision"] + 1 / row["recall"])
            assert row["f1"] == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("function", [top1_accuracy, log_loss, expected_calibration_error])
@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (np.eye(3), np.array([0]), r"got \(3, 3\) and \(1,\)"),
        (np.eye(3), np.zeros((3, 1), int), r"got \(3, 3\) and \(3, 1\)"),
        (np.ones(3), np.zeros(3, int), r"got \(3,\) and \(3,\)"),
        (np.ones((0, 3)), np.zeros(0, int), "there is no image"),
    ],
)
def test_figures_refuse_rows_and_labels_that_do_not_fit(
    function: object, rows: Floats, labels: NDArray[np.int64], message: str
) -> None:
    """NumPy would broadcast one label over all rows; a mean of nothing would be NaN."""
    with pytest.raises(ValueError, match=message):
        function(rows, labels)  # type: ignore[operator]


def test_temperature_and_classes_refuse_no_images() -> None:
    """They check like the other figures."""
    nothing = np.ones((0, 2)), np.zeros(0, int)

    with pytest.raises(ValueError, match="there is no image"):
        fit_temperature(*nothing)
    with pytest.raises(ValueError, match="there is no image"):
        per_class(*nothing, ("a", "b"))
