"""Train the last layers on features, batch by batch, with Keras on either backend.

The order of images in an epoch, the view that it sees and the first weights come from NumPy and the
seed, so that both backends get the same batches and a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mnv2tl.backend import training_precision
from mnv2tl.batches import batches_of_epoch, weigh_classes
from mnv2tl.config import TrainConfig
from mnv2tl.data.entries import Entries
from mnv2tl.data.views import PLAIN
from mnv2tl.errors import ArtifactError, ResultError
from mnv2tl.features import FeatureSource
from mnv2tl.interrupts import raise_pending
from mnv2tl.keras_model import Arrays, build_model, freeze, get_arrays, set_arrays
from mnv2tl.memory import SMALLER, explain_batch, explain_shortage
from mnv2tl.metrics import log_loss, softmax, top1_accuracy
from mnv2tl.mobilenet import DENSE, Layer, cut_at
from mnv2tl.phase import Phase, figure_of, is_over, list_trained
from mnv2tl.progress import Advance
from mnv2tl.state import Best, Commit, StateStore

_PREDICT_IMAGES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Images of the training and validation split."""

    train: Entries
    """Images to learn from."""
    val: Entries
    """Images to choose the best epoch by."""


def build_head(
    layers: Sequence[Layer],
    phase: Phase,
    config: TrainConfig,
    *,
    classes: int,
    shape: tuple[int, ...],
) -> keras.Model:
    """Return the compiled model of the layers behind the cut: features to logits.

    Args:
        layers: All layers of the network.
        phase: What trains.
        config: Settings of the run.
        classes: Number of outputs.
        shape: Shape of one image's features.
    """
    cut = cut_at(tuple(layers), phase.trainable_layers)
    head = build_model(
        layers[cut:],
        classes=classes,
        input_shape=shape,
        scaling=config.scaling if cut == 0 else None,
        dropout=config.dropout,
        seed=config.seed,
        activation=None,
        to_save=False,
    )
    freeze(head, list_trained(layers, phase), batch_norm=config.batch_norm)
    return head


def fit_phase(
    head: keras.Model,
    phase: Phase,
    config: TrainConfig,
    *,
    source: FeatureSource,
    split: Split,
    state: StateStore,
    start: Commit | None,
    first_arrays: Arrays,
    advance: Advance,
    report: Callable[[dict[str, Any], bool], None],
) -> Commit:
    """Train until the phase is over, committing after every epoch; return the last commit.

    Args:
        head: Its model, from `build_head`.
        phase: What trains, and for how long.
        config: Settings of the run.
        source: Gives features.
        split: Images.
        state: Where commits go.
        start: The commit to go on from; None at the very beginning.
        first_arrays: Weights at the phase's first step.
        advance: Called with the number of images that a step used.
        report: Called with each row of the history and whether it is the best so far.

    Raises:
        ResultError: The loss or a weight stopped being finite (E602); the last commit is kept.
        MachineError: A batch did not fit into memory (E505); the last commit is kept.
    """
    _compile(head, phase, config, steps=math.ceil(len(split.train) / config.batch_size))
    if start is not None and start.phase == phase.index:
        _restore(head, state.load_arrays(start.file))
    else:
        set_arrays(head, first_arrays)
    weights = weigh_classes(split.train, config, classes=head.output_shape[1])
    val_labels = np.array([entry.label for entry in split.val])
    commit = start
    while not is_over(commit, phase, config):
        history = commit.history if commit else ()
        batches = batches_of_epoch(source, split.train, config, len(history), weights)
        began = time.perf_counter()
        with explain_batch(config.batch_size), training_precision(keras.backend.backend()):
            loss, accuracy = _train_epoch(head, batches, advance)
        with np.errstate(invalid="ignore"):  # told by `_commit`, in one line
            probabilities = softmax(predict_logits(head, source, split.val))
        row = {
            "epoch": len(history) + 1,
            "phase": phase.index,
            "loss": loss,
            "accuracy": accuracy,
            "val_loss": log_loss(probabilities, val_labels),
            "val_accuracy": top1_accuracy(probabilities, val_labels),
            "seconds": round(time.perf_counter() - began, 3),
        }
        commit = _commit(head, row, phase, config, state=state, before=commit)
        report(row, commit.best.epoch == row["epoch"])
    if commit is None:
        raise ValueError("a phase needs at least one epoch")
    return commit


