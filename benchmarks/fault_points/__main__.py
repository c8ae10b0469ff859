"""One part of `benchmarks.faults`, in a process of its own: PART RESULT-FILE OPTIONS-AS-JSON."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path

from mnv2tl import store

PARTS = {
    "writers": ("benchmarks.fault_points.writers", "run"),
    "plain_keras": ("benchmarks.fault_points.plain_keras", "run"),
    "training": ("benchmarks.fault_points.training", "sweep_training"),
    "kills": ("benchmarks.fault_points.training", "kill_randomly"),
    "damage": ("benchmarks.parts.damage", "run"),
}
"""Name -> module and function; it takes an empty folder and options, and returns figures."""


def main(part: str, out: Path, options: str) -> None:
    """Run a part and write its figures."""
    module, function = PARTS[part]
    run = getattr(importlib.import_module(module), function)
    with tempfile.TemporaryDirectory() as made:
        store.write_json(out, run(Path(made), **json.loads(options)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
