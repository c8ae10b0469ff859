"""What every measured figure depends on: the machine, the versions, the date."""

from __future__ import annotations

import datetime
import platform
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


def _processor() -> str:
    """Return its name and its widest vectors, on which the speed of a network rests."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    vectors = [shown for flag, shown in _VECTORS.items() if flag in flags]
    return f"{name} ({vectors[0]})" if vectors else name
