"""Pictures of a run, drawn with matplotlib."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnv2tl import store

# Okabe and Ito's colours, which colour-blind readers tell apart; validation is also dashed.
_TRAIN_COLOUR, _VAL_COLOUR, _BEST_COLOUR = "#0072B2", "#D55E00", "#555555"


def load_plots() -> None:
    """Import matplotlib, which takes half a second, while something else waits."""
    importlib.import_module("matplotlib.figure")


def write_curves(path: Path, rows: Sequence[Mapping[str, Any]], *, best_epoch: int) -> None:
    """Draw accuracy and loss over the epochs, training and validation, the best epoch marked.

    Args:
        path: The PNG file.
        rows: The history.
        best_epoch: Counted from 1.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    epochs = [row["epoch"] for row in rows]
    second_phase = [row["epoch"] for row in rows if row["phase"] > 0]
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        train = [row[name] for row in rows]
        val = [row[f"val_{name}"] for row in rows]
        axes.plot(epochs, train, "o-", color=_TRAIN_COLOUR, label="training (augmented)")
        axes.plot(epochs, val, "s--", color=_VAL_COLOUR, label="validation")
        axes.axvline(best_epoch, color=_BEST_COLOUR, linestyle=":", label=f"best: {best_epoch}")
        if second_phase:
            axes.axvspan(second_phase[0] - 0.5, epochs[-1] + 0.5, alpha=0.08, label="fine-tuning")
        axes.set(xlabel="epoch", ylabel=name, title=name.capitalize())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    store.write_bytes(path, buffer.getvalue())
