"""The writers of the project, from one file to a whole run folder, without a Keras backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.fault_points.bundle_writers import bundle_writer
from benchmarks.fault_points.file_writers import (
    draw_files,
    feature_writer,
    index_writer,
    list_file_writers,
)
from benchmarks.fault_points.run_writers import forced_run_writer, run_writer, state_writer
from benchmarks.fault_points.sweep import Writer, sweep_all


def run(place: Path, **options: Any) -> dict[str, Any]:
    """Sweep the writers; the options are those of `sweep_all`."""
    outside = place / "outside"
    outside.mkdir()
    return sweep_all(list_writers(outside), place, **options)


def list_writers(outside: Path) -> list[Writer]:
    """Return the writers.

    Args:
        outside: An empty folder for what they read.
    """
    files = draw_files(outside)
    return [
        *list_file_writers(),
        feature_writer(),
        index_writer(files),
        state_writer(),
        bundle_writer("bundle", is_old_there=False),
        bundle_writer("bundle --force", is_old_there=True),
        bundle_writer("bundle --force, no exchange", is_old_there=True, has_exchange=False),
        run_writer("run folder"),
        forced_run_writer("run folder --force"),
        forced_run_writer("run folder --force, no exchange", has_exchange=False),
    ]
