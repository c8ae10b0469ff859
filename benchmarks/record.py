"""What stands in every result file: the machine, the versions, the date."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

from mnv2tl import store
from mnv2tl.backend import list_versions
from mnv2tl.parallel import count_workers

ROOT = Path(__file__).resolve().parents[1]
"""The checkout; sub-processes start here."""
RESULTS = ROOT / "benchmarks" / "results"
"""Where result files go unless --out says otherwise."""


def write(path: Path, figures: dict[str, Any]) -> None:
    """Write a result file: the figures and where they come from."""
    store.write_json(path, describe() | figures)


def help_text(doc: str | None) -> str:
    """Return a module's docstring as click's help: lists and commands keep their lines."""
    return re.sub(r"\n\n(?=[ -])", "\n\n\b\n", doc or "")


def describe() -> dict[str, Any]:
    """Return date, machine and versions; no path and no name of a host."""
    versions = list_versions()
    try:
        versions["scipy"] = importlib.metadata.version("scipy")
    except importlib.metadata.PackageNotFoundError:
        pass
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {
            "processor": _processor(),
            "cores": count_workers(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
