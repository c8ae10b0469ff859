"""The one progress display: a bar on a terminal, plain lines elsewhere, nothing when quiet.

Everything goes to stderr; stdout belongs to results.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Advance = Callable[[int], None]

_LINE_SECONDS = 10.0
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence bars and messages of this process, or let them speak again."""
    global _quiet
    _quiet = quiet


def say(message: str) -> None:
    """Print one line of progress to stderr, unless quiet."""
    if not _quiet:
        print(message, file=sys.stderr, flush=True)


def track(
    items: Iterable[Item], description: str, *, total: int, unit: str = "images"
) -> Iterator[Item]:
    """Yield the items while a bar shows count, rate and time left.

    Args:
        items: What to go through.
        description: A few words in front of the bar.
        total: How many items there are.
        unit: What one item is, in the plural.
    """
    with show_bar(description, total=total, unit=unit) as advance:
        for item in items:
            yield item
            advance(1)


@contextlib.contextmanager
def show_bar(description: str, *, total: int, unit: str = "images") -> Iterator[Advance]:
    """Show a bar while the block runs; call what it gives with the number of units just done."""
    if _quiet:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        yield _Lines(description, total, unit).advance


@contextlib.contextmanager
def _bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    # rich costs 50 ms to import, and only a terminal needs it.
    from rich import progress as bars  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    start = time.perf_counter()
    done = 0
    with bars.Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(description, total=total, rate="")

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.perf_counter() - start, 1e-9)
            display.update(task, completed=done, rate=f"{rate:.0f} {unit}/s")

        yield advance


class _Lines:
    """Prints a line every ten seconds, for logs."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.start = self.last = time.perf_counter()
        self.done = 0

    def advance(self, count: int) -> None:
        """Count units that are done."""
        self.done += count
        now = time.perf_counter()
        if now - self.last >= _LINE_SECONDS:
            self.last = now
            rate = self.done / (now - self.start)
            left = (self.total - self.done) / max(rate, 1e-9)
            count_text = f"{self.done}/{self.total} {self.unit}"
            say(f"{self.description}: {count_text}, {rate:.0f}/s, {left:.0f} s left")
