from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import TensorProto, helper
from packaging.version import Version

from mnv2tl.data import images
from mnv2tl.metrics import softmax
from mnv2tl.onnx_graph import GraphWriter
from mnv2tl_export.onnx_candidate import open_candidate
from mnv2tl_export.onnx_file import OPERATORS
from mnv2tl_export.onnx_model import write_model
from mnv2tl_export.onnx_network import walk
from mnv2tl_export.onnx_resize import write_resize
from tests.networks import draw_network

PX = 96
CLASSES = 4
# One pixel, lines, tall and wide, smaller, larger, one side right, both right, whole multiples,
# one more and one less, a video's.
SIZES = [
    *((1, 1), (1, 40), (40, 1), (2, 3), (7, 350), (350, 7), (64, 64), (63, 101), (96, 96)),
    *((96, 50), (50, 96), (192, 192), (288, 96), (480, 640), (641, 479), (120, 112), (900, 33)),
    *((3, 500), (500, 3), (7, 96), (96, 7), (97, 95), (95, 97), (1080, 1920), (1920, 1080)),
]


ARRAYS = draw_network(classes=CLASSES)


def _write(
    arrays: dict[str, NDArray[np.float32]] = ARRAYS,
    *,
    temperature: float | None = 2.0,
    metadata: dict[str, str] | None = None,
) -> bytes:
    return write_model(
        arrays,
        alpha=0.35,
        image_px=PX,
        scaling="symmetric",
        temperature=temperature,
        metadata=metadata or {},
    )


def _write_resize(image_px: int) -> bytes:
    writer = GraphWriter()
    shape = writer.constant("shape", np.array([-1, image_px, image_px, 3], np.int64))
    writer.add("Reshape", [write_resize(writer, "image", image_px), shape], "resized")
    info = helper.make_tensor_value_info
    image = info("image", TensorProto.UINT8, ("N", "H", "W", 3))
    return writer.model([image], info("resized", TensorProto.UINT8, ("N", image_px, image_px, 3)))


def _open(content: bytes) -> Any:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def _run(session: Any, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    return np.asarray(session.run(None, {"image": pixels})[0])


def _draw_pixels(height: int, width: int, *, count: int = 1, seed: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def resize_session() -> Any:
    """Return the resize alone, opened."""
    return _open(_write_resize(PX))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_graph_resizes_as_pillow_does(resize_session: Any, height: int, width: int) -> None:
    """Every level is the same, for any size and for more pictures than one."""
    pixels = _draw_pixels(height, width, count=2)

    resized = _run(resize_session, pixels)

    expected = np.stack([images.resize(each, PX) for each in pixels])
    np.testing.assert_array_equal(resized, expected)


def test_graph_resizes_photographs_of_random_sizes_as_pillow_does(resize_session: Any) -> None:
    """Smooth pictures have more levels that lie between two whole ones than noise has."""
    rng = np.random.default_rng(3)
    for height, width in rng.integers(1, 400, (25, 2)).tolist():
        y, x = np.mgrid[0:height, 0:width]
        pixels = np.stack([x + y, 2 * x, 255 - y], axis=-1).astype(np.uint8)[np.newaxis]

        resized = _run(resize_session, pixels)[0]

        np.testing.assert_array_equal(resized, images.resize(pixels[0], PX))


@pytest.mark.parametrize("image_px", [128, 224])
def test_graph_resizes_to_other_sides(image_px: int) -> None:
    """The side reaches the constants."""
    session = _open(_write_resize(image_px))
    more, less = image_px + 1, image_px - 1
    for height, width in ((image_px, image_px), (480, 641), (50, 70), (7, image_px), (more, less)):
        pixels = _draw_pixels(height, width)

        resized = _run(session, pixels)[0]

        np.testing.assert_array_equal(resized, images.resize(pixels[0], image_px))


def test_reference_runtime_resizes_alike() -> None:
    """ONNX's own evaluator in NumPy reads the same operators the same way."""
    if Version(onnx.__version__) < Version("1.23"):
        pytest.skip("Gather calls a method that arrays have not (onnx/reference/ops/op_gather.py)")
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load_from_string(_write_resize(PX)))
    for height, width in ((96, 96), (64, 64), (200, 131), (1, 1)):
        pixels = _draw_pixels(height, width)

        resized = evaluator.run(None, {"image": pixels})[0][0]

        np.testing.assert_array_equal(resized, images.resize(pixels[0], PX))


def _open_in_openvino(content: bytes) -> Any:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    # Importing OpenVINO sends usage data to its maker unless this package is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()
    model = core.read_model(content)
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def test_openvino_resizes_alike() -> None:
    """OpenVINO ignores the antialias of ONNX's own Resize; these operators it computes rightly."""
    compiled = _open_in_openvino(_write_resize(PX))
    for height, width in ((96, 96), (64, 64), (200, 131), (480, 640), (96, 7), (500, 3), (1, 1)):
        pixels = _draw_pixels(height, width)

        resized = compiled([pixels])[0][0]

        np.testing.assert_array_equal(resized, images.resize(pixels[0], PX))


def test_openvino_answers_alike_in_any_order_of_sizes() -> None:
    """Batches that grow, shrink, need a resize or none leave nothing behind for the next one."""
    compiled, session = _open_in_openvino(_write()), _open(_write())
    rng = np.random.default_rng(5)
    for step in range(40):
        height, width = (PX, PX) if step % 5 in (0, 3) else rng.integers(1, 200, 2)
        pixels = _draw_pixels(int(height), int(width), count=int(rng.integers(1, 6)))

        answers = compiled([pixels])[0]

        np.testing.assert_allclose(answers, _run(session, pixels), atol=1e-5)


def test_model_has_the_promised_signature() -> None:
    """Names, types and named axes are what every client relies on."""
    session = _open(_write())

    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["N", "H", "W", 3])
    assert (output.name, output.type) == ("probabilities", "tensor(float)")
    assert output.shape == ["N", CLASSES]


