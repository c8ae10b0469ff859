"""The table of speeds: every bar of the result files, with both figures and what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.parts.markdown import markdown, origin, with_all_versions

PREFIXES = ("end-to-end-", "speed-")
"""How the files begin that have bars."""

_DIGITS = {"s": 2, "ms": 0, "ms/image": 1, "images/s": 0}


def list_bars(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the bars of all result files, in their order; older files have none.

    Each has its `processor`. Those of one that is not that of most files name it, and are not
    `is_usual`.
    """
    processors = [result["machine"]["processor"] for result in found]
    usual = max(processors, key=processors.count, default=None)
    bars = []
    for result, processor in zip(found, processors, strict=True):
        is_usual = processor == usual
        more = "" if is_usual else f", {processor}"
        bars += [
            bar | {"what": bar["what"] + more, "is_usual": is_usual, "processor": processor}
            for bar in result.get("bars", ())
        ]
    return bars


def speed_table(found: Sequence[dict[str, Any]]) -> str:
    """Return one row per bar.

    Raises:
        ValueError: No file has a bar.
    """
    bars = list_bars(found)
    if not bars:
        raise ValueError("no result file has bars: run the benchmarks anew")
    dates = sorted({result["date"] for result in found if result.get("bars")})
    whole = with_all_versions([result for result in found if result.get("bars")])
    below = [_floor_line(result["floor"]) for result in found if "floor" in result]
    below.append(origin(whole | {"date": ", ".join(dates)}))
    return f"{_show_bars(bars)}\n\n{' '.join(below)}"


def gpu_table(found: Sequence[dict[str, Any]]) -> str:
    """Return the bars of a graphics card, how near its limits they come, and what opening takes."""
    below = [_limits_line(result) for result in found if "shares" in result]
    below += [
        f"From the start to the first answer, the frozen layers take "
        f"{result['seconds_to_open']['keras']:.1f} s on the card and "
        f"{result['seconds_to_open']['onnxruntime']:.1f} s in onnxruntime."
        for result in found
        if "seconds_to_open" in result
    ]
    below.append(origin(with_all_versions(found)))
    return f"{_show_bars(list_bars(found))}\n\n{' '.join(below)}"


def _show_bars(bars: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            bar["what"],
            bar["against"],
            show_value(bar["ours"], bar["unit"]),
            "-" if bar["theirs"] is None else show_value(bar["theirs"], bar["unit"]),
            show_figure(bar),
            show_asked(bar),
        )
        for bar in bars
    ]
    head = ("what", "against", "ours", "theirs", "compared (range)", "asked")
    return markdown(head, rows)


def _limits_line(result: Mapping[str, Any]) -> str:
    """Return the shares of a card's measured bandwidth and peak that a training reaches."""
    shares, limits = result["shares"], result["limits"]
    parts = [
        f"{100 * shares[side]['bandwidth']:.0f} % of its bandwidth and "
        f"{100 * shares[side]['peak']:.1f} % of its peak ({side})"
        for side in ("ours", "stock")
    ]
    return (
        f"Training in {result['part']} reaches {', '.join(parts)}: "
        f"{limits['bandwidth'] / 1e9:,.0f} GB/s and {limits['peak'] / 1e12:.0f} TFLOP/s as "
        "measured."
    )


def _floor_line(floor: Mapping[str, Any]) -> str:
    """Return what the whole network would take at the machine's measured peak and bandwidth."""
    parts = [
        f"{name} {floor[key]['operations']:.1f} ms of operations and "
        f"{floor[key]['bytes']:.1f} ms of memory"
        for name, key in (("forward", "forward_ms"), ("training", "training_ms"))
    ]
    return (
        f"Floor of the whole network, per image: {', '.join(parts)}, at "
        f"{floor['peak_gflops']:.0f} GFLOP/s and {floor['bandwidth_gb_per_second']:.0f} GB/s as "
        "measured."
    )


def show_value(value: float, unit: str) -> str:
    """Return a measurement with its unit.

    >>> show_value(8.42, "ms/image")
    '8.4 ms/image'
    """
    digits = _DIGITS[unit]
    return f"{value:.{1 if unit == 's' and value >= 10 else digits}f} {unit}"


def show_figure(bar: Mapping[str, Any]) -> str:
    """Return what is judged, with its range over the rounds.

    >>> show_figure({"kind": "speed", "figure": 5.0, "range": [4.8, 5.22], "unit": "s"})
    '5.0x (4.8x to 5.2x)'
    """
    low, high = bar["range"]
    match bar["kind"]:
        case "speed":
            return f"{show_times(bar['figure'])} ({show_times(low)} to {show_times(high)})"
        case "rate":
            return f"{bar['figure']:.2f}x ({low:.2f}x to {high:.2f}x)"
    return f"{show_value(bar['figure'], bar['unit'])} ({_bare(low, bar)} to {_bare(high, bar)})"


def show_times(figure: float) -> str:
    """Return a ratio with two digits that tell something.

    >>> show_times(0.881), show_times(20.36)
    ('0.88x', '20.4x')
    """
    return f"{figure:.{2 if figure < 2 else 1}f}x"


def show_asked(bar: Mapping[str, Any]) -> str:
    """Return the bar itself, and whether it was missed.

    >>> show_asked({"kind": "difference", "asked": 100.0, "unit": "ms", "reached": False})
    'at most 100 ms more: missed'
    """
    if bar["asked"] is None:
        return "-"
    match bar["kind"]:
        case "speed" | "rate":
            text = f"at least {bar['asked']:g}x"
        case "difference":
            text = f"at most {bar['asked']:g} {bar['unit']} more"
        case _:
            text = f"at most {bar['asked']:g} {bar['unit']}"
    return text if bar["reached"] else f"{text}: missed"


def _bare(value: float, bar: Mapping[str, Any]) -> str:
    return show_value(value, bar["unit"]).removesuffix(f" {bar['unit']}")
