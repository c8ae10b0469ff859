"""The end of a training: temperature, best.keras, its self-check, and the figures of the run."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from mnv2tl import checkpoint, store, weight_file
from mnv2tl.checkpoint import Run, full_shapes, load_run
from mnv2tl.config import TrainConfig
from mnv2tl.data.entries import Entry
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.views import ViewMaker
from mnv2tl.errors import ResultError
from mnv2tl.evaluate import Evaluation, ask, build_whole, evaluate_files
from mnv2tl.interrupts import wait_for
from mnv2tl.keras_model import build_model, describe_trainable, freeze, set_arrays
from mnv2tl.memory import explain_shortage
from mnv2tl.metrics import expected_calibration_error, fit_temperature, softmax
from mnv2tl.mobilenet import list_layers
from mnv2tl.plots import load_plots, write_curves
from mnv2tl.progress import say, show_step
from mnv2tl.state import Commit

SELF_CHECK_IMAGES = 2000
"""How many validation images the finished checkpoint is evaluated on, from their files."""

# Cached features are float16; on photographs that moves probabilities by 1e-4 or less.
SELF_CHECK_TOLERANCE = 1e-3

_ENOUGH = 20
_GUESSED = (
    "on the validation images, always answering their most frequent class would be at least as "
    "good; try another learning rate, more epochs, fewer layers that train, or more images"
)
_RESUME = "close other programs, and go on with --resume: all epochs are saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The whole network twice, with weights of zero."""

    whole: keras.Model
    """To compute with, compiled: pixels to logits, for the self-check."""
    stock: keras.Model
    """Of stock layers: pixels to probabilities, for best.keras."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the phases of a training gave."""

    commit: Commit
    """The last one."""
    arrays: dict[str, NDArray[np.float32]]
    """All weights of the best epoch."""
    logits: NDArray[np.float32]
    """Its answers on the validation split, from cached features, shape (n, classes)."""
    trained: list[str]
    """Names of the layers that its phase trained."""
    trunk_runtime: str
    """What ran the frozen layers."""
    seconds: dict[str, float]
    """Time that the stages took."""
    began: float
    """`time.perf_counter()` when the training began."""
    networks: Future[Networks]
    """What `open_networks` returned."""


def finish(config: TrainConfig, manifest: Manifest, maker: ViewMaker, outcome: Outcome) -> Run:
    """Write what a finished run holds, and return it.

    Raises:
        ResultError: best.keras, read back, answers otherwise than the training did (E603).
        MachineError: The self-check did not fit into memory (E505); the last commit is kept.
    """
    val = manifest.of_split("val")
    labels = np.array([entry.label for entry in val])
    temperature = fit_temperature(outcome.logits, labels)
    expected = softmax(outcome.logits, temperature=temperature)
    with (
        show_step("opening the whole network"),
        explain_shortage("the network of the self-check", fix=_RESUME),
    ):
        networks = wait_for(outcome.networks)
    model = networks.stock
    set_arrays(model, outcome.arrays)
    freeze(model, outcome.trained, batch_norm=config.batch_norm)
    digest = checkpoint.write_keras(model, config.out / "best.keras")
    checked = _evaluate_file(config, manifest, maker, networks.whole, temperature)
    rows = {entry.path: row for row, entry in enumerate(val)}
    places = [rows[entry.path] for entry in checked.entries]
    difference = compare(checked, expected[places])
    history, best_epoch = outcome.commit.history, outcome.commit.best.epoch
    checkpoint.write_history(config.out / "history.csv", history)
    write_curves(config.out / "curves.png", history, best_epoch=best_epoch)
    summary = checked.summary()
    if is_guessing(labels[places], summary["accuracy"]):
        say(f"warning: {_GUESSED}")
    seconds = outcome.seconds | {"total": time.perf_counter() - outcome.began}
    info = dict(load_run(config.out).info)
    info |= {
        "finished": True,
        "history": history,
        "epochs": len(history),
        "best_epoch": best_epoch,
        "trainable": describe_trainable(model),
        "temperature": temperature,
        "ece": {
            "before": expected_calibration_error(softmax(outcome.logits), labels),
            "after": expected_calibration_error(expected, labels),
        },
        "train_images": len(manifest.of_split("train")),
        "val_images": len(val),
        "val_accuracy": summary["accuracy"],
        "val_accuracy_interval": summary["accuracy_interval"],
        "val_loss": summary["loss"],
        "per_class": summary["per_class"],
        "self_check": {"images": len(checked.entries), "max_abs_diff": difference},
        "trunk_runtime": outcome.trunk_runtime,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "files": {"best.keras": digest},
    }
    store.write_sealed_json(config.out / "run.json", info)
    return load_run(config.out)


