from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl import checkpoint
from mnv2tl.checkpoint import full_shapes, load_run, write_history
from mnv2tl.data.entries import Entries
from mnv2tl.data.manifest import Manifest
from mnv2tl.errors import ArtifactError, MachineError
from mnv2tl.mobilenet import array_shapes, layer_array_shapes, list_layers

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def tiny_disk() -> Iterator[Path]:
    """Return a file system of 1 MB; mounting one needs root."""
    with tempfile.TemporaryDirectory() as name:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", name]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("cannot mount a tiny file system")
        yield Path(name)
        subprocess.run(["umount", name], check=True)


def _draw_arrays(classes: int = 3) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    shapes = full_shapes(alpha=0.35, image_px=96, classes=classes)
    return {key: rng.uniform(0.1, 1.0, shape).astype(np.float32) for key, shape in shapes.items()}


def _build() -> Any:
    """Return a small model with the arrays of `_draw_arrays`."""
    pytest.importorskip("keras")
    from mnv2tl.keras_model import build_model, set_arrays

    layers = list_layers(alpha=0.35, image_px=96)
    model = build_model(layers, classes=3, input_shape=(96, 96, 3), scaling="unit", dropout=0.5)
    set_arrays(model, _draw_arrays())
    return model


def _write_info(folder: Path, **changed: Any) -> None:
    info = {
        "schema": 1,
        "finished": True,
        "class_names": CLASSES,
        "config": {"alpha": 0.35, "image_px": 96},
        "history": [{"epoch": 1, "loss": 0.5}],
        "files": {"best.keras": "0" * 64},
        "created": "2026-01-01T00:00:00+00:00",
        "backend": "jax",
        "weights": {"name": "none", "sha256": "0" * 64, "licence": "none"},
        "temperature": 1.0,
        "val_accuracy": 0.5,
        "val_loss": 1.0,
        "best_epoch": 1,
    }
    (folder / "run.json").write_text(json.dumps(info | changed))


def test_a_run_gives_back_what_was_written(tmp_path: Path) -> None:
    """Names, history, state and manifest of a run folder."""
    _write_info(tmp_path)
    Manifest(root=tmp_path, class_names=CLASSES, entries=Entries()).save(tmp_path / "manifest.json")

    run = load_run(tmp_path)

    assert run.class_names == CLASSES
    assert run.history == [{"epoch": 1, "loss": 0.5}]
    assert run.is_finished
    assert run.best_path == tmp_path / "best.keras"
    assert run.manifest.class_names == CLASSES


