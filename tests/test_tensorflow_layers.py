from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

if keras.backend.backend() != "tensorflow":
    pytest.skip("needs Keras on TensorFlow", allow_module_level=True)

from mnv2tl.tensorflow_layers import FusedBatchNorm  # noqa: E402  needs Keras on TensorFlow

# A product and a sum in another order: a few units in the last place.
TOLERANCE = 2e-6


def _answer(
    kind: Any, pixels: NDArray[np.float32], *, training: bool, trainable: bool
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Return what a layer with drawn weights answers, and its weights afterwards."""
    layer = kind(epsilon=1e-3, momentum=0.9)
    layer.build(pixels.shape)
    rng = np.random.default_rng(5)
    layer.set_weights([rng.uniform(0.5, 2, w.shape).astype(np.float32) for w in layer.weights])
    layer.trainable = trainable
    answer = keras.ops.convert_to_numpy(layer(pixels, training=training))
    return answer, layer.get_weights()


@pytest.mark.parametrize("shape", [(4, 7, 7, 5), (2, 16, 8, 3), (1, 11, 3, 1), (3, 1, 1, 4)])
@pytest.mark.parametrize("trainable", [False, True])
def test_it_answers_as_the_stock_layer(shape: tuple[int, ...], trainable: bool) -> None:
    """Of pixels that are far from zero."""
    pixels = np.random.default_rng(1).normal(3, 2, shape).astype(np.float32)

    found, after = _answer(FusedBatchNorm, pixels, training=False, trainable=trainable)

    expected, stock = _answer(
        keras.layers.BatchNormalization, pixels, training=False, trainable=trainable
    )
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    for array, other in zip(after, stock, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("trainable", [False, True])
def test_it_trains_as_the_stock_layer(trainable: bool) -> None:
    """Output and moving values, bit by bit; frozen, it keeps its statistics."""
    pixels = np.random.default_rng(2).normal(3, 2, (4, 7, 7, 5)).astype(np.float32)

    found, after = _answer(FusedBatchNorm, pixels, training=True, trainable=trainable)

    expected, stock = _answer(
        keras.layers.BatchNormalization, pixels, training=True, trainable=trainable
    )
    np.testing.assert_array_equal(found, expected)
    for array, other in zip(after, stock, strict=True):
        np.testing.assert_array_equal(array, other)


def test_what_the_operation_does_not_take_is_left_to_keras() -> None:
    """A user of Keras may have set another type for all layers."""
    layer = FusedBatchNorm(dtype="float64")
    pixels = np.random.default_rng(3).normal(size=(1, 2, 2, 3))

    answer = keras.ops.convert_to_numpy(layer(pixels))

    np.testing.assert_allclose(answer, pixels / np.sqrt(1 + layer.epsilon))


def test_its_weights_have_the_names_of_the_stock_layer() -> None:
    """Arrays are set by these names."""
    layers = [FusedBatchNorm(), keras.layers.BatchNormalization()]
    for layer in layers:
        layer.build((1, 2, 2, 3))

    ours, theirs = ([weight.name for weight in layer.weights] for layer in layers)
    assert ours == theirs
