"""What is deployed, asked about pictures with the extra `deploy` alone."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")

from mnv2tl.cli import main
from mnv2tl.data import images
from mnv2tl_export.classifier import Classifier

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "tests" / "golden" / "tiny.onnx"
LABELS = {"disc": "red", "square": "green", "stripes": "blue"}
"""Folder of `tiny_folder` -> its colour, which the model names."""

_PROBE = """
import json, sys
before = set(sys.modules)
{code}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(new)), file=sys.stderr)
"""


def _call(*words: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin)


def _predict(*words: object, stdin: bytes | None = None) -> list[dict[str, Any]]:
    result = _call("predict", MODEL, *words, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_files_and_folders_are_labelled(tiny_folder: Path) -> None:
    """A file, then a folder at any depth: one object each, with the colour that was drawn."""
    file = tiny_folder / "stripes" / "03.png"

    lines = _predict(file, tiny_folder)

    assert [line["path"] for line in lines] == [
        str(file),
        *sorted(str(each) for each in tiny_folder.glob("*/*.png")),
    ]
    assert all(line["label"] == LABELS[Path(line["path"]).parent.name] for line in lines)
    np.testing.assert_allclose([sum(p for _, p in line["top"]) for line in lines], 1, atol=1e-6)


def test_stdin_is_paths_or_a_picture(tiny_folder: Path) -> None:
    """`find | mnv2tl predict MODEL -` and `cat x.jpg | mnv2tl predict MODEL -`."""
    file = tiny_folder / "disc" / "00.png"

    (from_path,) = _predict("-", stdin=os.fsencode(file) + b"\n")
    (from_picture,) = _predict("-", stdin=file.read_bytes())

    assert from_path["path"] == str(file)
    assert from_picture == from_path | {"path": "-"}


def test_text_and_csv_name_the_label(tiny_folder: Path) -> None:
    """People read lines with tabs, spreadsheets read CSV."""
    file = tiny_folder / "square" / "00.png"

    text = _call("predict", MODEL, file).stdout
    header, row = csv.reader(io.StringIO(_call("predict", MODEL, file, "--csv").stdout))

    assert text.split("\t")[1] == "green"
    assert (header[1], row[1]) == ("label", "green")


def test_a_bad_picture_does_not_stop_the_others(tiny_folder: Path) -> None:
    """All are answered; the exit code is 3."""
    bad = tiny_folder / "disc" / "05.png"
    bad.write_bytes(bad.read_bytes()[:300])

    result = _call("predict", MODEL, tiny_folder, "--json")

    assert result.exit_code == 3
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 36
    assert [line["path"] for line in lines if line["label"] is None] == [str(bad)]
    assert "1 of 36 pictures could not be read" in result.stderr


def test_selftest_passes() -> None:
    """The graph resizes and computes here as where the file was made."""
    result = _call("selftest", MODEL, "--json")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["passed"]


def test_classifier_resizes_as_the_graph(tiny_folder: Path) -> None:
    """Pixels of any size give one answer, whether Pillow resizes them or the graph."""
    classify = Classifier(MODEL)
    files = sorted(tiny_folder.glob("*/*.png"))

    probabilities = classify(files)

    pixels = np.stack([images.read(file) for file in files])  # (36, 64, 64, 3)
    np.testing.assert_allclose(classify.predict_pixels(pixels), probabilities, atol=1e-6)
    labels = [classify.class_names[index] for index in probabilities.argmax(axis=1)]
    assert labels == [LABELS[file.parent.name] for file in files]


@pytest.mark.parametrize(
    "code",
    [
        "from mnv2tl_export.classifier import Classifier; Classifier(sys.argv[1])(sys.argv[2:])",
        "from mnv2tl.cli import main; main(['predict', *sys.argv[1:]], standalone_mode=False)",
        "from mnv2tl.cli import main; main(['selftest', sys.argv[1]], standalone_mode=False)",
    ],
    ids=["classifier", "predict", "selftest"],
)
def test_nothing_that_trains_is_imported(code: str, tiny_folder: Path) -> None:
    """Where it is installed it would cost seconds, and elsewhere the import would fail."""
    result = subprocess.run(
        [sys.executable, "-c", _PROBE.format(code=code), MODEL, tiny_folder / "disc" / "00.png"],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'export'}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    imported = set(json.loads(result.stderr.splitlines()[-1]))
    assert {"mnv2tl_export", "numpy", "onnxruntime", "PIL"} <= imported
    assert not imported & {"h5py", "jax", "keras", "matplotlib", "onnx", "openvino", "tensorflow"}


def test_the_model_is_what_its_script_writes() -> None:
    """But for the bytes of its PNG, which depend on zlib."""
    onnx = pytest.importorskip("onnx")
    from tests.golden.make_tiny import make_tiny

    written, kept = onnx.load_from_string(make_tiny()), onnx.load(MODEL)

    pictures = []
    for model in (written, kept):
        entry = next(each for each in model.metadata_props if each.key == "mnv2tl.selftest")
        selftest = json.loads(entry.value)
        pictures.append(images.decode(base64.b64decode(selftest.pop("png"))).pixels)
        entry.value = json.dumps(selftest)
    assert written == kept
    np.testing.assert_array_equal(pictures[0], pictures[1])
