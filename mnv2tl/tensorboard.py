"""Track a training in TensorBoard's format, without TensorFlow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Training and validation go to runs of their own, as Keras' callback does, so that TensorBoard
# draws both into one chart.
_CHARTS = {
    "train": {"epoch_loss": "loss", "epoch_accuracy": "accuracy"},
    "validation": {"epoch_loss": "val_loss", "epoch_accuracy": "val_accuracy"},
}
_TEXTS = "train"


class TensorboardTracker:
    """Event files in the folder `tensorboard` of a run.

    They are written at once and here: the thread of tensorboardX's `SummaryWriter` dies on a full
    disk without a word, and the eleventh event after that waits for it for ever.

    Args:
        folder: Of the run.
        name: Not used: TensorBoard names runs by their folders.
        settings: Shown as a text.
        known: Set if the folder holds a part of this run already.
    """

    def __init__(
        self, folder: Path, *, name: str, settings: Mapping[str, Any], known: str | None
    ) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # noqa: PLC0415  optional

        self.files = {}
        for part in _CHARTS:
            place = folder / "tensorboard" / part
            place.mkdir(parents=True, exist_ok=True)
            self.files[part] = EventsWriter(str(place / "events"), f".{time.time_ns()}")
        self.id = "tensorboard"
        self.place = "the folder tensorboard of the run"
        if known is None:
            self._write_text("settings", settings)

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row of the history."""
        from tensorboardX.summary import scalar  # noqa: PLC0415  optional

        for part, charts in _CHARTS.items():
            for chart, key in charts.items():
                self._add(part, scalar(chart, row[key]), step=row["epoch"] - 1)
            self.files[part].flush()

    def write_end(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write the figures of the finished run as a text, and its pictures."""
        from tensorboardX.summary import image  # noqa: PLC0415  optional

        self._write_text("result", figures)
        for path in files:
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                self._add(_TEXTS, image(path.stem, pixels, dataformats="HWC"))

    def close(self, status: str) -> None:
        """Write what is left."""
        for file in self.files.values():
            file.close()

    def _write_text(self, name: str, values: Mapping[str, Any]) -> None:
        from tensorboardX.summary import text  # noqa: PLC0415  optional

        # TensorBoard reads Markdown; four spaces keep the lines as they are.
        lines = json.dumps(values, indent=2).splitlines()
        self._add(_TEXTS, text(name, "\n".join(f"    {line}" for line in lines)))

    def _add(self, part: str, summary: Any, *, step: int = 0) -> None:
        from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415  optional

        event = Event(wall_time=time.time(), step=step, summary=summary)
        self.files[part].write_event(event)
