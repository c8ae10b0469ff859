from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytest.importorskip("tf2onnx")

import onnx
import tensorflow as tf
import tf2onnx

from mnv2tl.errors import MachineError, ResultError
from mnv2tl_export import golden, onnx_model, tf2onnx_model
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_candidate import open_candidate
from mnv2tl_export.onnx_file import read_onnx
from mnv2tl_export.tf2onnx_model import replace_network
from tests.networks import draw_network

PX = 96
CLASSES = 4
SIZES = [(1, 1), (350, 7), (7, 350), (63, 101), (96, 96), (480, 640)]
Writer = Callable[..., bytes]


ARRAYS = draw_network(classes=CLASSES)
METADATA = Metadata(
    class_names=("a", "b", "c", "d"),
    image_px=PX,
    preprocessing={},
    temperature=2.0,
    run={},
    base_weights={},
    val_accuracy={},
    versions={},
    selftest=golden.describe([0.25] * CLASSES),
    artifact={"format": "onnx", "via": "tf2onnx"},
)


def _write(writer: Writer, *, temperature: float | None = 2.0) -> bytes:
    return writer(
        ARRAYS,
        alpha=0.35,
        image_px=PX,
        scaling="unit",
        temperature=temperature,
        metadata=METADATA.to_texts(),
    )


@pytest.fixture(scope="module")
def native() -> bytes:
    """Return the file that we write ourselves."""
    return _write(onnx_model.write_model)


@pytest.fixture(scope="module")
def converted() -> bytes:
    """Return the file of the other road."""
    return _write(tf2onnx_model.write_model)


def _draw_pixels(height: int, width: int, *, count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, height, width, 3), np.uint8)


def test_both_roads_have_one_signature(native: bytes, converted: bytes) -> None:
    """Names, types, axes, metadata and versions are the same; a client cannot tell them apart."""
    ours, theirs = (onnx.load_from_string(each) for each in (native, converted))

    assert theirs.graph.input == ours.graph.input
    assert theirs.graph.output == ours.graph.output
    assert theirs.metadata_props == ours.metadata_props
    assert theirs.opset_import == ours.opset_import
    assert theirs.ir_version == ours.ir_version
    inside = {name for node in theirs.graph.node for name in node.output}
    assert {onnx_model.LOGITS, onnx_model.RESIZED, onnx_model.OUTPUT} <= inside


def test_network_is_what_tf2onnx_made(native: bytes, converted: bytes) -> None:
    """Only resize, temperature and softmax are ours; pixels are transposed once, at the start."""
    ours, theirs = (onnx.load_from_string(each).graph for each in (native, converted))
    names = {node.name for node in ours.node}

    made = [node for node in theirs.node if node.name not in names]

    operators = [node.op_type for node in made]
    assert operators.count("Conv") == 52
    start = operators.index("Conv")
    assert operators[:start] == ["Reshape", "Cast", "Mul", "Add", "Transpose"]
    assert not {"Transpose", "Resize"} & set(operators[start:])
    assert {node.name for node in theirs.node} - {node.name for node in made} == {
        *(name for name in names if name.startswith("resize/")),
        *("logits", "logits/calibrated", "probabilities"),
    }


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_both_roads_answer_alike(native: bytes, converted: bytes, height: int, width: int) -> None:
    """Two writers that share nothing but the resize agree."""
    pixels = _draw_pixels(height, width, count=3)

    ours, theirs = open_candidate(native), open_candidate(converted)

    np.testing.assert_allclose(theirs.predict(pixels), ours.predict(pixels), atol=1e-5)
    assert ours.logits is not None
    assert theirs.logits is not None
    np.testing.assert_allclose(theirs.logits(pixels), ours.logits(pixels), atol=1e-4)
    np.testing.assert_array_equal(theirs.resize(pixels), ours.resize(pixels))


def test_file_is_one_that_predict_loads(converted: bytes, tmp_path: Path) -> None:
    """Every operator of it is allowed, and it is whole."""
    path = tmp_path / "model.onnx"
    path.write_bytes(converted)

    file = read_onnx(path)

    assert file.metadata == METADATA
    onnx.checker.check_model(onnx.load_from_string(converted), full_check=True)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_equal_weights_give_equal_bytes(
    converted: bytes, monkeypatch: pytest.MonkeyPatch, seed: str
) -> None:
    """tf2onnx counts names in the order of hash tables; that does not reach the file."""
    monkeypatch.setenv("PYTHONHASHSEED", seed)

    assert _write(tf2onnx_model.write_model) == converted


def test_temperature_can_be_left_out(native: bytes, converted: bytes) -> None:
    """The tail is that of the file that the network is put into."""
    plain = _write(onnx_model.write_model, temperature=None)

    model = replace_network(plain, _export(_mean))

    assert not any("calibrated" in node.name for node in onnx.load_from_string(model).graph.node)


def _mean(pixels: Any) -> Any:
    """Compute something of the right shapes: the mean of each channel, and zero."""
    return tf.pad(tf.reduce_mean(pixels, axis=(1, 2)), ((0, 0), (0, 1)))


def _antialias(pixels: Any) -> Any:
    return _mean(tf.image.resize(pixels, (48, 48), antialias=True))


def _export(
    function: Callable[[Any], Any], *, side: int = PX, opset: int = 17, nchw: bool = False
) -> bytes:
    spec = tf.TensorSpec((None, PX, side, 3), tf.float32, name="pixels")
    made = tf.function(function, input_signature=[spec], autograph=False)
    model, _ = tf2onnx.convert.from_function(
        made,
        input_signature=[spec],
        opset=opset,
        inputs_as_nchw=["pixels:0"] if nchw else None,
    )
    content: bytes = model.SerializeToString()
    return content


def _break(content: bytes, change: Callable[[Any], None]) -> bytes:
    model = onnx.load_from_string(content)
    change(model)
    broken: bytes = model.SerializeToString()
    return broken


def _read_unknown(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def _drop_last(model: onnx.ModelProto) -> None:
    del model.graph.node[-1]


WRONG: dict[str, Callable[[], bytes]] = {
    "antialias": lambda: _export(_antialias),
    "other sides": lambda: _export(_mean, side=64),
    "channels first": lambda: _export(_mean, nchw=True),
    "other classes": lambda: _export(lambda pixels: tf.reduce_mean(pixels, axis=(1, 2))),
    "older operators": lambda: _export(_mean, opset=15),
    "unknown input": lambda: _break(_export(_mean), _read_unknown),
    "no end": lambda: _break(_export(_mean), _drop_last),
}


@pytest.mark.parametrize("name", WRONG)
def test_conversion_that_is_silently_wrong_is_caught(native: bytes, name: str) -> None:
    """tf2onnx raises nothing for any of these; what it made is checked before it is taken."""
    network = WRONG[name]()

    with pytest.raises(ResultError, match="tf2onnx") as caught:
        replace_network(native, network)

    assert caught.value.code == "E601"
    assert "--via native" in str(caught.value)


def test_missing_tf2onnx_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which extra brings it."""
    monkeypatch.setitem(sys.modules, "tf2onnx", None)

    with pytest.raises(MachineError, match=r"tf2onnx is not installed.*savedmodel") as caught:
        _write(tf2onnx_model.write_model)

    assert caught.value.code == "E508"
