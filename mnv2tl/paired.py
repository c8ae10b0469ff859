"""Statistics of two classifiers that answered the same images; plain Python only."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Two-sided 95 % point of the normal distribution.
_Z95 = 1.959963984540054

EXACT_BELOW = 25
"""Discordant pairs below which the test is exact; the usual bound, where both forms are near."""


def mcnemar(only_first: int, only_second: int) -> tuple[float, str]:
    """Return the two-sided p-value of McNemar's test, and which form of it was taken.

    Below `EXACT_BELOW` discordant pairs it is the binomial test of one half, which never claims
    too much; from there on McNemar's chi-squared without a correction, which Fagerland, Lydersen
    and Laake, "The McNemar test for binary matched-pairs data", BMC Medical Research Methodology
    13:91, 2013, prefer to the corrected one.

    Args:
        only_first: Images that only the first classifier answers rightly.
        only_second: Images that only the second one does.

    >>> mcnemar(1, 7)
    (0.0703125, 'exact binomial')
    """
    count = only_first + only_second
    if count < EXACT_BELOW:
        tail = sum(math.comb(count, hits) for hits in range(min(only_first, only_second) + 1))
        return min(1.0, 2 * tail / 2**count), "exact binomial"
    return math.erfc(abs(only_first - only_second) / math.sqrt(2 * count)), "chi-squared"


def difference_interval(only_first: int, only_second: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of the second accuracy less the first.

    Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
    Based on Paired Data", Journal of Educational and Behavioral Statistics 37, 2012.

    Args:
        only_first: Images that only the first classifier answers rightly.
        only_second: Images that only the second one does.
        total: All images, at least 1.

    >>> [round(bound, 3) for bound in difference_interval(7, 1, 21)]
    [-0.508, -0.013]
    """
    first, second = (only_first + 1) / (total + 2), (only_second + 1) / (total + 2)
    middle = second - first
    spread = _Z95 * math.sqrt((first + second - middle**2) / (total + 2))
    return max(-1.0, middle - spread), min(1.0, middle + spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold for all tests together, in the same order.

    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
    Statistics 6, 1979.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
