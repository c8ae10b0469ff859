"""The one place for progress and log lines: a bar on a terminal, plain lines elsewhere, or JSON.

Everything goes to stderr; stdout belongs to results. After `set_quiet(True)` only errors are told.
Inside of `log_as_json` every line is one JSON object, also what other packages print.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, TypeVar

from mnv2tl.json_stream import JsonStream

Item = TypeVar("Item")
Advance = Callable[[int], None]

LOG_FORMATS = ("text", "json")
"""How lines of progress look where there is no terminal; json also on a terminal."""

# What takes less than the first needs no line; a log is read later, JSON by a program at once.
_FIRST_SECONDS = 2.0
_LINE_SECONDS = 10.0
_JSON_SECONDS = 1.0

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence bars and messages of this process, or let them speak again."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Tell whether only errors are told."""
    return _quiet


def is_json() -> bool:
    """Tell whether lines are JSON objects."""
    return isinstance(sys.stderr, JsonStream)


@contextlib.contextmanager
def log_as_json() -> Iterator[None]:
    """Make every line on stderr one JSON object while the block runs.

    Each has `time`, `level` (info, warning or error), `event` and `message`; progress has `done`,
    `total`, `unit`, `rate` and `seconds_left` too.
    """
    real = sys.stderr
    sys.stderr = stream = JsonStream(real)
    try:
        yield
    finally:
        stream.finish()
        sys.stderr = real


def say(message: str, *, event: str = "message", **facts: Any) -> None:
    """Print one line of progress to stderr, unless quiet.

    Args:
        message: For people; one that begins with `warning: ` has that level.
        event: What happened, for machines.
        facts: What JSON tells beside the message.
    """
    if not _quiet:
        _print(message, event, facts)


def tell_error(line: str, **facts: Any) -> None:
    """Print one line about an error to stderr, quiet or not.

    Args:
        line: For people.
        facts: What JSON tells; `message` takes the place of the line.
    """
    if isinstance(sys.stderr, JsonStream):
        sys.stderr.emit(**{"level": "error", "event": "error", "message": line, **facts})
    else:
        _print_line(line)


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
    elif _is_terminal():
        with _bar(description, total, unit) as advance:
            yield advance
    else:
        lines = _Lines(description, total, unit)
        yield lines.advance
        lines.close()


@contextlib.contextmanager
def show_step(description: str) -> Iterator[None]:
    """Show that something runs which takes seconds and cannot be counted."""
    if _quiet:
        yield
    elif _is_terminal():
        with _bar(description, None, ""):
            yield
    elif is_json():
        start = time.perf_counter()
        say(f"{description} ...", event="start", step=description)
        yield
        seconds = round(time.perf_counter() - start, 3)
        say(f"{description}: done", event="end", step=description, seconds=seconds)
    else:
        timer = threading.Timer(_FIRST_SECONDS, say, [f"{description} ..."])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _is_terminal() -> bool:
    return not is_json() and _is_tty(sys.stderr) and os.environ.get("TERM") != "dumb"


@functools.lru_cache(maxsize=1)
def _is_tty(stream: IO[str]) -> bool:
    """Tell whether a stream leads to a terminal; what was told once counts.

    A backend that is imported in a thread leads stderr through a file, see `start_up_notes`.
    """
    return stream.isatty()


def _print(message: str, event: str, facts: dict[str, Any]) -> None:
    if isinstance(sys.stderr, JsonStream):
        sys.stderr.emit(event=event, message=message, **facts)
    else:
        _print_line(message)


def _print_line(line: str) -> None:
    # Nobody may read the log any more; the work goes on.
    with contextlib.suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)


class _Lines:
    """Tells progress in lines: the first after some seconds, then at an interval."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.start = time.perf_counter()
        self.done = 0
        self.told: int | None = None
        self.interval = _JSON_SECONDS if is_json() else _LINE_SECONDS
        self.due = self.start + _FIRST_SECONDS
        if is_json():
            self._tell(self.start)

    def advance(self, count: int) -> None:
        """Count units that are done."""
        self.done += count
        now = time.perf_counter()
        if now >= self.due:
            self._tell(now)

    def close(self) -> None:
        """Tell the end of what was told of before."""
        if self.told not in (None, self.done):
            self._tell(time.perf_counter())

    def _tell(self, now: float) -> None:
        self.told, self.due = self.done, now + self.interval
        seconds = now - self.start
        rate = self.done / max(seconds, 1e-9)
        left = (self.total - self.done) / rate if rate else None
        count = f"{self.done}/{self.total} {self.unit}"
        ending = "" if left is None else f", {_number(rate)}/s, {left:.0f} s left"
        if self.done >= self.total:
            ending = f" in {seconds:.0f} s"
        say(
            f"{self.description}: {count}{ending}",
            event="progress",
            step=self.description,
            done=self.done,
            total=self.total,
            unit=self.unit,
            rate=round(rate, 3),
            seconds_left=None if left is None else round(left, 1),
        )


def _number(rate: float) -> str:
    """Return a rate with two digits at the least.

    >>> _number(0.254), _number(1234.5)
    ('0.25', '1234')
    """
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"


# All bars of a moment share one display: two would write over each other.
_screen: Any = None
_bars = 0
_lock = threading.Lock()


@contextlib.contextmanager
def _bar(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    display = _take_screen()
    start = time.perf_counter()
    done = 0
    task = display.add_task(description, total=total, figures="")

    def advance(count: int) -> None:
        nonlocal done
        done += count
        rate = _number(done / max(time.perf_counter() - start, 1e-9))
        display.update(task, completed=done, figures=f"{done}/{total}  {rate} {unit}/s")

    try:
        yield advance
        if total is None:
            display.update(task, total=1, completed=1)
    finally:
        _give_screen_back()


def _take_screen() -> Any:
    global _screen, _bars
    # rich costs 50 ms to import, and only a terminal needs it.
    from rich import progress as bars  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TextColumn("{task.fields[figures]}", markup=False),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with _lock:
        if _screen is None:
            # Results go to stdout as they are, not through the display.
            console = Console(stderr=True, force_terminal=True)
            _screen = bars.Progress(*columns, console=console, redirect_stdout=False)
            _screen.start()
        _bars += 1
        return _screen


def _give_screen_back() -> None:
    global _screen, _bars
    with _lock:
        _bars -= 1
        if _bars == 0:
            _screen.stop()
            _screen = None
