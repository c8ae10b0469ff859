"""How a benchmark writes its result file."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from mnv2tl import machine, store

ROOT = Path(__file__).resolve().parents[2]
"""The checkout; sub-processes start here."""
RESULTS = ROOT / "benchmarks" / "results"
"""Where result files go unless --out says otherwise."""


@functools.cache
def ask_git() -> dict[str, Any] | None:
    """Return commit and cleanness of the checkout, as they were when this was first asked.

    `timing.get_ready` asks at the start: what is committed meanwhile is not what was measured.
    """
    return machine.git_state(ROOT, but=["benchmarks/results"])


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write a result file: the figures, and their machine, versions, date and commit."""
    store.write_json(path, machine.describe() | {"git": ask_git()} | figures)


def help_text(doc: str | None) -> str:
    """Return a module's docstring as click's help: lists and commands keep their lines."""
    return re.sub(r"\n\n(?=[ -])", "\n\n\b\n", doc or "")
