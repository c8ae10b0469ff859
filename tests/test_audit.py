from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from mnv2tl.cli import main
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.scan import ScanConfig, scan


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of ten images, one text file, and a cache folder of the test's own."""
    monkeypatch.setenv("MNV2TL_CACHE", os.fspath(tmp_path / "cache"))
    for label, name in enumerate(("cats", "dogs", "[bold]birds")):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(10):
            generator = np.random.default_rng(100 * label + number)
            pixels = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            (folder / f"{number}.png").write_bytes(buffer.getvalue())
    (tmp_path / "data" / "cats" / "notes.txt").write_text("notes")
    return tmp_path / "data"


def audit(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["audit", *(os.fspath(each) for each in arguments)])


def test_json_is_one_object_on_the_last_line(root: Path) -> None:
    """Other tools read these keys."""
    result = audit(root, "--json", "--split", "exact", "--test-fraction", "0.1")

    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    value = json.loads(result.stdout)
    assert value["images"] == 30
    assert value["classes"][0] == {
        "class_name": "[bold]birds",
        "train": 7,
        "val": 2,
        "test": 1,
        "val_share": 0.2,
    }
    assert value["left_out"] == [
        {"path": "cats/notes.txt", "code": "other-file", "reason": "not an image by its content"}
    ]
    assert value["duplicates"] == []
    assert value["split"] == {
        "rule": "exact",
        "seed": 0,
        "val_fraction": 0.2,
        "test_fraction": 0.1,
        "folders": [],
        "train": 21,
        "val": 6,
        "test": 3,
    }
    assert value["near_duplicates"]["pairs"] == 0
    assert value["warnings"] == ["left out: other-file 1"]


def test_table_shows_each_class_and_what_is_left_out(root: Path) -> None:
    """Result on stdout, and no class name is taken for markup."""
    result = audit(root, "--split", "exact")

    assert result.exit_code == 0
    assert "30 images in 3 classes" in result.stdout
    rows = [line.replace("│", " ").split() for line in result.stdout.splitlines()]
    assert ["[bold]birds", "8", "2", "0", "20.0", "%"] in rows
    assert ["all", "24", "6", "0", "20.0", "%"] in rows
    assert "warning: left out: other-file 1" in result.stdout
    assert "left out: cats/notes.txt: other-file, not an image by its content" in result.stdout


def test_out_writes_the_manifest(root: Path, tmp_path: Path) -> None:
    """The file is what `scan` returns."""
    path = tmp_path / "manifest.json"

    assert audit(root, "--out", path, "--split-seed", "3").exit_code == 0

    assert Manifest.load(path) == scan(root, ScanConfig(split_seed=3))


def test_default_index_lies_in_the_cache_folder(root: Path, tmp_path: Path) -> None:
    """It is made unless it is refused."""
    assert audit(root, "--no-index").exit_code == 0
    assert not (tmp_path / "cache").exists()

    assert audit(root).exit_code == 0
    assert (tmp_path / "cache" / "index" / "images.sqlite").is_file()


def test_nothing_in_the_folder_changes(root: Path) -> None:
    """The pictures are the user's."""
    before = {path: path.stat() for path in root.rglob("*")}

    audit(root)

    after = {path: path.stat() for path in root.rglob("*")}
    assert [*after] == [*before]
    assert all(after[path].st_mtime_ns == before[path].st_mtime_ns for path in before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--val-fraction", "0"], "0.0<x<1.0"),
        (["--val-fraction", "0.6", "--test-fraction", "0.5"], "below 1 together"),
        (["--test-fraction", "0.1", "--test-dir", "x"], "test_dir or test_fraction, not both"),
        (["--split", "random"], "'threshold', 'exact'"),
        (["--max-bad", "2"], "0.0<=x<=1.0"),
    ],
)
def test_wrong_usage_is_exit_2(root: Path, options: list[str], message: str) -> None:
    """A contradiction between two options is wrong usage too."""
    result = audit(root, *options)

    assert result.exit_code == 2
    assert message in result.stderr


def test_command_line_imports_no_training_package(root: Path) -> None:
    """An audit must not wait for Keras."""
    script = (
        "import sys; from mnv2tl.cli import main; main(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'keras', 'jax', 'tensorflow', 'onnxruntime', 'openvino', 'matplotlib'} "
        "& set(sys.modules)))"
    )

    output = subprocess.run(
        [sys.executable, "-c", script, "audit", os.fspath(root), "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )

    assert output.stdout.splitlines()[-1] == "[]"