def test_model_is_one_file_for_older_runtimes() -> None:
    """Opset and IR version stay where two-year-old runtimes are; all numbers are in the file."""
    model = onnx.load_from_string(_write())

    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert not any(each.external_data for each in model.graph.initializer)
    operators = Counter(node.op_type for node in walk(model.graph.node))
    assert operators["Loop"] == 1  # the resize
    assert not {"If", "Scan", "Resize"} & set(operators)


@pytest.mark.parametrize("temperature", [None, 0.5, 3.0])
def test_temperature_is_in_the_graph(temperature: float | None) -> None:
    """Probabilities are softmax(logits / T), and without T plain softmax; rows sum to 1."""
    candidate = open_candidate(_write(temperature=temperature, metadata=_metadata()))
    pixels = _draw_pixels(PX, PX, count=3)
    assert candidate.logits is not None

    probabilities = candidate.predict(pixels)

    expected = softmax(candidate.logits(pixels), temperature=temperature or 1.0)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 17])
def test_batches_of_any_size_answer_alike(count: int) -> None:
    """Each picture's answer does not depend on its neighbours."""
    session = _open(_write())
    pixels = _draw_pixels(64, 80, count=count)

    together = _run(session, pixels)

    alone = np.concatenate([_run(session, pixels[i : i + 1]) for i in range(count)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_model_answers_for_any_size_as_for_resized_pixels(height: int, width: int) -> None:
    """The resize inside the graph stands for the one before it."""
    session = _open(_write())
    pixels = _draw_pixels(height, width)

    direct = _run(session, pixels)

    resized = images.resize(pixels[0], PX)[np.newaxis]
    np.testing.assert_allclose(direct, _run(session, resized), atol=1e-6)


def test_equal_weights_give_equal_bytes() -> None:
    """Nothing of time, order or chance is in the file."""
    turned = dict(reversed(ARRAYS.items()))
    metadata = {"b": "2", "a": "1"}

    first = _write(metadata=metadata)

    assert _write(turned, metadata=dict(reversed(metadata.items()))) == first
    assert _write(metadata={"a": "1", "b": "3"}) != first


def test_other_weights_change_constants_only() -> None:
    """Two trainings give graphs that are equal but for their weights."""
    models = [
        onnx.load_from_string(_write(draw_network(classes=CLASSES, seed=seed))) for seed in (1, 2)
    ]

    first, second = (model.graph for model in models)
    assert list(first.node) == list(second.node)
    names = [[(each.name, list(each.dims)) for each in g.initializer] for g in (first, second)]
    assert names[0] == names[1]


def _metadata() -> dict[str, str]:
    from mnv2tl_export.metadata import Metadata

    return Metadata(
        class_names=("a", "b", "c", "d"),
        image_px=PX,
        preprocessing={},
        temperature=2.0,
        run={},
        base_weights={},
        val_accuracy={},
        versions={},
        selftest={"png": "", "probabilities": [0.25] * 4, "tolerance": 1e-4},
        artifact={"format": "onnx", "via": "native"},
    ).to_texts()


def test_every_operator_may_be_loaded() -> None:
    """What predict allows covers what the writer uses."""
    model = onnx.load_from_string(_write())

    assert {node.op_type for node in walk(model.graph.node)} <= OPERATORS


def test_every_tensor_has_a_name_of_its_own() -> None:
    """ONNX wants those inside of a loop to differ from those around it; its checker misses some."""
    model = onnx.load_from_string(_write())

    made = [name for node in walk(model.graph.node) for name in node.output]
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    made += [each.name for each in (*model.graph.initializer, *loop.attribute[0].g.input)]
    assert len(set(made)) == len(made)


def test_resize_refuses_sides_that_are_no_whole_blocks() -> None:
    """No weights exist for such a side; the graph would be wrong."""
    with pytest.raises(ValueError, match="multiple of 16, got 100"):
        _write_resize(100)
