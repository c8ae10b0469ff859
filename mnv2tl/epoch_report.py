"""Tell of each epoch: a line on stderr, and the trackers that are asked for."""

from __future__ import annotations

from typing import Any

from mnv2tl.config import TrainConfig
from mnv2tl.progress import say
from mnv2tl.trackers import Trackers

_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")


def report_epoch(
    config: TrainConfig, trackers: Trackers, row: dict[str, Any], is_best: bool
) -> None:
    """Show a row of the history, and tell the trackers.

    Args:
        config: Of the training.
        trackers: Told of the row.
        row: Of the epoch that was just committed.
        is_best: Whether it is the best so far.
    """
    figures = "  ".join(f"{name} {row[name]:.4f}" for name in _FIGURES)
    best = "  best" if is_best else ""
    say(
        f"epoch {row['epoch']:>3}/{config.all_epochs}  {figures}{best}",
        event="epoch",
        done=row["epoch"],
        total=config.all_epochs,
        unit="epochs",
        is_best=is_best,
        **{name: row[name] for name in (*_FIGURES, "seconds") if name in row},
    )
    trackers.write(row)
