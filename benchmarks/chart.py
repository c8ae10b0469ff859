"""The chart of the main README, docs/speed.svg and docs/speed.png, from benchmarks/results/*.json.

One bar per comparison of speed: how many times as fast as what it is compared to, on a scale of
powers, with both times beside it. Both files hold its figures as their description.

    python -m benchmarks.chart            writes them
    python -m benchmarks.chart --check    only tells whether they are what the results say
"""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from PIL import Image

from benchmarks.parts import record
from benchmarks.parts.speed_tables import PREFIXES, list_bars, show_times, show_value
from mnv2tl import store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHART = record.ROOT / "docs" / "speed"
FORMATS = ("svg", "png")

TITLE = "mnv2tl: times as fast as what it is compared to"
AXIS = "times as fast; beside each bar: theirs → ours, medians"

_LEFT_OUT = "batch 32"
_TICKS = (0.5, 1, 2, 4, 8, 16, 32, 64)
_BAR_COLOUR, _SOFT_COLOUR, _GRID_COLOUR = "#0072b2", "#59636e", "#d1d9e0"
_DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"


def choose_bars(bars: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the comparisons that the chart shows: whole trainings, and networks at one batch size.

    Only those of the processor that most of them are from, so that seconds may be compared.

    >>> bar = {"kind": "speed", "what": "a, batch 32", "is_usual": True}
    >>> choose_bars([bar, bar | {"kind": "value"}, bar | {"what": "b", "is_usual": False}])
    []
    """
    return [
        bar
        for bar in bars
        if bar["kind"] == "speed" and bar["is_usual"] and not bar["what"].endswith(_LEFT_OUT)
    ]


def draw(bars: Sequence[dict[str, Any]]) -> Figure:
    """Return the chart.

    Args:
        bars: Comparisons of kind `speed`, at least one.

    Raises:
        ValueError: There is none, or one of another kind.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415

    if not bars or any(bar["kind"] != "speed" for bar in bars):
        raise ValueError("the chart needs comparisons of speed, and only those")
    figure = Figure(figsize=(8.4, 1.2 + 0.42 * len(bars)), dpi=150, layout="constrained")
    axes = figure.subplots()
    times = [bar["figure"] for bar in bars]
    widths = [each - 1 for each in times]
    drawn = axes.barh(range(len(bars)), widths, left=1, height=0.6, color=_BAR_COLOUR, zorder=2)
    figures = [_show_figures(bar) for bar in bars]
    axes.bar_label(drawn, figures, padding=6, fontsize=9, bbox={"fc": "w", "ec": "w", "pad": 1})
    axes.set_xscale("log", base=2)
    ticks = [tick for tick in _TICKS if min(1, *times) <= tick < 2 * max(times)]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks], fontsize=9, color=_SOFT_COLOUR)
    axes.set_xlim(min(1, *times), 6 * max(2, *times))  # room for the figures
    names = [f"{_plain(bar['what'])}\nagainst {_plain(bar['against'])}" for bar in bars]
    axes.set_yticks(range(len(bars)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"{AXIS}\n{_list_processors(bars)}", fontsize=9)
    axes.set_title(TITLE, loc="left", fontsize=12, fontweight="bold")
    axes.grid(axis="x", color=_GRID_COLOUR)
    axes.axvline(1, color=_SOFT_COLOUR)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def describe(bars: Sequence[dict[str, Any]]) -> str:
    """Return what the chart shows as one sentence.

    >>> bar = {"what": "a", "against": "b", "figure": 2.0, "theirs": 4.0, "ours": 2.0, "unit": "s"}
    >>> describe([bar | {"processor": "P"}])
    'On P: a against b: 2.0x, 4.00 s → 2.00 s.'
    """
    parts = (
        f"{_plain(bar['what'])} against {_plain(bar['against'])}: {_show_figures(bar, ', ')}"
        for bar in bars
    )
    return f"On {_list_processors(bars)}: {'; '.join(parts)}."


def encode(bars: Sequence[dict[str, Any]], form: str) -> bytes:
    """Return the chart as a file of one of `FORMATS`, with its description."""
    from matplotlib import rc_context  # noqa: PLC0415

    metadata: dict[str, Any] = {"Title": TITLE, "Description": describe(bars)}
    metadata |= {"Date": None} if form == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "mnv2tl"}):
        draw(bars).savefig(buffer, format=form, metadata=metadata, bbox_inches="tight")
    return buffer.getvalue()


def read_description(content: bytes, form: str) -> str | None:
    """Return the description in a file that `encode` made; None if it has none."""
    if form == "svg":
        root = ET.fromstring(content)  # noqa: S314  our own
        return next((each.text for each in root.iter(_DESCRIPTION)), None)
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        text = image.info.get("Description")
    return None if text is None else str(text)


def read_bars(folder: Path) -> list[dict[str, Any]]:
    """Return the comparisons of a folder of result files that the chart shows."""
    files = sorted(file for file in folder.glob("*.json") if file.name.startswith(PREFIXES))
    return choose_bars(list_bars([json.loads(file.read_bytes()) for file in files]))


def _show_figures(bar: dict[str, Any], between: str = "   ") -> str:
    times = " → ".join(show_value(bar[side], bar["unit"]) for side in ("theirs", "ours"))
    return f"{show_times(bar['figure'])}{between}{times}"


def _list_processors(bars: Sequence[dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(bar["processor"] for bar in bars))


def _plain(text: str) -> str:
    return text.replace("`", "")


@click.command(help=record.help_text(__doc__))
@click.option("--check", is_flag=True, help="Change nothing; fail if the chart differs.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=CHART, help="Both files, without suffix."
)
@click.option("--results", type=click.Path(path_type=Path), default=record.RESULTS, help="Folder.")
def main(check: bool, out: Path, results: Path) -> None:
    """Draw the chart, or compare it."""
    bars = read_bars(results)
    for form in FORMATS:
        file = out.with_suffix(f".{form}")
        if not check:
            try:
                store.write_bytes(file, encode(bars, form))
            except ValueError as error:
                raise click.ClickException(str(error)) from error
            click.echo(f"{file.name}: drawn anew")
        elif file.is_file() and read_description(file.read_bytes(), form) == describe(bars):
            click.echo(f"{file.name} is what the results say")
        else:
            raise click.ClickException(f"{file.name} differs: run python -m benchmarks.chart")


if __name__ == "__main__":
    main()
