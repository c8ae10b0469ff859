"""Tell of each epoch: a line on stderr, and TensorBoard's files if they are asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from mnv2tl.config import TrainConfig
from mnv2tl.progress import say
from mnv2tl.tensorboard import open_writer


@contextlib.contextmanager
def report_epochs(config: TrainConfig) -> Iterator[Callable[[dict[str, Any], bool], None]]:
    """Give a function that shows a row of the history, and writes it for TensorBoard if asked."""

    def say_row(row: dict[str, Any], is_best: bool) -> None:
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        figures = "  ".join(f"{name} {row[name]:.4f}" for name in names)
        best = "  best" if is_best else ""
        say(f"epoch {row['epoch']:>3}/{config.all_epochs}  {figures}{best}")

    if not config.tensorboard:
        yield say_row
        return
    with open_writer(config.out / "tensorboard") as write:

        def report(row: dict[str, Any], is_best: bool) -> None:
            say_row(row, is_best)
            write(row)

        yield report
