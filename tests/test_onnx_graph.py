from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl.mobilenet import Layer, cut_at, list_layers
from tests.networks import draw_arrays

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mnv2tl import onnx_graph  # noqa: E402  needs onnx

LAYERS = list_layers(alpha=0.35, image_px=96)
NAMES = [layer.name for layer in LAYERS]

# Where a trunk may end: after each kind of layer, inside and outside of blocks, at every stride.
ENDS = [
    *("Conv1", "bn_Conv1", "Conv1_relu", "expanded_conv_depthwise", "expanded_conv_project_BN"),
    *("block_1_expand_relu", "block_1_depthwise", "block_1_depthwise_BN", "block_2_add"),
    *("block_6_project", "block_12_add", "block_13_expand", "block_14_add", "block_16_project_BN"),
    *("Conv_1", "Conv_1_bn", "out_relu", "global_average_pooling2d"),
]


ARRAYS = draw_arrays(LAYERS)


def _draw_pixels(count: int, image_px: int = 96) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, image_px, image_px, 3), np.uint8)


def _run(content: bytes, inputs: NDArray[Any], name: str = "image") -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {name: inputs})[0])


def _up_to(name: str, layers: Sequence[Layer] = LAYERS) -> Sequence[Layer]:
    return layers[: [layer.name for layer in layers].index(name) + 1]


@pytest.fixture(scope="module")
def answers_of_keras() -> dict[str, NDArray[np.float32]]:
    """Return what Keras gives for five pictures after each of `ENDS`, from one model."""
    keras = pytest.importorskip("keras")
    from mnv2tl.keras_model import build_trunk, set_arrays

    trunk = build_trunk(LAYERS, scaling="symmetric", image_px=96)
    set_arrays(trunk, ARRAYS)
    outputs = [trunk.get_layer(name).output for name in ENDS]
    model = keras.Model(trunk.input, outputs)
    found = model.predict_on_batch(_draw_pixels(5))
    return {
        name: np.asarray(keras.ops.convert_to_numpy(output))
        for name, output in zip(ENDS, found, strict=True)
    }


def _assert_near(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    # Random weights enlarge the order of float32 sums; a wrong edge or statistic gives 0.1.
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("end", ENDS)
def test_trunk_equals_keras_wherever_it_ends(
    end: str, answers_of_keras: dict[str, NDArray[np.float32]]
) -> None:
    """Folded BatchNorm and padding give what the layers give, for batches of 1, 2 and 5."""
    content = onnx_graph.write_trunk(_up_to(end), ARRAYS, scaling="symmetric")
    pixels, expected = _draw_pixels(5), answers_of_keras[end]

    for count in (1, 2, 5):
        features = _run(content, pixels[:count])

        assert features.dtype == np.float32
        assert features.shape == expected[:count].shape
        _assert_near(features, expected[:count])
    assert expected.std() > 0.01


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("alpha", "image_px", "scaling"), [(0.5, 128, "unit"), (1.4, 96, "symmetric")]
)
def test_trunk_equals_keras_at_other_widths_and_sizes(
    alpha: float, image_px: int, scaling: str
) -> None:
    """Width, size and scaling reach the graph; the first five blocks have all kinds of layers."""
    keras = pytest.importorskip("keras")
    from mnv2tl.keras_model import build_trunk, set_arrays

    layers = _up_to("block_4_add", list_layers(alpha=alpha, image_px=image_px))
    arrays, pixels = draw_arrays(layers), _draw_pixels(2, image_px)
    model = build_trunk(layers, scaling=scaling, image_px=image_px)
    set_arrays(model, arrays)

    features = _run(onnx_graph.write_trunk(layers, arrays, scaling=scaling), pixels)

    _assert_near(features, np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(pixels))))


@pytest.mark.parametrize("trainable_layers", [0, 1, 4, 20, 35, 97, 124, 142, 153])
def test_every_kind_of_cut_gives_a_checked_graph(trainable_layers: int) -> None:
    """The graph passes the checker with shape inference; names and shapes are the promised ones."""
    layers = LAYERS[: cut_at(LAYERS, trainable_layers)]

    content = onnx_graph.write_trunk(layers, ARRAYS, scaling="symmetric")

    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (image,), (features,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["n", 96, 96, 3])
    assert (features.name, features.type) == ("features", "tensor(float)")
    assert features.shape == ["n", *layers[-1].output_shape]


