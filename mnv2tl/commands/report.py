"""`mnv2tl report RUN`: what a run learnt, where it is wrong, what to trust, as one HTML file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnv2tl.cli import log_options, print_json
from mnv2tl.errors import MachineError, install_extra, show
from mnv2tl.progress import show_step

if TYPE_CHECKING:
    from mnv2tl.checkpoint import Run


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="A bundle that was exported from RUN."
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the images, if it moved.")
@click.option(
    "--benchmark",
    metavar="RESULT.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What mnv2tl benchmark --out wrote.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the report goes.  [default: report.html in RUN]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def report(run_folder: Path, *, as_json: bool, **paths: Path | None) -> None:
    """Write what RUN learnt, where it is wrong and what to trust as one HTML file.

    The file holds small pictures of the data set and needs no network; it runs no script.
    """
    from mnv2tl.checkpoint import load_run

    path = make_report(load_run(run_folder), **paths)
    if as_json:
        print_json({"path": str(path)})
    else:
        show_report(path)


def require_report() -> None:
    """Raise `MachineError` (E508) if what a report needs is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        raise MachineError("E508", "jinja2 is not installed", fix=install_extra("report"))


def make_report(run: Run, **paths: Path | None) -> Path:
    """Write the report of a run, and return its path; see `mnv2tl.report.write.write_report`."""
    from mnv2tl.report.write import write_report

    with show_step("report"):
        return write_report(run, **paths)


def show_report(path: Path) -> None:
    """Print where a report lies."""
    click.echo(f"report {show(path)}, {path.stat().st_size:,} bytes")
