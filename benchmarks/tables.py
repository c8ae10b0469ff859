"""The README's tables, made from benchmarks/results/*.json.

A table stands in the README between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    python -m benchmarks.tables            rewrites them
    python -m benchmarks.tables --check    only tells whether they are what the results say
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from benchmarks.settings import SETTINGS
from mnv2tl import store

Results = dict[str, dict[str, Any]]
"""File name without its ending -> content."""

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
            raise ValueError(f"table {name!r}: there is no result {prefix}*.json")
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
    return f"{markdown(head, rows)}\n\n{_origin(found[0])}"


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
    return f"{markdown(('change', *columns), rows)}\n\n{_origin(found[0])}"


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
    return f"{markdown(('check', 'result'), rows)}\n\n{_origin(result)}"


def end_to_end_table(found: Sequence[dict[str, Any]]) -> str:
    """Return seconds of whole processes."""
    rows = [
        (
            result["data"],
            result["backend"],
            f"{result['median_seconds']['classic']:.1f} s",
            f"{result['median_seconds']['mnv2tl']:.1f} s",
            f"{result['ratio']:.1f}x",
            str(result["repeats"]),
        )
        for result in found
    ]
    head = ("data", "backend", "classic script", "mnv2tl train", "classic / mnv2tl", "runs of each")
    return f"{markdown(head, rows)}\n\n{_origin(found[0])}"


def roads_table(found: Sequence[dict[str, Any]]) -> str:
    """Return size, differences and latency of the ONNX file of each road."""
    result = found[0]
    settings = [
        f"{each['threads']} thread{'s' * (each['threads'] > 1)}, batch {each['batch']}"
        for each in result["roads"]["native"]["latency"]
    ]
    rows = []
    for name, label in _ROADS.items():
        row = result["roads"].get(name)
        if row is None:
            continue
        if "error" in row:
            rows.append((label, f"`{row['error']}`", *["-"] * (4 + len(settings))))
            continue
        cells = ["-"] * 5
        if "bytes" in row:
            made = f"{row['seconds']:.1f} s" if "seconds" in row else "-"
            differences = (row["max_logit_diff"], row["max_probability_diff"])
            sizes = (str(row["nodes"]), f"{row['bytes'] / 1e6:.2f} MB", made)
            cells = [*sizes, *(f"{each:.1e}" for each in differences)]
        rows.append((label, *cells, *(_latency(each) for each in row["latency"])))
    head = ("road", "nodes", "size", "written in", "logits", "probabilities", *settings)
    text = f"{markdown(head, rows)}\n\n"
    if result["native_against_tf2onnx"]:
        text += f"{_between_roads(result['native_against_tf2onnx'])}\n\n"
    return text + _origin(result, "onnxruntime", "tf2onnx", "jax2onnx")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown.

    >>> print(markdown(("a", "b"), [("1", "2")]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [head, *rows]
    text = [f"| {' | '.join(line)} |" for line in lines]
    text.insert(1, "|" + "---|" * len(head))
    return "\n".join(text)


def _ablation_cells(row: dict[str, Any] | None, *, is_default: bool) -> list[str]:
    if row is None:
        return ["-", "-", "-"]
    low, high = row["points_interval"]
    points = f"{row['points']:+.1f} ({low:+.1f} to {high:+.1f})"
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
    first = f"{100 * row['accuracy']:.1f} %" if is_default else points
    return [first, f"{row['log_loss']:.3f}", seconds]


_ROADS = {
    "native": "`export`",
    "tf2onnx": "`export --via tf2onnx`",
    "keras-tensorflow": "`model.export`, Keras on TensorFlow",
    "keras-jax": "`model.export`, Keras on JAX",
    "native-network": "the first without resize, temperature and softmax",
    "openvino": "the first, in OpenVINO",
}
"""Key in roads.json -> what the table calls it, in its order."""


def _latency(row: dict[str, Any]) -> str:
    low, high = row["against_native_interval"]
    return f"{row['p50_ms']:.1f} ms, {row['against_native']:.2f} ({low:.2f} to {high:.2f})"


def _between_roads(points: dict[str, list[dict[str, Any]]]) -> str:
    words = []
    for name, label in (("convolutions", "convolutions"), ("blocks", "ends of blocks")):
        worst = max(points[name], key=lambda each: each["max"])
        mean = max(each["mean"] for each in points[name])
        words.append(
            f"at {len(points[name])} {label} at most {worst['max']:.1e} (`{worst['name']}`, values "
            f"up to {worst['largest_value']:.0f}), {mean:.1e} on average where it is most"
        )
    return f"The first two differ {'; '.join(words)}."


def _ratio(comparison: dict[str, Any]) -> str:
    if comparison["error_ratio"] is None:
        return "-"
    low, high = comparison["error_ratio_interval"]
    return f"{comparison['error_ratio']:.2f} ({low:.2f} to {high:.2f})"


def _origin(result: dict[str, Any], *more: str) -> str:
    machine, versions = result["machine"], result["versions"]
    names = ("keras", "jax", "tensorflow-cpu", "tensorflow", "openvino", *more)
    listed = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    return (
        f"{result['date']}, {machine['cores']} cores of {machine['processor']}, "
        f"Python {versions['python']}, {listed}."
    )


TABLES: dict[str, tuple[str, Callable[[Sequence[dict[str, Any]]], str]]] = {
    "accuracy": ("accuracy-", accuracy_table),
    "ablation": ("ablation", ablation_table),
    "backends": ("backends", backends_table),
    "end-to-end": ("end-to-end-", end_to_end_table),
    "roads": ("roads", roads_table),
}
"""Name of the marker -> how its result files begin, and what makes it."""


@click.command(help=record.help_text(__doc__))
@click.option("--check", is_flag=True, help="Change nothing; fail if the README differs.")
@click.option(
    "--readme",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=record.ROOT / "README.md",
    help="File with the markers.",
)
@click.option("--results", type=click.Path(path_type=Path), default=record.RESULTS, help="Folder.")
def main(check: bool, readme: Path, results: Path) -> None:
    """Rewrite the tables, or compare them."""
    text = readme.read_text("utf-8")
    found = {file.stem: json.loads(file.read_bytes()) for file in results.glob("*.json")}
    try:
        filled = fill_tables(text, found)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if filled == text:
        click.echo("the tables are what the results say")
    elif check:
        raise click.ClickException(f"{readme.name} differs: run python -m benchmarks.tables")
    else:
        store.write_bytes(readme, filled.encode("utf-8"))
        click.echo(f"{readme.name}: tables rewritten")


if __name__ == "__main__":
    main()
