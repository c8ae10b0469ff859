"""The chart of the main README, docs/speed.svg, made from benchmarks/results/*.json.

One bar per comparison of speed: how many times as fast as what it is compared to, on a scale of
powers, with both times beside it. The same results give the same bytes.

    python -m benchmarks.chart            writes it
    python -m benchmarks.chart --check    only tells whether it is what the results say
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import click

from benchmarks.parts import record
from benchmarks.parts.speed_tables import PREFIXES, list_bars, show_times, show_value
from mnv2tl import store

CHART = record.ROOT / "docs" / "speed.svg"

TITLE = "mnv2tl: times as fast as what it is compared to"
AXIS = "times as fast; beside each bar: theirs → ours"

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _FOOT = 820, 330, 190, 58, 34, 52
_LEFT_OUT = "batch 32"
_TICKS = (1, 2, 4, 8, 16, 32, 64)
# Both themes of GitHub: the picture follows the reader's setting, and carries its own background.
_STYLE = """
text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328;
  paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round }
.title { font-size: 16px; font-weight: 600 }
.soft { fill: #59636e; font-size: 12px }
.back { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #d1d9e0 }
.one { stroke: #59636e; stroke-width: 1.5 }
.bar { fill: #0072b2 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; stroke: #0d1117 }
.soft { fill: #9198a1 }
.back { fill: #0d1117; stroke: #3d444d }
.grid { stroke: #3d444d }
.one { stroke: #9198a1 }
.bar { fill: #56b4e9 }
}
"""


def choose_bars(bars: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the comparisons that the chart shows: whole trainings, and networks at one batch size.

    >>> choose_bars([{"kind": "speed", "what": "a, batch 32"}, {"kind": "value", "what": "b"}])
    []
    """
    return [bar for bar in bars if bar["kind"] == "speed" and not bar["what"].endswith(_LEFT_OUT)]


def draw(bars: Sequence[dict[str, Any]]) -> str:
    """Return the chart as SVG.

    Args:
        bars: Comparisons of kind `speed`, at least one.

    Raises:
        ValueError: There is none, or one of another kind.
    """
    if not bars or any(bar["kind"] != "speed" for bar in bars):
        raise ValueError("the chart needs comparisons of speed, and only those")
    height = _TOP + _ROW * len(bars) + _FOOT
    bottom = height - _FOOT
    largest = max(2.0, *(bar["figure"] for bar in bars))
    ticks = [tick for tick in _TICKS if tick < 2 * largest]
    parts = [
        f'<rect class="back" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
        f'<text class="title" x="16" y="30">{escape(TITLE)}</text>',
    ]
    for tick in ticks:
        x = _place(tick, largest)
        kind = "one" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{x}" y1="{_TOP - 8}" x2="{x}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 18, f"{tick}x", anchor="middle", soft=True))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, bottom + 38, AXIS, anchor="middle"))
    for row, bar in enumerate(bars):
        parts += _draw_bar(bar, _TOP + row * _ROW, largest)
    description = "; ".join(
        f"{_plain(bar['what'])} against {_plain(bar['against'])}: {bar['figure']:.2g} times as fast"
        for bar in bars
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img" aria-labelledby="title about">',
            f'<title id="title">{escape(TITLE)}</title>',
            f'<desc id="about">{escape(description)}.</desc>',
            f"<style>{_STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def _draw_bar(bar: dict[str, Any], y: int, largest: float) -> list[str]:
    one, end = _place(1, largest), _place(bar["figure"], largest)
    left, width = min(one, end), round(abs(end - one), 1)
    times = " → ".join(show_value(bar[side], bar["unit"]) for side in ("theirs", "ours"))
    return [
        _text(_LEFT - 12, y + 12, _plain(bar["what"]), anchor="end"),
        _text(_LEFT - 12, y + 26, f"against {_plain(bar['against'])}", anchor="end", soft=True),
        f'<rect class="bar" x="{left}" y="{y + 3}" width="{width}" height="20" rx="2"/>',
        _text(max(one, end) + 8, y + 12, show_times(bar["figure"])),
        _text(max(one, end) + 8, y + 26, times, soft=True),
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", soft: bool = False) -> str:
    kind = ' class="soft"' if soft else ""
    return f'<text{kind} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _place(figure: float, largest: float) -> float:
    """Return where a figure lies from left to right; what is slower than half lies at the edge."""
    low, high = math.log2(0.5), math.log2(largest)
    share = (math.log2(max(figure, 0.5)) - low) / (high - low)
    return round(_LEFT + share * (_WIDTH - _RIGHT - _LEFT), 1)


def _plain(text: str) -> str:
    return text.replace("`", "")


def draw_results(folder: Path) -> str:
    """Return the chart of a folder of result files.

    Raises:
        ValueError: None of them compares speeds.
    """
    files = sorted(file for file in folder.glob("*.json") if file.name.startswith(PREFIXES))
    results = [json.loads(file.read_bytes()) for file in files]
    return draw(choose_bars(list_bars(results)))


@click.command(help=record.help_text(__doc__))
@click.option("--check", is_flag=True, help="Change nothing; fail if the chart differs.")
@click.option("--out", type=click.Path(path_type=Path), default=CHART, help="SVG file.")
@click.option("--results", type=click.Path(path_type=Path), default=record.RESULTS, help="Folder.")
def main(check: bool, out: Path, results: Path) -> None:
    """Draw the chart, or compare it."""
    try:
        drawn = draw_results(results).encode("utf-8")
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if out.is_file() and out.read_bytes() == drawn:
        click.echo("the chart is what the results say")
    elif check:
        raise click.ClickException(f"{out.name} differs: run python -m benchmarks.chart")
    else:
        store.write_bytes(out, drawn)
        click.echo(f"{out.name}: drawn anew")


if __name__ == "__main__":
    main()
