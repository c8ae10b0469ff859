"""What every measured figure depends on: the machine, the versions, the date."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path
from typing import Any

from mnv2tl.backend import list_versions
from mnv2tl.parallel import count_workers


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
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
