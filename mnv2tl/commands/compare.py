"""`mnv2tl compare RUN RUN...`: what differs between runs, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mnv2tl.cli import log_options, print_json, usage_errors
from mnv2tl.errors import show
from mnv2tl.text import percent, printable, shorten

if TYPE_CHECKING:
    from mnv2tl.compare import Comparison, Pair, Row

_NAME_LENGTH = 24
_VALUE_LENGTH = 32


@click.command()
@click.argument(
    "folders", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of the images of all runs, if it moved.  [default: that of each training]",
)
@click.option("--no-test", is_flag=True, help="Compare figures and settings only; read no image.")
@click.option(
    "--out",
    metavar="FILE.html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it with the curves as one HTML file too.  [default: no file]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def compare(
    folders: tuple[Path, ...],
    *,
    data: Path | None,
    no_test: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare finished trainings: every RUN with the first one.

    Accuracies are shares of the validation images in %, with 95 % intervals; log loss is in nats,
    times are in seconds. On the validation images that both runs have, McNemar's test says whether
    one is better by more than chance, corrected by Holm's rule where there are several pairs.
    """
    from mnv2tl.checkpoint import load_run
    from mnv2tl.compare import compare_runs

    runs = [load_run(folder) for folder in folders]
    if out is not None:
        from mnv2tl.report.compare_page import write_page  # before work is done without it
    with usage_errors():
        comparison = compare_runs(runs, data=data, with_test=not no_test)
    if out is not None:
        write_page(comparison, runs, out)
    if as_json:
        print_json({**comparison.to_json(), "path": None if out is None else str(out)})
        return
    _show(comparison)
    if out is not None:
        click.echo(f"comparison {show(out)}, {out.stat().st_size:,} bytes")


def _show(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("run", no_wrap=True)
    for row in comparison.rows:
        name = shorten(printable(row.name), _NAME_LENGTH)
        table.add_column(Text(f"{row.number}: {name}"), justify="right")
    figures = [_describe(row) for row in comparison.rows]
    for key in figures[0]:
        table.add_row(key, *(Text(each[key]) for each in figures))
    table.add_section()
    for key, values in comparison.differences.items():
        shown = (Text(shorten(printable(value), _VALUE_LENGTH)) for value in values)
        table.add_row(Text(printable(key)), *shown)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    if len({row.manifest_sha256 for row in comparison.rows}) > 1:
        console.print("warning: the runs have other images or another split: see manifest")
    for line in _list_lines(comparison.pairs):
        console.print(line)


def _describe(row: Row) -> dict[str, str]:
    low, high = row.accuracy_interval
    return {
        "accuracy": percent(row.accuracy),
        "its 95 % interval": f"{100 * low:.1f} to {percent(high)}",
        "images": f"{row.images:,}",
        "log loss": f"{row.log_loss:.4f}",
        "ECE": f"{row.ece:.3f}",
        "best epoch": f"{row.best_epoch} of {row.epochs}",
        "seconds": f"{row.seconds:.0f}",
        "trained parameters": f"{row.trained_parameters:,}",
        "backend": row.backend,
    }


def _list_lines(pairs: Iterable[Pair]) -> Iterable[str]:
    for pair in pairs:
        low, high = (f"{100 * bound:+.1f}" for bound in pair.interval)
        lost = f", {pair.lost} of them lost" if pair.lost else ""
        yield (
            f"{pair.verdict}: {100 * pair.difference:+.1f} points of 100 (95 % interval {low} to "
            f"{high}) on {pair.shared} shared images{lost}; only run 1 right {pair.only_first}, "
            f"only run {pair.number} right {pair.only_other}; McNemar, {pair.test}, "
            f"p = {pair.p_value:.3g}, corrected {pair.corrected_p_value:.3g}"
        )
