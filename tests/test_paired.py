from __future__ import annotations

import math

import numpy as np
import pytest

from mnv2tl.paired import EXACT_BELOW, difference_interval, holm, mcnemar


@pytest.mark.parametrize("pair", [(0, 0), (0, 1), (5, 5), (1, 7), (3, 21), (24, 0), (12, 12)])
def test_few_pairs_give_the_binomial_test(pair: tuple[int, int]) -> None:
    """As SciPy's two-sided test of one half, which nobody here wrote."""
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(pair[0], sum(pair), 0.5).pvalue if sum(pair) else 1.0

    p_value, form = mcnemar(*pair)

    assert p_value == pytest.approx(expected, rel=1e-12)
    assert form == "exact binomial"


@pytest.mark.parametrize("pair", [(25, 0), (10, 15), (40, 41), (900, 1100), (10**6, 10**6 - 3000)])
def test_many_pairs_give_the_chi_squared_test(pair: tuple[int, int]) -> None:
    """As SciPy's tail of the distribution with one degree of freedom."""
    stats = pytest.importorskip("scipy.stats")
    first, second = pair

    p_value, form = mcnemar(first, second)

    assert p_value == pytest.approx(stats.chi2.sf((first - second) ** 2 / sum(pair), 1), rel=1e-9)
    assert form == "chi-squared"


@pytest.mark.parametrize("least", range(5, 12))
def test_both_forms_are_near_where_they_meet(least: int) -> None:
    """The exact one claims less, but never so much less that the bound decides."""
    most = EXACT_BELOW - 1 - least

    exact, _ = mcnemar(least, most)

    other = math.erfc((most - least) / math.sqrt(2 * (least + most)))
    assert exact / 2 < other < exact


def test_order_of_the_classifiers_turns_the_sign_only() -> None:
    """The p-value stays, and the interval is mirrored."""
    low, high = difference_interval(9, 3, 50)

    assert mcnemar(9, 3) == mcnemar(3, 9)
    assert difference_interval(3, 9, 50) == pytest.approx((-high, -low))
    assert low < (3 - 9) / 50 < high


def test_interval_is_that_of_the_book() -> None:
    """Bentur's table (1, 1, 7, 12) of Fagerland, Lydersen and Laake, 2014: -0.508 to -0.013."""
    assert difference_interval(7, 1, 21) == pytest.approx((-0.508, -0.013), abs=5e-4)


@pytest.mark.parametrize(
    ("total", "first", "second"), [(50, 0.1, 0.1), (50, 0.02, 0.1), (400, 0.05, 0.02)]
)
def test_interval_covers_the_truth(total: int, first: float, second: float) -> None:
    """In at least 94 of 100 drawn samples, where 95 are promised."""
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(total, (first, second, 1 - first - second), 4000)

    hits = 0
    for only_first, only_second, _ in drawn.tolist():
        low, high = difference_interval(only_first, only_second, total)
        hits += low <= second - first <= high

    assert hits / len(drawn) > 0.94


def test_interval_stays_a_difference_of_shares() -> None:
    """One picture says nothing, and no bound leaves -1 to 1."""
    low, high = difference_interval(0, 1, 1)

    assert -1 <= low < 0 < high <= 1


def test_holm_corrects_step_by_step() -> None:
    """The smallest of three is tripled, none falls below one before it, none exceeds 1."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert not math.isnan(holm([0.0, 0.0])[1])
