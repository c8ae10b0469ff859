from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnv2tl.parallel import count_workers, map_ordered


@given(count=st.integers(0, 60), workers=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_map_ordered_gives_what_map_gives(count: int, workers: int) -> None:
    """Every item once, in order, for any number of threads."""
    results = list(map_ordered(lambda number: number * 2, range(count), workers=workers))

    assert results == [number * 2 for number in range(count)]


def test_map_ordered_keeps_the_order_when_later_items_are_done_first() -> None:
    """The first item waits until the third has run."""
    third_ran = threading.Event()

    def run(number: int) -> int:
        if number == 0:
            assert third_ran.wait(10)
        if number == 2:
            third_ran.set()
        return number

    assert list(map_ordered(run, range(5), workers=2)) == [0, 1, 2, 3, 4]


def test_map_ordered_runs_as_many_at_a_time_as_it_has_threads() -> None:
    """Three items meet in a barrier, which fewer threads would never pass."""
    barrier = threading.Barrier(3, timeout=10)

    assert len(list(map_ordered(lambda _: barrier.wait(), range(3), workers=3))) == 3


def test_map_ordered_reads_only_so_far_ahead() -> None:
    """A million images must not lie in memory while the first is waited for."""
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    results = map_ordered(abs, items(), workers=2)

    assert read == []  # nothing before the first result is asked for
    assert next(results) == 0
    assert len(read) == 8  # four per thread
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert len(read) == 18
    results.close()


def test_map_ordered_raises_what_the_function_raised_at_its_turn() -> None:
    """Results before the failure are not lost, and those after it do not come."""

    def divide(number: int) -> float:
        return 1 / (number - 3)

    results = map_ordered(divide, range(100), workers=2)

    assert [next(results) for _ in range(3)] == [-1 / 3, -1 / 2, -1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_ordered_stops_its_threads_when_it_is_left_early() -> None:
    """Ctrl-C in a loop over images ends soon: what waits is cancelled."""
    before = threading.active_count()
    started: list[int] = []

    def run(number: int) -> int:
        started.append(number)
        time.sleep(0.01)
        return number

    results = map_ordered(run, range(1000), workers=2)
    next(results)
    results.close()

    assert threading.active_count() == before
    assert len(started) <= 8


def test_map_ordered_passes_on_what_reading_the_items_raises() -> None:
    """A generator that fails is not taken for one that ended."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(map_ordered(abs, items(), workers=1))


def test_count_workers_is_a_number_of_processors() -> None:
    """At least one, whatever the system tells."""
    assert count_workers() >= 1
    assert list(map_ordered(abs, [-1, 2])) == [1, 2]
