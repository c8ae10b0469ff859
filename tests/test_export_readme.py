"""The README of a bundle; its programs are run as they stand there, where their runtime is."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("onnxruntime")

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl_export.classifier import Classifier
from mnv2tl_export.deploy_readme import write_readme
from mnv2tl_export.markdown import escape_markdown
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_file import read_onnx
from mnv2tl_export.parity import Parity

GOLDEN = Path(__file__).resolve().parent / "golden"
MODEL = GOLDEN / "tiny.onnx"
ODD_NAMES = ('r|d\n<b>"é"</b>', "*_gr`een`_* [x](y)", "```??=\\@@{model}😀 ")
"""Would be a table's cell, HTML, emphasis, a link, code, a trigraph or a place to fill in."""

NODE_FOLDER = os.environ.get("MNV2TL_TEST_NODE")
CPP_FOLDER = os.environ.get("MNV2TL_TEST_ONNXRUNTIME_CPP")
needs_node = pytest.mark.skipif(
    NODE_FOLDER is None or shutil.which("node") is None,
    reason="needs node, and MNV2TL_TEST_NODE: a folder with node_modules/onnxruntime-node",
)
needs_cpp = pytest.mark.skipif(
    CPP_FOLDER is None or shutil.which("c++") is None,
    reason="needs c++, and MNV2TL_TEST_ONNXRUNTIME_CPP: a folder with include/ and lib/",
)

_ASK_NODE = """
const fs = require("node:fs");
const ort = require("onnxruntime-node");
const { classify } = require("./classify.js");

async function main() {
  const session = await ort.InferenceSession.create(process.argv[2]);
  const answers = [];
  for (const { base64, height, width } of JSON.parse(fs.readFileSync(0))) {
    const pixels = new Uint8Array(Buffer.from(base64, "base64"));
    answers.push(Array.from(await classify(session, pixels, height, width)));
  }
  console.log(JSON.stringify(answers));
}
main();
"""


def _metadata(**changes: Any) -> Metadata:
    return dataclasses.replace(read_onnx(MODEL).metadata, **changes)


def _write(metadata: Metadata, *formats: str, failed: str = "") -> str:
    paths = {"onnx": "model.onnx", "onnx-int8": "model-int8.onnx", "savedmodel": "saved_model"}
    artifacts = [
        {
            "format": name,
            "path": paths[name],
            "bytes": 1_234_567,
            "sha256": store.sha256_file(MODEL),
            "passed": name != failed,
        }
        for name in formats
    ]
    figures = {
        "val_accuracy": 0.9,
        "val_accuracy_interval": (0.8, 0.95),
        "max_abs_diff": 4.2e-6,
        "pixels_max_abs_diff": 0.0,
    }
    parities = [Parity(format=name, checks=(), figures=figures) for name in formats]
    return write_readme(metadata, artifacts, parities)


