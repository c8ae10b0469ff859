from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorboardX")

from mnv2tl.tensorboard import TensorboardTracker


def _row(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "phase": 0,
        "loss": 1.0 / epoch,
        "accuracy": 0.5,
        "val_loss": 2.0 / epoch,
        "val_accuracy": 0.25,
    }


def _open(folder: Path, known: str | None = None) -> TensorboardTracker:
    return TensorboardTracker(folder, name="run", settings={"seed": 7}, known=known)


def _read_events(folder: Path) -> list[Any]:
    """Return all values of all event files with the step of each, in order."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            # TFRecord: length, checksum of it, the record, checksum of it.
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(event.step, value) for value in event.summary.value]
            content = content[16 + length :]
    return found


def _read_scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Return (chart, step, value) of all event files, in order."""
    events = _read_events(folder)
    return [(v.tag, step, v.simple_value) for step, v in events if v.HasField("simple_value")]


def test_rows_go_to_two_runs_under_the_names_of_keras(tmp_path: Path) -> None:
    """TensorBoard then draws training and validation into one chart."""
    tracker = _open(tmp_path)
    tracker.write(_row(1))
    tracker.write(_row(2))
    tracker.close("finished")

    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == [
        "train",
        "validation",
    ]
    assert _read_scalars(tmp_path / "tensorboard" / "train") == [
        ("epoch_loss", 0, 1.0),
        ("epoch_accuracy", 0, 0.5),
        ("epoch_loss", 1, 0.5),
        ("epoch_accuracy", 1, 0.5),
    ]
    assert _read_scalars(tmp_path / "tensorboard" / "validation") == [
        ("epoch_loss", 0, 2.0),
        ("epoch_accuracy", 0, 0.25),
        ("epoch_loss", 1, 1.0),
        ("epoch_accuracy", 1, 0.25),
    ]


def test_rows_can_be_seen_while_the_training_goes_on(tmp_path: Path) -> None:
    """A row is on the disk at once."""
    tracker = _open(tmp_path)

    tracker.write(_row(1))

    assert _read_scalars(tmp_path / "tensorboard" / "train") == [
        ("epoch_loss", 0, 1.0),
        ("epoch_accuracy", 0, 0.5),
    ]
    tracker.close("stopped")


def test_a_full_disk_is_told_and_never_waited_for(tmp_path: Path) -> None:
    """The error reaches the caller each time, however many rows there are."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    tracker = _open(tmp_path)
    tracker.close("stopped")
    for file in tracker.files.values():
        file._py_recordio_writer._writer = open("/dev/full", "wb")

    for epoch in range(1, 30):
        with pytest.raises(OSError, match="No space left"):
            tracker.write(_row(epoch))

    for file in tracker.files.values():
        with contextlib.suppress(OSError):
            file._py_recordio_writer._writer.close()


def test_settings_result_and_curves_are_kept(tmp_path: Path) -> None:
    """Settings and result are texts, the curves a picture."""
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(tmp_path / "curves.png")
    tracker = _open(tmp_path)
    tracker.write_end({"best_epoch": 2}, [tmp_path / "curves.png", tmp_path / "run.json"])
    tracker.close("finished")

    values = [value for _, value in _read_events(tmp_path / "tensorboard" / "train")]

    texts = [v.tensor.string_val[0].decode() for v in values[:2]]
    assert '"seed": 7' in texts[0]
    assert '"best_epoch": 2' in texts[1]
    assert (values[2].tag, values[2].image.height, values[2].image.width) == ("curves", 4, 6)
    assert len(values) == 3


def test_a_resumed_run_shows_its_settings_once(tmp_path: Path) -> None:
    """The folder holds them already."""
    _open(tmp_path).close("stopped")
    tracker = _open(tmp_path, known="tensorboard")
    tracker.write(_row(3))
    tracker.close("finished")

    values = [value for _, value in _read_events(tmp_path / "tensorboard" / "train")]
    assert [v.tag.partition("/")[0] for v in values] == [
        *("settings", "epoch_loss", "epoch_accuracy")
    ]
