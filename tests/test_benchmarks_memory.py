"""How the growth of a long training is read from its samples."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.memory import count_bytes, find_steps, fit_slope, take_steps_off


def test_one_step_is_told_apart_from_what_grows_with_epochs() -> None:
    """Half a KB an epoch, and 9 MB at once in epoch 301."""
    rng = np.random.default_rng(0)
    rss_kb = [int(400_000 + n / 2 + 9000 * (n >= 300) + rng.integers(0, 5)) for n in range(900)]

    steps = find_steps(rss_kb)
    slope, _, _ = fit_slope(take_steps_off(rss_kb, steps))

    assert list(steps) == [301]
    assert steps[301] == pytest.approx(9000, abs=6)
    assert slope == pytest.approx(0.5, abs=0.01)
    assert fit_slope(rss_kb)[0] > 10


def test_growth_that_goes_on_is_no_step() -> None:
    """One MB an epoch is a leak, and stays in the slope."""
    rss_kb = [1024 * n for n in range(180)]

    assert find_steps(rss_kb) == {}
    assert fit_slope(rss_kb)[0] == pytest.approx(1024)


def test_a_row_takes_its_dict_its_numbers_and_its_place() -> None:
    """Small whole numbers exist once in the process."""
    row = {"epoch": 999, "phase": 0, "loss": 0.0, "accuracy": 1.0}

    expected = sys.getsizeof(row) + sys.getsizeof(999) + 2 * sys.getsizeof(0.5) + 8
    assert count_bytes(row) == expected