def predict_logits(
    head: keras.Model, source: FeatureSource, entries: Entries
) -> NDArray[np.float32]:
    """Return the logits of plain images, shape (n, classes), in constant memory.

    Raises:
        MachineError: So many images did not fit into memory (E505).
    """
    logits = []
    with explain_shortage(f"{_PREDICT_IMAGES} validation images at once", fix=SMALLER):
        for start in range(0, len(entries), _PREDICT_IMAGES):
            raise_pending()
            features = source.read(entries[start : start + _PREDICT_IMAGES], PLAIN)
            count = len(features)
            # Padded, so that only one shape is compiled.
            padding = [(0, _PREDICT_IMAGES - count)] + [(0, 0)] * (features.ndim - 1)
            batch = np.pad(features, padding)
            logits.append(np.asarray(head.predict_on_batch(batch))[:count])
    return np.concatenate(logits)


def _compile(head: keras.Model, phase: Phase, config: TrainConfig, *, steps: int) -> None:
    rate: Any = phase.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps * phase.epochs)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=config.label_smoothing
    )
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(head.trainable_variables)
    head.compile(optimizer, loss, metrics=[_is_right])


def _is_right(targets: Any, logits: Any) -> Any:
    """Return 1 for each image whose class is the likeliest, shape (n,); 0 for a row of padding."""
    is_right = keras.ops.equal(keras.ops.argmax(targets, -1), keras.ops.argmax(logits, -1))
    return keras.ops.max(targets, -1) * keras.ops.cast(is_right, targets.dtype)


def _train_epoch(
    head: keras.Model, batches: Iterable[tuple[NDArray[np.float32], ...]], advance: Advance
) -> tuple[float, float]:
    """Return loss and accuracy over the images of an epoch, each before the step that it is in.

    Not `fit`: on TensorFlow it moves every batch through a Python function in its graph, some 30 %
    of the time of an epoch, and keeps what it made of them.

    Raises:
        ResultError: The loss of a step is not finite (E602).
    """
    images, right, loss = 0, 0, 0.0
    for step, (features, targets, weights) in enumerate(batches, 1):
        logs = head.train_on_batch(features, targets, sample_weight=weights, return_dict=True)
        if not math.isfinite(logs["loss"]):
            message = f"the loss is not finite at step {step} of the epoch"
            raise ResultError("E602", message, fix="lower --learning-rate")
        count = int(targets.sum())  # without padding
        images += count
        loss += count * float(logs["loss"])
        right += round(len(features) * float(logs["_is_right"]))
        advance(count)
    return loss / images, right / images


def _commit(
    head: keras.Model,
    row: dict[str, Any],
    phase: Phase,
    config: TrainConfig,
    *,
    state: StateStore,
    before: Commit | None,
) -> Commit:
    arrays = get_arrays(head)
    broken = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    if broken or not math.isfinite(row["val_loss"]):
        what = f"the weight {broken[0]}" if broken else "the validation loss"
        message = f"{what} is not finite after epoch {row['epoch']}"
        raise ResultError("E602", message, fix="lower --learning-rate")
    best = before.best if before else None
    value = figure_of(row, config)
    if best is None or value < best.value:
        file = state.save_arrays(f"best-{row['epoch']:04}", arrays)
        best = Best(epoch=row["epoch"], phase=phase.index, value=value, file=file)
    file = state.save_arrays(f"epoch-{row['epoch']:04}", arrays | _hidden_state(head))
    history = (*before.history, row) if before else (row,)
    commit = Commit(phase=phase.index, file=file, history=history, best=best)
    state.commit(commit)
    return commit


def _hidden_variables(head: keras.Model) -> dict[str, Any]:
    """Return the optimizer's variables and random states by a key that is equal on all backends."""
    variables = {
        f"optimizer/{number:04}/{variable.name}": variable
        for number, variable in enumerate(head.optimizer.variables)
    }
    for layer in head.layers:
        if isinstance(layer, keras.layers.Dropout):
            variables[f"random/{layer.name}"] = layer.seed_generator.state
    return variables


def _hidden_state(head: keras.Model) -> dict[str, NDArray[Any]]:
    return {
        key: np.array(keras.ops.convert_to_numpy(variable.value))
        for key, variable in _hidden_variables(head).items()
    }


def _restore(head: keras.Model, arrays: dict[str, NDArray[Any]]) -> None:
    """Fill weights, optimizer and random state from a commit of either backend.

    Raises:
        ArtifactError: The head has another number of classes (E405), or an array is missing or
            has another shape (E404).
    """
    saved, classes = len(arrays[f"{DENSE}/bias"]), head.output_shape[1]
    if saved != classes:
        message = f"the saved head has {saved} outputs, the dataset has {classes} classes"
        raise ArtifactError("E405", message, fix="start a new run")
    set_arrays(head, arrays)
    for key, variable in _hidden_variables(head).items():
        if key not in arrays or arrays[key].shape != tuple(variable.shape):
            message = f"no state {key} of shape {tuple(variable.shape)}"
            raise ArtifactError("E404", message, fix="start a new run")
        variable.assign(arrays[key])
