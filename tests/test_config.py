from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mnv2tl import config
from mnv2tl.config import RECIPES, TrainConfig
from mnv2tl.data.augment import PRESETS, AugmentConfig
from mnv2tl.data.scan_config import ScanConfig

DATA, OUT = Path("data"), Path("run")

CHOICES: dict[str, tuple[Any, ...]] = {
    "image_px": (96, 128, 160, 192, 224),
    "alpha": (0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    "batch_norm": ("frozen", "train"),
    "scaling": ("symmetric", "unit"),
    "schedule": ("constant", "cosine"),
    "class_weights": ("none", "balanced"),
    "best_by": ("val_loss", "val_accuracy"),
    "backend": ("jax", "tensorflow"),
    "trunk_runtime": ("auto", "onnxruntime", "keras"),
}
RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "views": (1, 1_000_000),
    "trainable_layers": (0, 154),
    "finetune_layers": (0, 154),
    "patience": (0, 2**32 - 1),
    "finetune_epochs": (0, 2**32 - 1),
    "seed": (0, 2**32 - 1),
    "dropout": (0.0, 0.999),
    "label_smoothing": (0.0, 0.999),
    "learning_rate": (1e-12, 10.0),
    "finetune_learning_rate": (1e-12, 10.0),
    "cache_limit_gb": (0.0, 1e9),
}
FREE = {"data", "out", "weights", "start_from", "augment", "trackers", "scan"}


def _make(**changed: Any) -> TrainConfig:
    return TrainConfig(data=DATA, out=OUT, **changed)


def test_every_setting_is_checked_or_free() -> None:
    """A new field needs a rule here and in `__post_init__`, or a place among the free ones."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}

    assert names == CHOICES.keys() | RANGES.keys() | FREE


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in CHOICES.items() for v in vs])
def test_every_choice_is_taken(name: str, value: object) -> None:
    """The documented choices work, one at a time."""
    assert getattr(_make(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "allowed"), CHOICES.items())
@pytest.mark.parametrize("wrong", ["", "Frozen", 100, ()])
def test_a_wrong_choice_is_refused(name: str, allowed: tuple[Any, ...], wrong: object) -> None:
    """The message names the setting, what is allowed and what came."""
    message = f"{name} must be one of {allowed}, got {wrong!r}"

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        _make(**{name: wrong})


@pytest.mark.parametrize(("name", "bounds"), RANGES.items())
def test_both_ends_of_a_range_are_taken(name: str, bounds: tuple[float, float]) -> None:
    """The ends belong to the range."""
    for value in bounds:
        assert getattr(_make(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "bounds"), RANGES.items())
@pytest.mark.parametrize("kind", ["below", "above", "nan"])
def test_a_value_out_of_range_is_refused(name: str, bounds: tuple[float, float], kind: str) -> None:
    """The message names the setting, the range and what came; NaN is in no range."""
    low, high = bounds
    wrong = {"below": low - 1, "above": high + 1, "nan": float("nan")}[kind]
    message = f"{name} must be from {low} to {high}, got {wrong}"

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        _make(**{name: wrong})


def test_fine_tuning_fewer_layers_than_before_is_refused() -> None:
    """The second phase goes on from the first, so it cannot freeze what that one trained."""
    message = "finetune_layers must be at least trainable_layers, 30, got 20"

    with pytest.raises(ValueError, match=message):
        _make(trainable_layers=30, finetune_layers=20, finetune_epochs=1)
    assert _make(trainable_layers=30, finetune_layers=20).finetune_epochs == 0


def test_an_unknown_tracker_is_refused() -> None:
    """The known ones are named."""
    assert _make(trackers=config.TRACKERS).trackers == ("tensorboard", "mlflow", "wandb")

    with pytest.raises(ValueError, match=r"^trackers must be one of .*'wandb'.*, got 'neptune'$"):
        _make(trackers=("mlflow", "neptune"))


def test_paths_may_be_text() -> None:
    """Which is what most people write; they are paths afterwards."""
    config = TrainConfig(data="a", out="b", start_from="c")  # type: ignore[arg-type]

    assert (config.data, config.out, config.start_from) == (Path("a"), Path("b"), Path("c"))


def test_settings_cannot_change() -> None:
    """What was checked stays checked."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        _make().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("augment", "expected"),
    [(PRESETS["none"], False), (PRESETS["light"], True), (AugmentConfig(zoom=0.1), True)],
)
def test_is_augmented_tells_whether_views_differ(augment: AugmentConfig, expected: bool) -> None:
    """Without augmentation an epoch needs the plain view only."""
    assert _make(augment=augment).is_augmented is expected


def test_all_epochs_counts_both_phases() -> None:
    """The views of both phases are computed at once."""
    assert _make(epochs=7, finetune_epochs=3).all_epochs == 10


def test_to_json_holds_every_setting_as_json() -> None:
    """`run.json` gives back the same values, and `--resume` compares them; the run may be moved."""
    settings = _make(
        start_from=Path("former"),
        trackers=("wandb",),
        scan=ScanConfig(test_dir=Path("t"), workers=2),
    )

    values = settings.to_json()

    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values.keys() == {field.name for field in dataclasses.fields(TrainConfig)} - {"out"}
    assert (values["data"], values["start_from"]) == ("data", "former")
    assert values["augment"] == PRESETS["light"].to_json()
    assert values["scan"]["test_dir"] == "t"
    assert values["trackers"] == ["wandb"]
    assert values["seed"] == 0


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid_settings(name: str) -> None:
    """A recipe changes what it says and nothing else."""
    recipe = RECIPES[name]

    values = _make(**recipe).to_json()

    defaults = _make().to_json()
    assert {key: values[key] for key in values if values[key] != defaults[key]} == recipe


def test_defaults_are_the_promised_ones() -> None:
    """These stand in the README and in the command line's help."""
    defaults = _make().to_json()

    expected = {
        "epochs": 10,
        "batch_size": 16,
        "image_px": 224,
        "alpha": 1.0,
        "weights": "imagenet",
        "trainable_layers": 4,
        "scaling": "symmetric",
        "seed": 0,
        "learning_rate": 1e-3,
        "batch_norm": "frozen",
    }
    assert {key: defaults[key] for key in expected} == expected
    assert config.RUNTIMES == ("onnxruntime", "keras")
