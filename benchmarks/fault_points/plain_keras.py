"""What Keras itself offers for the same ends, tried in the same way: the baseline of the table."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import BrokenError, Say, Writer, sweep_all

EPOCHS = 3


def run(place: Path, **options: Any) -> dict[str, Any]:
    """Sweep the writers; the options are those of `sweep_all`."""
    # HDF5 fills it with what it cannot write.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return sweep_all(list_writers(), place, **options)


def list_writers() -> list[Writer]:
    """Return `Model.save`, `Model.save_weights` and both forms of `BackupAndRestore`."""
    return [
        _save_writer("Model.save over a good file", "model.keras", _save_model),
        _save_writer("Model.save_weights over a good file", "model.weights.h5", _save_weights),
        _backup_writer("BackupAndRestore", double=False),
        _backup_writer("BackupAndRestore, double_checkpoint", double=True),
    ]


@functools.cache
def _model() -> keras.Model:
    model = keras.Sequential([keras.layers.Input((40,)), keras.layers.Dense(30, name="dense")])
    model.compile("sgd", "mse")
    return model


def _fill(value: float) -> keras.Model:
    _model().set_weights([np.full((40, 30), value, np.float32), np.zeros(30, np.float32)])
    return _model()


def _value() -> float:
    kernel = _model().get_weights()[0]
    if not (kernel == kernel[0, 0]).all():
        raise BrokenError("corrupt", "weights that were never saved")
    return float(kernel[0, 0])


def _save_model(value: float, path: Path) -> None:
    _fill(value).save(path)


def _save_weights(value: float, path: Path) -> None:
    _fill(value).save_weights(path)


def _save_writer(name: str, file: str, save: Callable[[float, Path], None]) -> Writer:
    def check(folder: Path, outcome: Outcome) -> None:
        _fill(0)
        try:
            # Of either kind of file it takes the weights.
            _model().load_weights(folder / file)
        except Exception as error:
            raise BrokenError("lost", f"neither the old file nor the new one: {error}") from error
        if _value() not in (1.0, 2.0):
            raise BrokenError("corrupt", "weights that were never saved")

    return Writer(
        name=name,
        prepare=lambda folder: save(1.0, folder / file),
        write=lambda folder, _: save(2.0, folder / file),
        check=check,
        is_ours=False,
    )


def _backup_writer(name: str, *, double: bool) -> Writer:
    def train(folder: Path, say: Say) -> None:
        model = _fill(1.0)
        model._initial_epoch = 0
        backup = keras.callbacks.BackupAndRestore(
            str(folder / "backup"), double_checkpoint=double, delete_checkpoint=False
        )
        backup.set_model(model)
        backup.on_train_begin()
        for epoch in range(model._initial_epoch, EPOCHS):
            _fill(_value() * 3 + epoch)  # in place of an epoch
            backup.on_epoch_end(epoch)
            say(str(epoch + 1))

    def check(folder: Path, outcome: Outcome) -> None:
        try:
            train(folder, lambda _: None)
        except Exception as error:
            raise BrokenError("lost", f"the restart fails: {error!r}") from error
        expected = 1.0
        for epoch in range(EPOCHS):
            expected = expected * 3 + epoch
        if _value() != expected:
            raise BrokenError("inconsistent", f"ends with {_value()} instead of {expected}")

    return Writer(name=name, prepare=lambda _: None, write=train, check=check, is_ours=False)
