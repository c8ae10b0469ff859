"""Let a writer fail at each of its system calls in turn, and look at what is left."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fault_points import shim
from benchmarks.fault_points.shim import Outcome

Say = Callable[[str], None]

KINDS = ("lost", "corrupt", "inconsistent", "wrong error", "left over")
"""What can be wrong after a fault: what was there or promised is gone; it is there and damaged; it
is another than that of a run without a fault; the error is not the right one of ours; temporary
files stay."""

_MAX_CALLS = 5000
_MATTERS = ("write", "create", "sync", "rename")
_CODES = {"no space": "E501", "I/O error": "E502"}


class BrokenError(Exception):
    """What a writer left is not as it must be.

    Args:
        kind: Of `KINDS`.
        text: What was found.
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {text}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """One way in which the project writes files."""

    name: str
    """Shown in the table."""
    prepare: Callable[[Path], None]
    """Makes what is there before, in an empty folder."""
    write: Callable[[Path, Say], object]
    """Writes into that folder; says what it has promised to keep."""
    check: Callable[[Path, Outcome], None]
    """Looks at what is left, writes again, and compares; raises `BrokenError`."""
    may_cope: bool = False
    """Whether a fault may pass without an error, as that of a cache."""
    has_exchange: bool = True
    """Whether the system exchanges two folders in one step."""
    is_ours: bool = True
    """Whether errors must be ours; those of others are not looked at."""


@dataclass(slots=True, kw_only=True)
class Table:
    """What a sweep found."""

    points: Counter[str] = field(default_factory=Counter)
    """Fault -> points."""
    broken: Counter[str] = field(default_factory=Counter)
    """Kind -> points."""
    examples: list[str] = field(default_factory=list)
    """The first of each kind."""

    def to_json(self) -> dict[str, Any]:
        """Return points by fault, what was broken by kind, and examples."""
        value: dict[str, Any] = {"points": dict(self.points), "all_points": self.points.total()}
        value["broken"] = {kind: self.broken[kind] for kind in KINDS}
        if self.examples:
            value["examples"] = self.examples
        return value


def sweep(
    writer: Writer, place: Path, *, faults: Iterable[str] = tuple(shim.FAULTS), points: int = 0
) -> Table:
    """Fail each system call of a writer in turn, until a run passes clean.

    Args:
        writer: What is tried.
        place: An empty folder to work in.
        faults: Keys of `shim.FAULTS`.
        points: Try only so many calls of each fault, evenly spread; 0 for all.
    """
    template, folder = place / "template", place / "work"
    template.mkdir(parents=True)
    writer.prepare(template)
    table = Table()
    for fault in faults:
        for k in _spread(writer, template, folder, fault, points):
            shutil.copytree(template, folder, symlinks=True)
            is_clean = _try_point(writer, folder, table, fault=fault, k=k)
            shutil.rmtree(folder)
            if is_clean:
                break
    shutil.rmtree(place)
    return table


def sweep_all(
    writers: Iterable[Writer], place: Path, *, names: Iterable[str] | None = None, **options: Any
) -> dict[str, Any]:
    """Sweep writers one after the other; return the table of each.

    Args:
        writers: What is tried.
        place: A folder to work in.
        names: Take these alone.
        options: Of `sweep`.
    """
    found = {}
    for writer in writers:
        if names is None or writer.name in names:
            print(f"sweep: {writer.name}", file=sys.stderr, flush=True)
            found[writer.name] = sweep(writer, place / "sweep", **options).to_json()
    return found


def _spread(writer: Writer, template: Path, folder: Path, fault: str, points: int) -> Iterable[int]:
    if not points:
        return range(1, _MAX_CALLS)
    shutil.copytree(template, folder, symlinks=True)
    # Half a write counts writes alone; of the others any counts all calls.
    what = fault if fault.startswith("half") else "kill"
    calls = shim.run(lambda say: writer.write(folder, say), folder, fault=what).calls
    shutil.rmtree(folder)
    return sorted({1 + (2 * n + 1) * calls // (2 * points) for n in range(min(points, calls))})


def _try_point(writer: Writer, folder: Path, table: Table, *, fault: str, k: int) -> bool:
    """Try one point; return whether the writer made fewer calls than that."""
    outcome = shim.run(
        lambda say: writer.write(folder, say),
        folder,
        fault=fault,
        k=k,
        has_exchange=writer.has_exchange,
    )
    is_clean = outcome.calls < k
    if not is_clean:
        table.points[fault] += 1
    try:
        if writer.is_ours:
            check_outcome(outcome, fault=fault, may_cope=writer.may_cope)
        _check_in_child(writer, folder, outcome)
    except BrokenError as error:
        table.broken[error.kind] += 1
        if table.broken[error.kind] <= 3:
            table.examples.append(f"{fault} at call {k}: {error}")
    return is_clean


def check_outcome(outcome: Outcome, *, fault: str, may_cope: bool) -> None:
    """Raise `BrokenError` unless a process ended as it must.

    A call that only tidies up may fail in silence.
    """
    expected = {"killed", ""} if fault not in _CODES else {_CODES[fault], ""}
    if outcome.code not in expected:
        raise BrokenError("wrong error", f"{outcome.code}: {outcome.text[-1500:]}")
    if outcome.code.startswith("E") and outcome.exit_code != 5:
        raise BrokenError("wrong error", f"exit {outcome.exit_code}: {outcome.text}")
    if not outcome.code and outcome.struck in _MATTERS and not may_cope:
        raise BrokenError("wrong error", f"none, though a call to {outcome.struck} failed")


def _check_in_child(writer: Writer, folder: Path, outcome: Outcome) -> None:
    found = shim.run(lambda say: _check_and_say(writer, folder, outcome, say), folder)
    if found.said:
        kind, _, text = found.said[-1].partition(": ")
        raise BrokenError(kind, text)
    if found.code:
        raise BrokenError("corrupt", f"the next run fails: {found.text[-1500:]}")


def _check_and_say(writer: Writer, folder: Path, outcome: Outcome, say: Say) -> None:
    try:
        writer.check(folder, outcome)
    except BrokenError as error:
        say(str(error))


def left_over(folder: Path) -> list[str]:
    """Return the temporary files below a folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for pattern in ("*.tmp-*", "save-*", "*.former", "*.new", "*-journal")
        for path in folder.rglob(pattern)
    )


def check_tidy(folder: Path, outcome: Outcome) -> None:
    """Raise `BrokenError` if a writer that could tidy up has left temporary files."""
    if outcome.code != "killed" and outcome.struck != "remove":
        check_empty_of_parts(folder)


def check_empty_of_parts(folder: Path) -> None:
    """Raise `BrokenError` if there are temporary files."""
    left = left_over(folder)
    if left:
        raise BrokenError("left over", ", ".join(left))
