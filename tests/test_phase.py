from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mnv2tl.config import TrainConfig
from mnv2tl.mobilenet import list_layers
from mnv2tl.phase import Phase, is_over, list_phases, list_trained
from mnv2tl.state import Best, Commit

LAYERS = list_layers(alpha=0.35, image_px=96)


def _config(**changed: Any) -> TrainConfig:
    values: dict[str, Any] = {"alpha": 0.35, "image_px": 96, "epochs": 3, "learning_rate": 0.01}
    return TrainConfig(data=Path("data"), out=Path("run"), **values | changed)


def test_list_phases_follows_the_settings() -> None:
    """Without epochs of its own there is no second phase."""
    first = Phase(index=0, trainable_layers=4, epochs=3, learning_rate=0.01)
    second = Phase(index=1, trainable_layers=30, epochs=2, learning_rate=1e-4)
    settings = {"trainable_layers": 4, "finetune_layers": 30, "finetune_learning_rate": 1e-4}

    assert list_phases(_config(**settings)) == (first,)
    assert list_phases(_config(**settings, finetune_epochs=2)) == (first, second)


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (0, []),
        (1, ["global_average_pooling2d"]),
        (4, ["Conv_1", "Conv_1_bn", "out_relu", "global_average_pooling2d"]),
        (154, [layer.name for layer in LAYERS]),
    ],
)
def test_list_trained_counts_from_the_end(count: int, names: list[str]) -> None:
    """0 means the Dense layer alone, and not all layers."""
    phase = dataclasses.replace(list_phases(_config())[0], trainable_layers=count)

    assert list_trained(LAYERS, phase) == names


def _commit_of(
    losses: Iterable[float], *, accuracy: Iterable[float] = (), phase: int = 0
) -> Commit:
    accuracies = list(accuracy)
    rows = [{"phase": 0, "val_loss": 0.0, "val_accuracy": 1.0}] * (3 * phase)
    for number, loss in enumerate(losses):
        value = accuracies[number] if accuracies else 0.5
        rows.append({"phase": phase, "val_loss": loss, "val_accuracy": value})
    best = Best(epoch=1, phase=0, value=0.0, file="")
    return Commit(phase=phase, file="", history=tuple(rows), best=best)


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([], 0, False),
        ([3.0] * 9, 0, False),
        ([3.0] * 10, 0, True),
        ([3, 2, 1, 1.5], 2, False),
        ([3, 2, 1, 1.5, 1.2], 2, True),
        ([3, 2, 1, 1.5, 0.9], 2, False),
        ([3, 2, 1, 1.5, 1.0], 2, True),  # as good as before is not better
        ([1, 2], 2, False),
        ([1, 2, 2], 2, True),
        ([1], 1, False),
        ([1, 2], 1, True),
    ],
)
def test_is_over_after_all_epochs_or_patience(
    losses: list[float], patience: int, expected: bool
) -> None:
    """Ten epochs at most; with patience as soon as so many brought nothing."""
    config = _config(epochs=10, patience=patience)
    phase = list_phases(config)[0]

    assert is_over(_commit_of(losses), phase, config) is expected


def test_is_over_counts_the_epochs_of_its_own_phase() -> None:
    """The second phase is not over because the first was better."""
    config = _config(epochs=3, finetune_epochs=3, finetune_layers=4, patience=1)
    second = list_phases(config)[1]

    assert not is_over(None, second, config)
    assert not is_over(_commit_of([]), second, config)
    assert not is_over(_commit_of([5.0], phase=1), second, config)
    assert not is_over(_commit_of([5.0, 4.0], phase=1), second, config)
    assert is_over(_commit_of([5.0, 5.0], phase=1), second, config)


def test_is_over_looks_at_the_figure_that_names_the_best() -> None:
    """More accuracy is better, less loss is."""
    losses, accuracy = [1.0, 2.0, 3.0], [0.5, 0.6, 0.7]
    commit = _commit_of(losses, accuracy=accuracy)

    for best_by, expected in (("val_loss", True), ("val_accuracy", False)):
        config = _config(epochs=9, patience=2, best_by=best_by)
        assert is_over(commit, list_phases(config)[0], config) is expected
