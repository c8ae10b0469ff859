"""The settings that the benchmarks compare, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mnv2tl.config import RECIPES, TrainConfig
from mnv2tl.data.augment import PRESETS

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "scaling unit": {"scaling": "unit"},
    "views 1": {"views": 1},
    "views 2": {"views": 2},
    "views 4": {"views": 4},
    "views 10": {"views": 10},
    "augment none": {"augment": PRESETS["none"]},
    "augment light": {"augment": PRESETS["light"]},
    "augment strong": {"augment": PRESETS["strong"]},
    "batch norm train": {"batch_norm": "train"},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "schedule constant": {"schedule": "constant"},
    "schedule cosine": {"schedule": "cosine"},
    "dropout 0": {"dropout": 0.0},
    "dropout 0.2": {"dropout": 0.2},
    "trainable layers 0": {"trainable_layers": 0},
    "trainable layers 0, rate 1e-2": {"trainable_layers": 0, "learning_rate": 1e-2},
    "trainable layers 4": {"trainable_layers": 4},
    "trainable layers 13": {"trainable_layers": 13},
    "rate 1e-3": {"learning_rate": 1e-3},
    "rate 3e-4": {"learning_rate": 3e-4},
    "rate 1e-4": {"learning_rate": 1e-4},
    "best by val_accuracy": {"best_by": "val_accuracy"},
    "best by val_loss": {"best_by": "val_loss"},
    "second phase": {
        "finetune_layers": 20,
        "finetune_epochs": 5,
        "finetune_learning_rate": 1e-5,
    },
    "recipe classic": RECIPES["classic"],
}
"""Name -> what differs from the default; those that are the default are left out by themselves."""


def make_config(overrides: dict[str, Any], *, seed: int, **more: Any) -> TrainConfig:
    """Return the settings of a run that has no data folder and no run folder."""
    return TrainConfig(data=Path(), out=Path(), seed=seed, **(more | overrides))


def is_default(overrides: dict[str, Any]) -> bool:
    """Tell whether a setting changes nothing."""
    defaults = make_config({}, seed=0)
    return all(getattr(defaults, name) == value for name, value in overrides.items())
