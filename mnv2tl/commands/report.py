"""`mnv2tl report RUN`: what a run learnt, where it is wrong, what to trust, as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from mnv2tl.cli import print_json
from mnv2tl.errors import show
from mnv2tl.progress import set_quiet


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
@click.option("--quiet", is_flag=True, help="Show no progress.")
def report(run_folder: Path, *, as_json: bool, quiet: bool, **paths: Path | None) -> None:
    """Write what RUN learnt, where it is wrong and what to trust as one HTML file.

    The file holds small pictures of the data set and needs no network; it runs no script.
    """
    set_quiet(quiet)
    from mnv2tl.checkpoint import load_run
    from mnv2tl.report.write import write_report

    path = write_report(load_run(run_folder), **paths)
    if as_json:
        print_json({"path": str(path)})
    else:
        click.echo(f"report {show(path)}, {path.stat().st_size:,} bytes")
