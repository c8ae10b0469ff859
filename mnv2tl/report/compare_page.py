"""The page of `mnv2tl compare`: figures, test, curves and settings of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mnv2tl import __version__, store
from mnv2tl.checkpoint import Run
from mnv2tl.compare import SURE_BELOW, Comparison
from mnv2tl.paired import EXACT_BELOW
from mnv2tl.report.charts import draw_overlay
from mnv2tl.report.page import render

_CURVES = ("val_accuracy", "accuracy", "val_loss", "loss")


def write_page(comparison: Comparison, runs: Sequence[Run], path: Path) -> None:
    """Write a comparison as one HTML file that needs nothing else.

    Args:
        comparison: What was found.
        runs: The runs that it is of.
        path: Where the file goes.

    Raises:
        MachineError: The file cannot be written.
    """
    rows = comparison.rows
    histories = {
        f"{row.number}: {row.name}": run.history for row, run in zip(rows, runs, strict=True)
    }
    page = render(
        "compare.html.j2",
        kind="comparison",
        version=__version__,
        title=f"{len(rows)} runs",
        rows=rows,
        manifests=len({row.manifest_sha256 for row in rows}),
        pairs=comparison.pairs,
        curves=[draw_overlay(histories, name) for name in _CURVES],
        differences=comparison.differences,
        exact_below=EXACT_BELOW,
        sure_below=SURE_BELOW,
    )
    store.write_bytes(path, page.encode("utf-8"))