def test_graph_has_one_node_per_convolution_activation_and_sum() -> None:
    """No BatchNorm, no Pad, nothing that a compiler would have to find and fold."""
    model = onnx.load_from_string(onnx_graph.write_trunk(LAYERS, ARRAYS, scaling="symmetric"))

    counts = Counter(node.op_type for node in model.graph.node)
    kinds = Counter(layer.kind for layer in LAYERS)
    assert counts == {
        "Conv": kinds["conv"] + kinds["depthwise"],
        "Clip": kinds["relu6"],
        "Add": kinds["add"],
        **dict.fromkeys(("Reshape", "Cast", "Sub"), 1),  # pixels
        **dict.fromkeys(("GlobalAveragePool", "Flatten", "Identity"), 1),
    }
    assert sum(counts.values()) <= 110


def test_graph_loads_in_an_older_runtime() -> None:
    """The versions that the file asks for stay where two-year-old runtimes are."""
    model = onnx.load_from_string(onnx_graph.write_trunk(LAYERS[:5], ARRAYS, scaling="unit"))

    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert not any(each.external_data for each in model.graph.initializer)


def test_equal_weights_give_equal_bytes() -> None:
    """The trunk's hash is part of the cache's keys, so the order of arrays must not matter."""
    first = onnx_graph.write_trunk(LAYERS, ARRAYS, scaling="symmetric")
    turned = dict(reversed(ARRAYS.items()))
    changed = ARRAYS | {"Conv1/kernel": np.nextafter(ARRAYS["Conv1/kernel"], np.float32(9))}

    assert onnx_graph.write_trunk(LAYERS, turned, scaling="symmetric") == first
    assert onnx_graph.write_trunk(LAYERS, changed, scaling="symmetric") != first
    assert onnx_graph.write_trunk(LAYERS, ARRAYS, scaling="unit") != first


@pytest.mark.parametrize(("scaling", "low", "high"), [("symmetric", -1.0, 1.0), ("unit", 0.0, 1.0)])
def test_scaling_maps_the_ends_of_the_pixel_range(scaling: str, low: float, high: float) -> None:
    """The first convolution with a kernel of ones in its middle gives the sum of scaled pixels."""
    layers = _up_to("Conv1")
    kernel = np.zeros((3, 3, 3, 16), np.float32)
    kernel[1, 1, 0] = 1
    pixels = np.stack([np.zeros((96, 96, 3), np.uint8), np.full((96, 96, 3), 255, np.uint8)])

    content = onnx_graph.write_trunk(layers, {"Conv1/kernel": kernel}, scaling=scaling)
    features = _run(content, pixels)

    np.testing.assert_allclose(features[0], low, atol=1e-6)
    np.testing.assert_allclose(features[1], high, atol=1e-6)


def _write_head(layers: Sequence[Layer]) -> bytes:
    """Return a graph of last layers that reads (n, channels, h, w)."""
    first = layers[0]
    side = LAYERS[NAMES.index(first.name) - 1].px
    writer = onnx_graph.GraphWriter()
    last = onnx_graph.write_layers(writer, layers, ARRAYS, "start")
    writer.add("Identity", [last], "end")
    info = onnx.helper.make_tensor_value_info
    shape = ("n", first.in_channels, side, side)
    start = info("start", onnx.TensorProto.FLOAT, shape)
    end = info("end", onnx.TensorProto.FLOAT, ("n", *layers[-1].output_shape))
    return writer.model([start], end)


def test_batch_norm_at_the_start_of_a_cut_is_written_out() -> None:
    """Its convolution lies before the cut, so there is nothing to fold it into."""
    content = _write_head(LAYERS[NAMES.index("Conv_1_bn") :])
    features = np.random.default_rng(3).normal(0, 2, (2, 1280, 3, 3)).astype(np.float32)

    pooled = _run(content, features, "start")

    gamma, beta, mean, variance = (
        ARRAYS[f"Conv_1_bn/{part}"].astype(np.float64).reshape(-1, 1, 1)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    normal = gamma * (features - mean) / np.sqrt(variance + 1e-3) + beta
    expected = np.clip(normal, 0, 6).mean(axis=(2, 3))
    np.testing.assert_allclose(pooled, expected, atol=1e-5)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("first", ["block_13_pad", "block_16_depthwise_BN", "Conv_1", "out_relu"])
def test_head_continues_where_the_trunk_ends(
    first: str, answers_of_keras: dict[str, NDArray[np.float32]]
) -> None:
    """Two graphs of one network, cut anywhere, give what the whole one gives."""
    number = NAMES.index(first)
    pixels = _draw_pixels(5)
    trunk = onnx_graph.write_trunk(LAYERS[:number], ARRAYS, scaling="symmetric")

    features = _run(trunk, pixels)
    pooled = _run(_write_head(LAYERS[number:]), features.transpose(0, 3, 1, 2), "start")

    _assert_near(pooled, answers_of_keras["global_average_pooling2d"])
