"""What every measured figure depends on: the machine, the versions, the date."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnv2tl.backend import list_versions
from mnv2tl.parallel import count_workers

_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
"""Flag of the Linux kernel -> its name, the widest first."""


def describe() -> dict[str, Any]:
    """Return date, machine and versions; no path and no name of a host."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {
            "processor": _processor(),
            "cores": count_workers(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": list_versions(),
    }


def git_state(folder: Path, *, but: Sequence[str] = ()) -> dict[str, Any] | None:
    """Return commit and cleanness of the git checkout around a folder, or None.

    Args:
        folder: Any folder.
        but: Paths below it whose changes leave it clean.
    """

    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        paths = [f":(exclude){each}" for each in but]
        return {"commit": commit, "clean": not ask("status", "--porcelain", "--", ".", *paths)}
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or no checkout


def _processor() -> str:
    """Return its name, its generation and its widest vectors, on which a network's speed rests.

    A virtual machine may name the maker only: AMD EPYC is family 25, model 17 (Zen 4), and others.
    """
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:  # not Linux
        return platform.processor()
    first = text.partition("\n\n")[0]
    facts = {
        key.strip(): value.strip()
        for key, _, value in (x.partition(":") for x in first.split("\n"))
    }
    name = facts.get("model name") or platform.processor()
    if "cpu family" in facts and "model" in facts:
        name = f"{name}, family {facts['cpu family']}, model {facts['model']}"
    flags = facts.get("flags", "").split()
    vectors = [shown for flag, shown in _VECTORS.items() if flag in flags]
    return f"{name} ({vectors[0]})" if vectors else name
