from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl.mobilenet import list_layers

jax = pytest.importorskip("jax")
keras = pytest.importorskip("keras")

if keras.backend.backend() != "jax":
    pytest.skip("needs Keras on JAX", allow_module_level=True)

from mnv2tl import checkpoint, jax_layers, keras_model  # noqa: E402  need Keras on JAX

# Sums of up to 9 x 56 x 56 float32 products in another order: a few units in the last place.
TOLERANCE = 3e-6

LAYERS = list_layers(alpha=0.35, image_px=96)


def _draw(*shape: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _outcome(
    layer: Any, pixels: NDArray[np.float32], kernel: NDArray[np.float32]
) -> tuple[Any, Any, Any]:
    """Return output, and the gradients by pixels and kernel of its product with fixed numbers."""
    layer.build(pixels.shape)

    def compute(pixels: Any, kernel: Any) -> Any:
        return layer.stateless_call([kernel], [], pixels)[0]

    output, transpose = jax.vjp(compute, pixels, kernel)
    return output, *transpose(_draw(*output.shape, seed=3))


def _assert_same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    for each, other in zip(found, expected, strict=True):
        assert each.shape == other.shape
        assert np.abs(each - other).max() <= TOLERANCE * np.abs(other).max()


@pytest.mark.parametrize(
    ("px", "stride", "padding"),
    [
        (1, 1, "same"),
        (7, 1, "same"),
        (8, 1, "same"),
        (11, 1, "valid"),
        (56, 1, "same"),
        (9, 2, "valid"),
        (10, 2, "valid"),
        (15, 2, "valid"),
        (113, 2, "valid"),
        (16, 3, "valid"),
    ],
)
def test_depthwise_equals_the_stock_layer(px: int, stride: int, padding: str) -> None:
    """Output and both gradients, on every size and stride of the network and on odd ones."""
    pixels, kernel = _draw(2, px, px, 4, seed=1), _draw(3, 3, 4, 1, seed=2)
    options = {"strides": stride, "padding": padding, "use_bias": False}

    found = _outcome(jax_layers.ShiftedDepthwise(3, **options), pixels, kernel)

    _assert_same(found, _outcome(keras.layers.DepthwiseConv2D(3, **options), pixels, kernel))


@pytest.mark.parametrize(("side", "stride"), [(1, 1), (2, 1), (2, 2), (5, 1), (5, 2)])
def test_depthwise_takes_other_kernels(side: int, stride: int) -> None:
    """The gradient's bookkeeping holds for kernels that MobileNetV2 does not have."""
    pixels, kernel = _draw(2, 12, 12, 4, seed=1), _draw(side, side, 4, 1, seed=2)
    options = {"strides": stride, "padding": "valid", "use_bias": False}

    found = _outcome(jax_layers.ShiftedDepthwise(side, **options), pixels, kernel)

    _assert_same(found, _outcome(keras.layers.DepthwiseConv2D(side, **options), pixels, kernel))


def test_depthwise_equals_the_stock_layer_on_oblong_pixels() -> None:
    """Height and width are not mixed up."""
    pixels, kernel = _draw(1, 9, 15, 4, seed=1), _draw(3, 3, 4, 1, seed=2)
    options = {"strides": 2, "padding": "valid", "use_bias": False}

    found = _outcome(jax_layers.ShiftedDepthwise(3, **options), pixels, kernel)

    _assert_same(found, _outcome(keras.layers.DepthwiseConv2D(3, **options), pixels, kernel))


def test_pointwise_equals_the_stock_layer() -> None:
    """Output and both gradients."""
    pixels, kernel = _draw(2, 7, 9, 4, seed=1), _draw(1, 1, 4, 6, seed=2)

    found = _outcome(jax_layers.PointwiseConv(6, 1, use_bias=False), pixels, kernel)

    _assert_same(found, _outcome(keras.layers.Conv2D(6, 1, use_bias=False), pixels, kernel))


@pytest.mark.parametrize(
    ("height", "width", "side", "stride"),
    [(8, 8, 3, 2), (10, 14, 3, 2), (9, 7, 3, 2), (9, 8, 3, 1), (11, 10, 5, 3), (6, 7, 2, 3)],
)
def test_gathered_equals_the_stock_layer(height: int, width: int, side: int, stride: int) -> None:
    """Output and both gradients; on odd sizes the padding lies on both sides."""
    pixels, kernel = _draw(2, height, width, 3, seed=1), _draw(side, side, 3, 4, seed=2)
    options = {"strides": stride, "padding": "same", "use_bias": False}

    found = _outcome(jax_layers.GatheredConv(4, side, **options), pixels, kernel)

    _assert_same(found, _outcome(keras.layers.Conv2D(4, side, **options), pixels, kernel))


def _normalise(kind: Any, pixels: NDArray[np.float32], *, training: bool, **options: Any) -> Any:
    """Return moving values after a step, output, and gradients by pixels, gamma and beta."""
    layer = kind(epsilon=1e-3, momentum=0.9, **options)
    layer.build(pixels.shape)
    channels = pixels.shape[-1]
    scale = np.linspace(0.5, 2, channels, dtype=np.float32)
    shift, mean = _draw(channels, seed=7), _draw(channels, seed=8)
    trainable = len(layer.trainable_variables)

    def compute(pixels: Any, gamma: Any, beta: Any) -> Any:
        values = [gamma, beta, mean, scale]
        return layer.stateless_call(
            values[:trainable], values[trainable:], pixels, training=training
        )

    output, transpose, moving = jax.vjp(compute, pixels, scale, shift, has_aux=True)
    return *moving[-2:], output, *transpose(_draw(*output.shape, seed=3))


@pytest.mark.parametrize("shape", [(4, 7, 7, 5), (2, 16, 8, 3), (1, 11, 3, 1), (3, 1, 1, 4)])
def test_batch_norm_trains_as_the_stock_layer(shape: tuple[int, ...]) -> None:
    """Moving values, output and all gradients, of pixels that are far from zero."""
    pixels = 3 + 2 * _draw(*shape, seed=1)

    found = _normalise(jax_layers.SummedBatchNorm, pixels, training=True)

    _assert_near(found, _normalise(keras.layers.BatchNormalization, pixels, training=True))


def test_batch_norm_sums_bfloat16_in_float32() -> None:
    """Sums of 8 bits would be wrong: what remains is the rounding of pixels and outputs."""
    pixels, gradient = 3 + 2 * _draw(4, 64, 64, 5, seed=1), _draw(4, 64, 64, 5, seed=3)
    scale, shift = np.linspace(0.5, 2, 5, dtype=np.float32), _draw(5, seed=7)

    def differentiate(dtype: Any) -> tuple[Any, ...]:
        outputs, transpose = jax.vjp(
            lambda *values: jax_layers.normalise_batch(*values, 1e-3)[0],
            pixels.astype(dtype),
            scale,
            shift,
        )
        return outputs, *transpose(gradient.astype(dtype))

    found, expected = differentiate(jax.numpy.bfloat16), differentiate(np.float32)

    assert [str(each.dtype) for each in found] == ["bfloat16", "bfloat16", "float32", "float32"]
    for each, other in zip(found, expected, strict=True):
        # Eight bits of a pixel, of an output; 16,384 of them are summed.
        assert np.abs(each.astype(np.float32) - other).max() <= 2**-7 * np.abs(other).max()


@pytest.mark.parametrize(("training", "trainable"), [(False, True), (True, False), (False, False)])
def test_batch_norm_without_training_is_the_stock_layer(training: bool, trainable: bool) -> None:
    """A frozen layer, and one that predicts, takes its moving values and leaves them."""
    pixels = _draw(2, 5, 5, 4, seed=1)
    options = {"training": training, "trainable": trainable}

    found = _normalise(jax_layers.SummedBatchNorm, pixels, **options)

    _assert_same(found, _normalise(keras.layers.BatchNormalization, pixels, **options))


def _assert_near(found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    # A gradient by pixels is what is left of sums that nearly cancel.
    for each, other in zip(found, expected, strict=True):
        assert each.shape == other.shape
        assert np.abs(each - other).max() <= 1e-5 * max(np.abs(other).max(), 1)


def _build_whole(*, to_save: bool) -> Any:
    model = keras_model.build_model(
        LAYERS,
        classes=3,
        input_shape=(96, 96, 3),
        scaling="symmetric",
        activation=None,
        to_save=to_save,
    )
    rng = np.random.default_rng(4)
    arrays = {}
    for key, array in sorted(keras_model.get_arrays(model).items()):
        is_scale = key.endswith(("/gamma", "/moving_variance"))
        fan_in = array.size // array.shape[2 if "depthwise/" in key else -1]
        scale, noise = rng.uniform(0.5, 1.5, array.shape), rng.normal(0, 1, array.shape)
        arrays[key] = (scale if is_scale else noise * fan_in**-0.5).astype(np.float32)
    keras_model.set_arrays(model, arrays)
    return model


@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="stock layers are taken on a GPU")
def test_whole_network_answers_and_learns_as_stock_layers_do() -> None:
    """Logits and weights after a step of gradient descent, BatchNorm trained."""
    stock, fast = _build_whole(to_save=True), _build_whole(to_save=False)
    pixels = np.random.default_rng(5).uniform(0, 255, (4, 96, 96, 3)).astype(np.float32)
    logits = [np.asarray(model.predict_on_batch(pixels)) for model in (stock, fast)]
    for model in (stock, fast):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01), loss)
        model.train_on_batch(pixels, np.array([0, 1, 2, 0]))
    after, found = keras_model.get_arrays(stock), keras_model.get_arrays(fast)

    assert isinstance(fast.get_layer("block_1_depthwise"), jax_layers.ShiftedDepthwise)
    assert isinstance(fast.get_layer("Conv_1"), jax_layers.PointwiseConv)
    assert isinstance(fast.get_layer("Conv1"), jax_layers.GatheredConv)
    assert isinstance(fast.get_layer("Conv_1_bn"), jax_layers.SummedBatchNorm)
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=2e-5 * np.abs(logits[0]).max())
    assert found.keys() == after.keys()
    # 52 BatchNorms over 4 images amplify rounding on the way back.
    for key, array in after.items():
        np.testing.assert_allclose(found[key], array, rtol=0, atol=1e-3 * np.abs(array).max())


def test_saved_model_holds_stock_layers(tmp_path: Path) -> None:
    """Neither our layers nor our initial values are named in the file, and Keras opens it."""
    model = _build_whole(to_save=True)
    path = tmp_path / "best.keras"

    checkpoint.write_keras(model, path)

    with zipfile.ZipFile(path) as archive:
        text = archive.read("config.json").decode()
    assert "mnv2tl." not in text
    assert "_fill" not in text
    loaded = keras.models.load_model(path)
    assert type(loaded.get_layer("block_1_depthwise")) is keras.layers.DepthwiseConv2D