def _program(language: str, metadata: Metadata | None = None) -> str:
    """Return the one block of a language."""
    text = _write(metadata or _metadata(), "onnx")
    (program,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(program)


def _run(*words: object, cwd: Path, **options: Any) -> str:
    """Return what a program prints; fail if it fails."""
    command = [str(word) for word in words]
    result = subprocess.run(command, cwd=cwd, capture_output=True, check=False, **options)
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    return bytes(result.stdout).decode("utf-8")


def _draw(height: int, width: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def _save_ppms(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Write a binary PPM of each class, and return file name -> the model's probabilities."""
    answers: dict[str, NDArray[np.float32]] = {}
    for index in range(3):
        pixels = _draw(61, 47) // 2
        pixels[:, :, index] += 100
        Image.fromarray(pixels).save(folder / f"{index}.ppm")
        answers[f"{index}.ppm"] = Classifier(MODEL)([pixels])[0]
    assert [int(each.argmax()) for each in answers.values()] == [0, 1, 2]
    return answers


def _check_line(line: str, names: tuple[str, ...], probabilities: NDArray[np.float32]) -> None:
    label, probability = line.removesuffix("\n").split("\t")
    assert label == names[int(probabilities.argmax())]
    # Six digits are printed.
    assert float(probability) == pytest.approx(float(probabilities.max()), abs=2e-6)


def _pictures(folder: Path) -> list[Path]:
    """Return files of every kind that the rule has a word for."""
    pixels = _draw(40, 33)
    alpha = np.dstack([pixels, pixels[:, :, 0]])
    levels = _draw(40, 33)[:, :, 0].astype(np.uint16) * 256 + 200
    drawn = {
        "gray.png": Image.fromarray(pixels[:, :, 1]),
        "palette.gif": Image.fromarray(pixels).quantize(20),
        "rgba.png": Image.fromarray(alpha),
        "rgba.webp": Image.fromarray(alpha),
        "sixteen.png": Image.fromarray(levels),
        "small.bmp": Image.fromarray(pixels[:16, :16]),
    }
    for name, image in drawn.items():
        image.save(folder / name)
    turned = Image.Exif()
    turned[0x0112] = 6
    upside_down = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="3"/></x:xmpmeta>'
    Image.fromarray(pixels).save(folder / "exif.png", exif=turned)
    Image.fromarray(pixels).save(folder / "xmp.jpg", xmp=upside_down)
    return [*sorted(folder.iterdir()), *sorted(GOLDEN.glob("wave*"))]


def test_python_program_answers_as_the_classifier(tmp_path: Path) -> None:
    """It follows the whole rule for files, with NumPy, onnxruntime and Pillow alone."""
    (tmp_path / "pictures").mkdir()
    files = _pictures(tmp_path / "pictures")
    program = _program("python")
    proof = """
imported = {name.partition(".")[0] for name in sys.modules}
if imported & {"mnv2tl", "mnv2tl_export", "click", "keras", "onnx", "rich"}:
    raise SystemExit(f"imported {sorted(imported)}")
"""
    (tmp_path / "classify.py").write_text(program + proof)

    # Isolated: neither this project's folder nor PYTHONPATH is looked at.
    words = [sys.executable, "-I", "-W", "error", "classify.py", MODEL, *files]
    lines = _run(*words, cwd=tmp_path).splitlines()

    assert len(lines) == len(files)
    classify = Classifier(MODEL)
    for line, probabilities in zip(lines, classify(files), strict=True):
        _check_line(line, classify.class_names, probabilities)


@needs_node
def test_javascript_program_answers_as_the_classifier(tmp_path: Path) -> None:
    """The names in it are those of the model, whatever characters they have."""
    answers = _save_ppms(tmp_path)
    (tmp_path / "classify.js").write_text(_program("javascript", _metadata(class_names=ODD_NAMES)))

    for file, probabilities in answers.items():
        line = _run("node", "classify.js", MODEL, file, cwd=tmp_path, env=_node_environment())

        _check_line(line, ODD_NAMES, probabilities)


@needs_node
def test_onnxruntime_node_reads_the_file_alike(tmp_path: Path) -> None:
    """Equal pixels give equal probabilities, those that the graph resizes too."""
    (tmp_path / "classify.js").write_text(_program("javascript"))
    (tmp_path / "ask.js").write_text(_ASK_NODE)
    pictures = [_draw(*sides) for sides in ((16, 16), (1, 1), (7, 90), (16, 15), (240, 320))]
    cases = [
        {
            "base64": base64.b64encode(pixels.tobytes()).decode("ascii"),
            "height": pixels.shape[0],
            "width": pixels.shape[1],
        }
        for pixels in pictures
    ]

    stdin = json.dumps(cases).encode()
    text = _run("node", "ask.js", MODEL, cwd=tmp_path, env=_node_environment(), input=stdin)

    expected = Classifier(MODEL)(pictures)
    np.testing.assert_allclose(json.loads(text), expected, rtol=0, atol=1e-5)


def _node_environment() -> dict[str, str]:
    return os.environ | {"NODE_PATH": str(Path(NODE_FOLDER or "", "node_modules").resolve())}


@needs_cpp
def test_cpp_program_answers_as_the_classifier(tmp_path: Path) -> None:
    """It compiles without a warning, and prints the names in UTF-8."""
    answers = _save_ppms(tmp_path)
    (tmp_path / "classify.cpp").write_text(_program("cpp", _metadata(class_names=ODD_NAMES)))
    root = Path(CPP_FOLDER or "").resolve()
    # -isystem, since onnxruntime's own headers may warn.
    words = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", root / "include"]
    words += ["classify.cpp", "-L", root / "lib", "-lonnxruntime", "-o", "classify"]
    _run(*words, cwd=tmp_path)

    environment = os.environ | {"LD_LIBRARY_PATH": str(root / "lib")}
    for file, probabilities in answers.items():
        line = _run("./classify", MODEL, file, cwd=tmp_path, env=environment)

        _check_line(line, ODD_NAMES, probabilities)


@pytest.mark.parametrize("language", ["python", "javascript", "cpp", "csharp"])
def test_programs_are_short(language: str) -> None:
    """Whoever copies one can read it."""
    lines = _program(language).splitlines()

    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100


def test_odd_class_names_are_shown_as_they_are() -> None:
    """A Markdown parser gives the names back, in a table that has nothing else."""
    markdown_it = pytest.importorskip("markdown_it")
    text = _write(_metadata(class_names=ODD_NAMES), "onnx", "onnx-int8", "savedmodel")

    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text)

    shown = [each for each in tokens if each.type == "inline"][-2 * len(ODD_NAMES) :]
    assert {part.type for each in shown for part in each.children} == {"text"}
    names = ["".join(part.content for part in each.children) for each in shown[1::2]]
    assert names == [ODD_NAMES[0].replace("\n", "\\n"), ODD_NAMES[1], ODD_NAMES[2].strip()]
    languages = [each.info for each in tokens if each.type == "fence"]
    assert languages == ["sh", "python", "javascript", "cpp", "csharp"]


def test_names_are_escaped_where_it_is_needed() -> None:
    """Usual names stay readable in the source."""
    assert escape_markdown("guinea-pig (young), 50 %") == "guinea-pig (young), 50 %"
    assert escape_markdown("a_b|c\u202e") == r"a\_b\|c\\u202e"


def test_readme_says_what_a_deployer_needs() -> None:
    """Signature, sizes, hashes, accuracy, temperature, licence and versions, filled in."""
    weights = {"name": "some-weights", "sha256": "0" * 64, "licence": "CC-BY 4.0"}
    versions = {"onnxruntime": "1.30.0", "python": "3.11.1"}

    text = _write(_metadata(base_weights=weights, versions=versions), "onnx")

    words = (
        *("(N, height, width, 3)", "(N, 3)", "16 x 16", "divided by 2,", "1,234,567", "4e-06"),
        *(f"{store.sha256_file(MODEL)}  model.onnx", "mnv2tl selftest model.onnx"),
        *("75.0 % (95 % interval 50.0 to 90.0 %), of 8 pictures", "90.0 % (95 % interval"),
        *("some-weights", "CC-BY 4\\.0", "onnxruntime 1.30.0, python 3.11.1"),
    )
    assert [word for word in words if word not in text] == []
    assert "@@" not in text
    assert "<!--" not in text
    assert "VNNI" not in text
    assert "SavedModel" not in text


def test_readme_speaks_of_what_was_published() -> None:
    """A format that failed is not in the bundle; a SavedModel is no file for onnxruntime."""
    every = _write(_metadata(temperature=None), "onnx", "onnx-int8", "savedmodel")
    without = _write(_metadata(), "onnx", "onnx-int8", "savedmodel", failed="onnx-int8")
    only = _write(_metadata(), "savedmodel")

    assert "not calibrated" in every
    assert "VNNI" in every
    assert "--model_base_path" in every
    assert "VNNI" not in without
    assert "model-int8.onnx" not in without
    assert "--model_base_path" in without
    assert "onnx" not in only
    assert "bundle.json" in only


def test_rule_in_the_readme_is_the_rule_in_force() -> None:
    """Whoever changes the rule for files changes the README, then this number."""
    assert images.PREPROCESSING["rule_version"] == 1
