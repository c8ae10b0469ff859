"""The tables of README.md and docs/measurements.md, made from benchmarks/results/*.json.

A table stands in a page between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    python -m benchmarks.tables            rewrites them
    python -m benchmarks.tables --check    only tells whether they are what the results say
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import export_tables, record, reliability_tables, scale_tables, speed_tables
from benchmarks.parts.markdown import markdown, origin, with_all_versions
from benchmarks.parts.settings import SETTINGS
from mnv2tl import store

Results = dict[str, dict[str, Any]]
"""File name without its ending -> content."""

PAGES = (record.ROOT / "README.md", record.ROOT / "docs" / "measurements.md")
"""Where the tables stand."""

_MARKED = re.compile(r"(<!-- begin ([\w-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def fill_tables(text: str, results: Results) -> str:
    """Return a text with all its marked tables made anew.

    Raises:
        ValueError: A marker names no table, or there are no results for it.
    """

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        if name not in TABLES:
            raise ValueError(f"no table {name!r}, known are {', '.join(TABLES)}")
        prefix, make = TABLES[name]
        found = [results[key] for key in sorted(results) if key.startswith(prefix)]
        if not found:
            names = prefix if isinstance(prefix, str) else " or ".join(prefix)
            raise ValueError(f"table {name!r}: there is no result {names}*.json")
        return f"{match[1]}\n{make(found)}\n\n{match[3]}"

    return _MARKED.sub(fill, text)


def accuracy_table(found: Sequence[dict[str, Any]]) -> str:
    """Return error of each recipe and backend, and its ratio to the classic script's."""
    rows = []
    for result in found:
        for name, row in result["rows"].items():
            against = result["comparisons"].get(f"{name} against classic/tensorflow")
            low, high = row["accuracy_interval"]
            rows.append(
                (
                    result["data"],
                    *name.split("/"),
                    f"{100 * row['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
                    f"{100 * row['error']:.1f} %",
                    _ratio(against) if against else "1",
                    f"{row['log_loss']:.3f}",
                )
            )
    head = ("data", "recipe", "backend", "accuracy", "error", "error / classic", "log loss")
    return f"{markdown(head, rows)}\n\n{origin(found[0])}"


def ablation_table(found: Sequence[dict[str, Any]]) -> str:
    """Return what each changed choice brings, in points, on each data set."""
    data = found[0]["data"]
    names = list({name for each in data.values() for name in each["rows"]})
    names.sort(key=list(SETTINGS).index)  # JSON files have sorted keys
    rows = []
    for name in names:
        cells = [name]
        for each in data.values():
            cells += _ablation_cells(each["rows"].get(name), is_default=name == "default")
        rows.append(cells)
    columns = [f"{kind}, {each}" for each in data for kind in ("points", "log loss", "seconds")]
    return f"{markdown(('change', *columns), rows)}\n\n{origin(found[0])}"


def backends_table(found: Sequence[dict[str, Any]]) -> str:
    """Return what was checked between the backends, and what came."""
    result = found[0]
    rows = [
        (f"largest difference of a probability, {name} and mnv2tl on jax", f"{value:.1e}")
        for name, value in result["max_abs_diff"].items()
    ]
    labels = {
        "same_inputs": "same seed on both: equal split, batches and augmented pixels",
        "same_seed_twice": "same seed twice on jax: bit-equal weights",
        "resumed": "interrupted and resumed on jax: bit-equal weights",
    }
    rows += [(label, "yes" if result["checks"][name] else "no") for name, label in labels.items()]
    return f"{markdown(('check', 'result'), rows)}\n\n{origin(result)}"