def compare(checked: Evaluation, expected: NDArray[np.float64]) -> float:
    """Return the largest difference of probabilities; refuse a checkpoint that answers otherwise.

    Args:
        checked: What the checkpoint answers.
        expected: What the training answered, shape (n, classes).

    Raises:
        ResultError: They differ by more than `SELF_CHECK_TOLERANCE`; the worst image is named
            (E603).
    """
    differences = np.abs(checked.probabilities - expected).max(axis=1)
    worst = int(np.nan_to_num(differences, nan=np.inf).argmax())
    if not differences[worst] <= SELF_CHECK_TOLERANCE:
        message = (
            f"best.keras answers otherwise than the training by {differences[worst]:.1e}, "
            f"allowed {SELF_CHECK_TOLERANCE:.0e}"
        )
        raise ResultError("E603", message, path=checked.entries[worst].path)
    return float(differences[worst])


def is_guessing(labels: NDArray[np.int64], accuracy: float) -> bool:
    """Tell whether always answering the most frequent class would be at least as accurate.

    Of fewer than 20 images, and of one class only, it is not said.

    Args:
        labels: Of the images, shape (n,).
        accuracy: On them, 0 to 1.

    Example:
        >>> import numpy as np
        >>> from mnv2tl.finish import is_guessing
        >>> labels = np.repeat([0, 1], [15, 10])
        >>> is_guessing(labels, 0.6), is_guessing(labels, 0.64)
        (True, False)
    """
    most_frequent = float(np.bincount(labels).max() / len(labels))
    return len(labels) >= _ENOUGH and accuracy <= most_frequent < 1


def open_networks(config: TrainConfig, classes: int) -> Networks:
    """Return the networks that `finish` fills, and import what it draws with.

    It takes seconds that a training of features leaves the other cores, so it is called beside it.
    """
    stock = build_model(
        list_layers(alpha=config.alpha, image_px=config.image_px),
        classes=classes,
        input_shape=(config.image_px, config.image_px, 3),
        scaling=config.scaling,
        dropout=config.dropout,
        seed=config.seed,
    )
    whole = build_whole(
        alpha=config.alpha, image_px=config.image_px, scaling=config.scaling, classes=classes
    )
    ask(whole, np.zeros((1, config.image_px, config.image_px, 3), np.uint8))
    load_plots()
    return Networks(whole=whole, stock=stock)


def _evaluate_file(
    config: TrainConfig,
    manifest: Manifest,
    maker: ViewMaker,
    whole: keras.Model,
    temperature: float,
) -> Evaluation:
    """Evaluate best.keras, read back from the disk, on the files of validation images."""
    path = config.out / "best.keras"
    shapes = full_shapes(
        alpha=config.alpha, image_px=config.image_px, classes=len(manifest.class_names)
    )
    set_arrays(whole, weight_file.read_arrays(weight_file.read_content(path), shapes, path=path))
    return evaluate_files(
        functools.partial(ask, whole),
        maker,
        sample_val(manifest),
        class_names=manifest.class_names,
        temperature=temperature,
        skip_lost=True,
        fix=_RESUME,
    )


def sample_val(manifest: Manifest) -> Sequence[Entry]:
    """Return at most `SELF_CHECK_IMAGES` validation images, drawn by hash from all classes."""
    val = manifest.of_split("val")
    if len(val) <= SELF_CHECK_IMAGES:
        return val
    return tuple(sorted(val, key=lambda entry: entry.sha256)[:SELF_CHECK_IMAGES])
