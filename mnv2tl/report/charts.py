"""The charts of the report, drawn with matplotlib; each says in words what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from mnv2tl.report.calibration import Bin, Floats, Operation
from mnv2tl.report.svg import BLUE, INK, ORANGE, PALETTE, Chart, make_chart, style
from mnv2tl.text import count_of, percent, printable, shorten

# Narrow, so that the text can be read on a telephone.
_SIZE = (5.0, 3.7)
_SIZE_POINTS = 1000
_LABEL_LENGTH = 60
_RUN_LENGTH = 24
# As many as the palette and one, so that colour, mark and line part more runs than seven.
_MARKS = "osD^vPX*"
_LINES = ("-", "--", "-.", ":")


def _start(height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_SIZE[0], height), layout="constrained")
    return figure, figure.subplots()


def _add_legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=2)


def draw_curve(rows: Sequence[Mapping[str, Any]], name: str, *, best_epoch: int) -> Chart:
    """Draw one figure over the epochs, training and validation, with the best epoch marked.

    Args:
        rows: The history of a run, at least one epoch.
        name: `accuracy` or `loss`.
        best_epoch: Counted from 1.
    """
    epochs = [row["epoch"] for row in rows]
    second = [row["epoch"] for row in rows if row["phase"] > 0]
    best = next(row for row in rows if row["epoch"] == best_epoch)
    with style():
        figure, axes = _start()
        axes.plot(epochs, [row[name] for row in rows], "o-", color=BLUE, label="training")
        val = [row[f"val_{name}"] for row in rows]
        axes.plot(epochs, val, "s--", color=ORANGE, label="validation")
        axes.axvline(best_epoch, color=INK, linestyle=":", label=f"best epoch: {best_epoch}")
        if second:
            span = (second[0] - 0.5, epochs[-1] + 0.5)
            axes.axvspan(*span, color=INK, alpha=0.08, linewidth=0, label="second phase")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _add_legend(figure)
        phases = f" The second phase begins with epoch {second[0]}." if second else ""
        return make_chart(
            figure,
            name=name,
            title=f"{name.capitalize()} over the epochs",
            description=f"Training {name} goes from {rows[0][name]:.3f} to {rows[-1][name]:.3f} in "
            f"{len(rows)} epochs; validation {name} at the best epoch, {best_epoch}, is "
            f"{best[f'val_{name}']:.3f}.{phases}",
        )


def draw_overlay(histories: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> Chart:
    """Draw one figure over the epochs of several runs.

    Args:
        histories: Name of each run -> its history, at least one epoch.
        name: Such as `val_accuracy`.
    """
    split = "validation" if name.startswith("val_") else "training"
    figure_name = name.removeprefix("val_")
    ends = []
    with style():
        figure, axes = _start(_SIZE[1] + 0.2 * (len(histories) // 2))
        for index, (run, rows) in enumerate(histories.items()):
            axes.plot(
                [row["epoch"] for row in rows],
                [row[name] for row in rows],
                color=PALETTE[index % len(PALETTE)],
                marker=_MARKS[index % len(_MARKS)],
                linestyle=_LINES[index % len(_LINES)],
                # Hollow, the first the largest: equal curves lie on one another.
                markersize=max(9 - 1.5 * index, 4),
                markerfacecolor="none",
                label=shorten(printable(run), _RUN_LENGTH),
            )
            ends.append(f"{run}: {rows[0][name]:.3f} to {rows[-1][name]:.3f}")
        axes.set(xlabel="epoch", ylabel=figure_name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _add_legend(figure)
        return make_chart(
            figure,
            name=name.replace("_", "-"),
            title=f"{figure_name.capitalize()}, {split}",
            description=f"From the first epoch to the last. {'; '.join(ends)}.",
        )


def draw_sizes(sizes: Sequence[tuple[int, int]], *, image_px: int) -> Chart:
    """Draw width against height of pictures; of many, a thousand spread evenly.

    Args:
        sizes: Width and height in pixels, at least one.
        image_px: Side that the network sees.
    """
    shown = sizes[:: -(-len(sizes) // _SIZE_POINTS)]
    below = sum(min(size) < image_px for size in sizes)
    with style():
        figure, axes = _start()
        axes.scatter(
            [width for width, _ in shown],
            [height for _, height in shown],
            s=12,
            color=BLUE,
            alpha=0.4,
            linewidths=0,
        )
        axes.axvline(image_px, color=INK, linestyle=":", linewidth=1)
        label = f"the network's {image_px} pixels"
        axes.axhline(image_px, color=INK, linestyle=":", linewidth=1, label=label)
        axes.set(xlabel="width in pixels", ylabel="height in pixels", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
        _add_legend(figure)
        return make_chart(
            figure,
            name="sizes",
            title="Sizes of the pictures",
            description=f"{len(shown)} of {len(sizes)} pictures are drawn. {below} have a side "
            f"below {image_px} pixels, and are enlarged for the network.",
        )


def draw_reliability(bins: Sequence[Bin], *, name: str, title: str, error: float) -> Chart:
    """Draw how often answers are right against how sure the network was.

    Args:
        bins: Of `make_bins`, at least one.
        name: Of the chart.
        title: Of the chart.
        error: Expected calibration error, 0 to 1.
    """
    confidence = [each.confidence for each in bins]
    accuracy = [each.accuracy for each in bins]
    spread = (
        [each.accuracy - min(each.interval[0], each.accuracy) for each in bins],
        [max(each.interval[1], each.accuracy) - each.accuracy for each in bins],
    )
    with style():
        figure, axes = _start()
        axes.plot([0, 1], [0, 1], color=INK, linestyle=":", label="as sure as right")
        axes.errorbar(
            confidence,
            accuracy,
            yerr=spread,
            fmt="o",
            color=BLUE,
            ecolor=BLUE,
            elinewidth=1,
            capsize=3,
            label="pictures, with 95 % interval",
        )
        axes.set(xlabel="probability of the answer", ylabel="share that is right")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        _add_legend(figure)
        largest = max(bins, key=lambda each: each.images)
        return make_chart(
            figure,
            name=name,
            title=title,
            description=f"Expected calibration error {error:.3f}. Of the {largest.images} pictures "
            f"in the fullest bin, answered with a mean probability of "
            f"{percent(largest.confidence)}, {percent(largest.accuracy)} are right.",
        )


def draw_risk(coverage: Floats, risk: Floats, *, suggested: Operation | None, split: str) -> Chart:
    """Draw the error rate over the share of pictures that are answered.

    Args:
        coverage: Shares, rising to 1.
        risk: Error rate at each.
        suggested: What the suggested threshold gives, if there is one.
        split: Which images they are, in a word.
    """
    with style():
        figure, axes = _start()
        axes.step(coverage, risk, where="post", color=BLUE, label=f"{split} pictures")
        text = f"All {split} pictures are answered with an error rate of {percent(risk[-1])}."
        if suggested is not None and suggested.answered:
            rate = suggested.wrong / suggested.answered
            label = f"threshold {suggested.threshold:.2f}"
            axes.plot([suggested.coverage], [rate], "D", color=ORANGE, label=label)
            text += (
                f" At the threshold {suggested.threshold:.2f}, {percent(suggested.coverage)} are "
                f"answered with an error rate of {percent(rate)}."
            )
        axes.set(xlabel="share that is answered", ylabel="error rate among them")
        axes.set(xlim=(0, 1.02), ylim=(0, max(float(risk.max()) * 1.1, 0.05)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        _add_legend(figure)
        return make_chart(figure, name="risk", title="Risk over coverage", description=text)


def draw_latency(rows: Sequence[Mapping[str, Any]], *, batch: int) -> Chart:
    """Draw the median time of a call of each artifact, with the 99th percentile.

    Args:
        rows: Of one batch size, as `mnv2tl benchmark` gives them, at least one.
        batch: The batch size.
    """
    ordered = sorted(rows, key=lambda row: row["p50_ms"])
    labels = [
        f"{row['runtime']} {row['format']} via {row['via']}, {count_of(row['threads'], 'thread')}"
        for row in ordered
    ]
    with style():
        figure, axes = _start(1.1 + 0.5 * len(ordered))
        heights = range(len(ordered))
        medians = [row["p50_ms"] for row in ordered]
        axes.barh(heights, medians, height=0.35, color=BLUE, label="median")
        tails = [max(row["p99_ms"], row["p50_ms"]) for row in ordered]
        axes.plot(tails, heights, "d", color=ORANGE, label="99th percentile")
        for height, label, median in zip(heights, labels, medians, strict=True):
            words = f"{shorten(printable(label), _LABEL_LENGTH)}: {median:.2f} ms"
            axes.text(0, height - 0.28, words, va="bottom", fontsize=9)
        axes.set(xlabel=f"milliseconds per call of {batch}", yticks=[])
        axes.set(xlim=(0, 1.05 * max(tails)), ylim=(len(ordered) - 0.5, -0.9))
        axes.grid(visible=False, axis="y")
        _add_legend(figure)
        return make_chart(
            figure,
            name=f"latency-{batch}",
            title=f"Time of a call, batches of {batch}",
            description=f"The quickest is {labels[0]} with a median of {medians[0]:.2f} ms, the "
            f"slowest {labels[-1]} with {medians[-1]:.2f} ms.",
        )