@pytest.mark.parametrize("kind", ["missing", "empty folder", "file"])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, kind: str) -> None:
    """E410; a `.keras` file is not opened, however tempting."""
    path = tmp_path if kind == "empty folder" else tmp_path / "model.keras"
    if kind == "file":
        path.write_bytes(b"PK\x03\x04")

    with pytest.raises(ArtifactError) as caught:
        load_run(path)

    assert caught.value.code == "E410"
    assert "use a run folder, which holds run.json" in caught.value.message
    assert caught.value.path == str(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"3", b"{}", b'{"schema": "1"}', b'{"schema": null}'],
)
def test_a_damaged_run_json_is_refused(tmp_path: Path, content: bytes) -> None:
    """E412, whatever stands in it."""
    (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(ArtifactError) as caught:
        load_run(tmp_path)

    assert caught.value.code == "E412"


@pytest.mark.parametrize("wrong", [{"class_names": None}, {"class_names": [1]}, {"config": []}])
def test_a_run_json_with_other_types_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """E412 names what is expected."""
    _write_info(tmp_path, **wrong)

    with pytest.raises(ArtifactError, match="class_names must be a list of texts") as caught:
        load_run(tmp_path)

    assert caught.value.code == "E412"


def test_a_run_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """E404 with both numbers."""
    _write_info(tmp_path, schema=2)

    with pytest.raises(ArtifactError) as caught:
        load_run(tmp_path)

    assert caught.value.code == "E404"
    assert caught.value.message == "schema 2, this version reads <= 1"


def test_weights_of_an_unfinished_run_are_refused(tmp_path: Path) -> None:
    """There is no best.keras yet; the message says how to get there."""
    _write_info(tmp_path, finished=False)

    with pytest.raises(ArtifactError) as caught:
        load_run(tmp_path).read_arrays()

    assert caught.value.code == "E403"
    assert caught.value.fix == "finish it with mnv2tl train --resume"


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    """E414, not a traceback."""
    _write_info(tmp_path)

    with pytest.raises(ArtifactError, match="E414"):
        load_run(tmp_path).read_arrays()


def test_a_checkpoint_that_is_not_the_named_file_is_refused(tmp_path: Path) -> None:
    """E413 with the first digits of both hashes; the file is not parsed."""
    (tmp_path / "best.keras").write_bytes(b"anything")
    _write_info(tmp_path)

    with pytest.raises(ArtifactError) as caught:
        load_run(tmp_path).read_arrays()

    found = hashlib.sha256(b"anything").hexdigest()[:12]
    assert caught.value.code == "E413"
    assert caught.value.message == f"expected SHA-256 {'0' * 12}, found {found}"


@pytest.mark.usefixtures("backend")
def test_arrays_survive_the_checkpoint(tmp_path: Path) -> None:
    """What a model holds is what `read_arrays` gives, bit by bit and without Keras' loader."""
    digest = checkpoint.write_keras(_build(), tmp_path / "best.keras")
    _write_info(tmp_path, files={"best.keras": digest})

    arrays = load_run(tmp_path).read_arrays()

    expected = _draw_arrays()
    assert digest == hashlib.sha256((tmp_path / "best.keras").read_bytes()).hexdigest()
    assert arrays.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(arrays[key], array)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.keras", "run.json"]


@pytest.mark.usefixtures("backend")
def test_a_checkpoint_of_another_class_count_is_refused(tmp_path: Path) -> None:
    """`run.json` names four classes, the file has three."""
    digest = checkpoint.write_keras(_build(), tmp_path / "best.keras")
    _write_info(tmp_path, files={"best.keras": digest}, class_names=[*CLASSES, "fox"])

    with pytest.raises(ArtifactError, match=r"E415.*predictions/kernel has shape \(1280, 3\)"):
        load_run(tmp_path).read_arrays()


@pytest.mark.usefixtures("backend")
def test_a_full_disk_leaves_the_former_checkpoint(tiny_disk: Path) -> None:
    """E501, and nothing but the former file is there."""
    path = tiny_disk / "best.keras"
    path.write_bytes(b"former")

    with pytest.raises(MachineError) as caught:
        checkpoint.write_keras(_build(), path)

    assert caught.value.code == "E501"
    assert path.read_bytes() == b"former"
    assert list(tiny_disk.iterdir()) == [path]


@pytest.mark.usefixtures("backend")
def test_a_missing_folder_is_an_expected_error(tmp_path: Path) -> None:
    """Someone removed the run folder while it was trained."""
    with pytest.raises(MachineError, match="E502"):
        checkpoint.write_keras(_build(), tmp_path / "gone" / "best.keras")


def test_full_shapes_are_the_network_and_its_dense_layer() -> None:
    """Nothing is missing and nothing is there twice."""
    shapes = full_shapes(alpha=1.4, image_px=96, classes=5)

    dense = {"predictions/kernel": (1792, 5), "predictions/bias": (5,)}
    assert shapes == array_shapes(1.4) | dense
    last = list_layers(alpha=1.4)[-4]
    assert layer_array_shapes(last).items() <= shapes.items()


def test_history_is_csv_that_python_reads(tmp_path: Path) -> None:
    """One header line, one row per epoch, numbers in full."""
    rows = [
        {"epoch": 1, "loss": 1 / 3, "val_accuracy": 0.5},
        {"epoch": 2, "loss": 1e-9, "val_accuracy": 1.0},
    ]

    write_history(tmp_path / "history.csv", rows)

    with (tmp_path / "history.csv").open(newline="") as file:
        found = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert found == rows
