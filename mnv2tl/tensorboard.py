"""Write the history in TensorBoard's format, without TensorFlow."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mnv2tl.errors import MachineError, install_extra

# Training and validation go to runs of their own, as Keras' callback does, so that TensorBoard
# draws both into one chart.
_CHARTS = {
    "train": {"epoch_loss": "loss", "epoch_accuracy": "accuracy"},
    "validation": {"epoch_loss": "val_loss", "epoch_accuracy": "val_accuracy"},
}


def require_tensorboard() -> None:
    """Raise `MachineError` (E508) if tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        fix = install_extra("tensorboard")
        raise MachineError("E508", "tensorboardX is not installed", fix=fix)


@contextlib.contextmanager
def open_writer(folder: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that writes a row of the history.

    Raises:
        MachineError: tensorboardX is not installed (E508).
    """
    require_tensorboard()
    from tensorboardX import SummaryWriter  # noqa: PLC0415  optional

    # Its `flush` does not wait for the thread that writes; a short interval shows rows soon.
    writers = {name: SummaryWriter(str(folder / name), flush_secs=1) for name in _CHARTS}

    def write(row: dict[str, Any]) -> None:
        for name, charts in _CHARTS.items():
            for chart, key in charts.items():
                writers[name].add_scalar(chart, row[key], row["epoch"] - 1)

    try:
        yield write
    finally:
        for writer in writers.values():
            writer.close()