def end_to_end_table(found: Sequence[dict[str, Any]]) -> str:
    """Return seconds and accuracy of whole processes, and what their computing alone would take."""
    rows = [
        (
            result["data"],
            result["backend"],
            *_seconds_and_accuracy(result, "classic"),
            *_seconds_and_accuracy(result, "mnv2tl"),
            f"{result['ratio']:.1f}x",
            f"{result['floor_seconds']:.1f} s",
            str(result["repeats"]),
            f"{result['machine']['processor']}, {result['date']}",
        )
        for result in found
    ]
    head = (
        *("data", "backend", "classic script", "accuracy", "mnv2tl train", "accuracy"),
        *("classic / mnv2tl", "floor", "runs of each", "processor, date"),
    )
    return f"{markdown(head, rows)}\n\n{origin(with_all_versions(found))}"


def _seconds_and_accuracy(result: dict[str, Any], name: str) -> tuple[str, str]:
    accuracy = statistics.median(run["val_accuracy"] for run in result["runs"][name])
    return f"{result['median_seconds'][name]:.1f} s", f"{100 * accuracy:.1f} %"


def _ablation_cells(row: dict[str, Any] | None, *, is_default: bool) -> list[str]:
    if row is None:
        return ["-", "-", "-"]
    low, high = row["points_interval"]
    points = f"{row['points']:+.1f} ({low:+.1f} to {high:+.1f})"
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
    first = f"{100 * row['accuracy']:.1f} %" if is_default else points
    return [first, f"{row['log_loss']:.3f}", seconds]


def _ratio(comparison: dict[str, Any]) -> str:
    if comparison["error_ratio"] is None:
        return "-"
    low, high = comparison["error_ratio_interval"]
    return f"{comparison['error_ratio']:.2f} ({low:.2f} to {high:.2f})"


TABLES: dict[str, tuple[str | tuple[str, ...], Callable[[Sequence[dict[str, Any]]], str]]] = {
    "accuracy": ("accuracy-", accuracy_table),
    "ablation": ("ablation", ablation_table),
    "backends": ("backends", backends_table),
    "end-to-end": ("end-to-end-", end_to_end_table),
    "speed": (speed_tables.PREFIXES, speed_tables.speed_table),
    "gpu": ("gpu-", speed_tables.gpu_table),
    "scan": ("scan-speed", scale_tables.scan_table),
    "near-duplicates": ("near-duplicates", scale_tables.near_duplicates_table),
    "growth": ("growth", scale_tables.growth_table),
    "peers": ("peers", scale_tables.peers_table),
    "roads": ("roads", export_tables.roads_table),
    "runtimes": ("runtimes", export_tables.runtimes_table),
    "quantised": ("quantised", export_tables.quantised_table),
    "gate": ("gate-", export_tables.gate_table),
    "faults": (reliability_tables.PREFIXES, reliability_tables.faults_table),
    "memory": ("memory-", reliability_tables.memory_table),
}
"""Name of the marker -> how its result files begin (one of these), and what makes it."""


@click.command(help=record.help_text(__doc__))
@click.option("--check", is_flag=True, help="Change nothing; fail if a page differs.")
@click.option(
    "--page",
    "pages",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    default=PAGES,
    show_default=", ".join(str(page.relative_to(record.ROOT)) for page in PAGES),
    help="File with the markers; may be given several times.",
)
@click.option("--results", type=click.Path(path_type=Path), default=record.RESULTS, help="Folder.")
def main(check: bool, pages: Sequence[Path], results: Path) -> None:
    """Rewrite the tables, or compare them."""
    found = {file.stem: json.loads(file.read_bytes()) for file in results.glob("*.json")}
    for page in pages:
        text = page.read_text("utf-8")
        try:
            filled = fill_tables(text, found)
        except ValueError as error:
            raise click.ClickException(f"{page.name}: {error}") from error
        if filled == text:
            click.echo(f"{page.name}: the tables are what the results say")
        elif check:
            raise click.ClickException(f"{page.name} differs: run python -m benchmarks.tables")
        else:
            store.write_bytes(page, filled.encode("utf-8"))
            click.echo(f"{page.name}: tables rewritten")


if __name__ == "__main__":
    main()
