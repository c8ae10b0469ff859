from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from mnv2tl.errors import MachineError, install_extra
from mnv2tl.tensorboard import open_writer


def _row(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "phase": 0,
        "loss": 1.0 / epoch,
        "accuracy": 0.5,
        "val_loss": 2.0 / epoch,
        "val_accuracy": 0.25,
    }


def _read_scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Return (chart, step, value) of all event files, in order."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            # TFRecord: length, checksum of it, the record, checksum of it.
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            content = content[16 + length :]
    return found


def test_rows_go_to_two_runs_under_the_names_of_keras(tmp_path: Path) -> None:
    """TensorBoard then draws training and validation into one chart."""
    pytest.importorskip("tensorboardX")

    with open_writer(tmp_path / "tensorboard") as write:
        write(_row(1))
        write(_row(2))

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
    """A row is on the disk within seconds, and survives an error."""
    pytest.importorskip("tensorboardX")

    with contextlib.suppress(KeyboardInterrupt), open_writer(tmp_path) as write:
        write(_row(1))
        end = time.monotonic() + 20
        while len(_read_scalars(tmp_path / "train")) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        seen = _read_scalars(tmp_path / "train")
        write(_row(2))
        raise KeyboardInterrupt

    assert seen == [("epoch_loss", 0, 1.0), ("epoch_accuracy", 0, 0.5)]
    assert len(_read_scalars(tmp_path / "validation")) == 4


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E508 before the first epoch, and no folder is made."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MachineError) as caught, open_writer(tmp_path / "logs"):
        pass

    assert (caught.value.code, caught.value.fix) == ("E508", install_extra("tensorboard"))
    assert not (tmp_path / "logs").exists()
