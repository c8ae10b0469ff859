from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx import TensorProto, helper, numpy_helper

from mnv2tl.cli import main
from mnv2tl.errors import ArtifactError
from mnv2tl_export.foreign import ForeignClassifier

NAMES = ("red", "green", "blue")


def _write(path: Path, nodes: list[Any], *, classes: int = 3, side: Any = "H") -> Path:
    """Write a model from `x` to `y`, with a constant of 1 in each channel."""
    ones = numpy_helper.from_array(np.full(3, 1 / 50, np.float32), "ones")
    axes = numpy_helper.from_array(np.array([1, 2]), "axes")
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ("N", side, side, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", classes))],
        [ones, axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def _mean_nodes() -> list[Any]:
    return [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        # An operator that no file of ours has.
        helper.make_node("Softsign", ["mean"], ["sign"]),
        helper.make_node("Mul", ["mean", "ones"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["y"]),
    ]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Return one picture per class."""
    paths = []
    for name, colour in zip(NAMES, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True):
        paths.append(tmp_path / f"{name}.png")
        Image.new("RGB", (40, 30), colour).save(paths[-1])
    return paths


def _predict(*words: object) -> Result:
    return CliRunner().invoke(main, ["predict", *(str(word) for word in words)])


def test_row_47_a_file_without_our_metadata_is_refused(
    tmp_path: Path, pictures: list[Path]
) -> None:
    """E411, or E412 where it has an operator that no file of ours has."""
    model = _write(tmp_path / "other.onnx", [n for n in _mean_nodes() if n.op_type != "Softsign"])

    result = _predict(model, *pictures)

    assert result.exit_code == 4
    assert "error[E411 no-metadata]" in result.stderr


@pytest.mark.parametrize("side", ["H", 32])
def test_row_47_class_names_let_it_run_apart(
    tmp_path: Path, pictures: list[Path], side: str | int
) -> None:
    """It answers from another process, and is called foreign."""
    model = _write(tmp_path / "other.onnx", _mean_nodes(), side=side)
    (tmp_path / "names.txt").write_text("red\n\n green \nblue\n", "utf-8")

    result = _predict(model, *pictures, "--classes", tmp_path / "names.txt", "--json")

    assert result.exit_code == 0, result.output
    assert "foreign" in result.stderr
    labels = [json.loads(line)["label"] for line in result.stdout.splitlines()]
    assert labels == list(NAMES)


def test_row_47_another_count_of_names_is_refused(tmp_path: Path, pictures: list[Path]) -> None:
    """The output must have one column per name."""
    model = _write(tmp_path / "other.onnx", _mean_nodes())
    (tmp_path / "names.txt").write_text("red\ngreen\n")

    result = _predict(model, *pictures, "--classes", tmp_path / "names.txt")

    assert result.exit_code == 4
    assert "float32 (N, 2)" in result.stderr
    for content in (b"", b"\n \n", b"\xff\xfe"):
        (tmp_path / "names.txt").write_bytes(content)
        result = _predict(model, *pictures, "--classes", tmp_path / "names.txt")
        assert result.exit_code == 4
        assert "error[E410" in result.stderr


def test_row_48_a_loop_and_external_data_are_refused_without_running(tmp_path: Path) -> None:
    """The file is judged before a process is started."""
    body = helper.make_graph([], "body", [], [])
    node = helper.make_node("Loop", ["x"], ["y"], body=body)
    with pytest.raises(ArtifactError, match="sub-graphs"):
        ForeignClassifier(_write(tmp_path / "loop.onnx", [node]), NAMES)
    model = onnx.load(_write(tmp_path / "external.onnx", _mean_nodes()))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "external.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="external data"):
        ForeignClassifier(tmp_path / "external.onnx", NAMES)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_row_48_a_model_that_asks_for_16_gib_is_refused(tmp_path: Path) -> None:
    """A few bytes that ask for much memory end as E412, and this process does not grow."""
    shape = numpy_helper.from_array(np.array([2**32]), "shape")
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        *_mean_nodes()[:-1],
        helper.make_node("Add", ["scaled", "sum"], ["y"]),
    ]
    model = _write(tmp_path / "bomb.onnx", nodes)

    with pytest.raises(ArtifactError) as caught, ForeignClassifier(model, NAMES) as classify:
        classify([np.zeros((8, 8, 3), np.uint8)])

    assert caught.value.code == "E412"


def test_row_48_a_model_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    """Onnxruntime's own error comes over as one line."""
    nodes = [*_mean_nodes()[:-1], helper.make_node("MatMul", ["scaled", "scaled"], ["y"])]
    model = _write(tmp_path / "wrong.onnx", nodes)

    with (
        pytest.raises(ArtifactError, match="onnxruntime") as caught,
        ForeignClassifier(model, NAMES) as classify,
    ):
        classify([np.zeros((8, 8, 3), np.uint8)] * 2)

    assert caught.value.code == "E412"
