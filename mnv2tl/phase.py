"""The phases of a training: which layers train, for how long, and when a phase is over.

A phase trains the last N layers at one learning rate. Nothing here needs Keras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mnv2tl.config import TrainConfig
from mnv2tl.mobilenet import Layer
from mnv2tl.state import Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What one phase trains, and for how long."""

    index: int
    """0 for the first phase, 1 for fine-tuning."""
    trainable_layers: int
    """Layers of MobileNetV2 that train, counted from its end."""
    epochs: int
    """Most epochs of this phase."""
    learning_rate: float
    """Step size of Adam at its start."""


def list_phases(config: TrainConfig) -> tuple[Phase, ...]:
    """Return the phases that the settings ask for."""
    first = Phase(
        index=0,
        trainable_layers=config.trainable_layers,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
    )
    if not config.finetune_epochs:
        return (first,)
    second = Phase(
        index=1,
        trainable_layers=config.finetune_layers,
        epochs=config.finetune_epochs,
        learning_rate=config.finetune_learning_rate,
    )
    return first, second


def list_trained(layers: Sequence[Layer], phase: Phase) -> list[str]:
    """Return the names of the layers of MobileNetV2 that a phase trains."""
    return [layer.name for layer in layers[len(layers) - phase.trainable_layers :]]


def is_over(commit: Commit | None, phase: Phase, config: TrainConfig) -> bool:
    """Tell whether a phase has run its epochs or has not improved for `patience` epochs."""
    rows = [row for row in commit.history if row["phase"] == phase.index] if commit else []
    if len(rows) >= phase.epochs:
        return True
    if not config.patience or len(rows) <= config.patience:
        return False
    values = [figure_of(row, config) for row in rows]
    return min(values[-config.patience :]) >= min(values[: -config.patience])


def figure_of(row: dict[str, Any], config: TrainConfig) -> float:
    """Return the figure that names the best epoch, turned so that less is better."""
    return float(row["val_loss"] if config.best_by == "val_loss" else -row["val_accuracy"])
