from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl.mobilenet import Layer, array_shapes, cut_at, list_layers
from mnv2tl.preparation import initial_dense
from tests.networks import draw_arrays

keras = pytest.importorskip("keras")

from mnv2tl import keras_model  # noqa: E402  needs Keras

pytestmark = pytest.mark.usefixtures("backend")

LAYERS = list_layers(alpha=0.35, image_px=96)
SHAPE = (96, 96, 3)


def _draw_pixels(count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, *SHAPE), np.uint8)


def _tail(name: str) -> tuple[Layer, ...]:
    """Return the layers from a named one on."""
    return LAYERS[[layer.name for layer in LAYERS].index(name) :]


def _predict(model: Any, inputs: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(inputs)))


def test_model_equals_keras_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    """With equal weights the features are those of Keras' own MobileNetV2."""

    def zeros(self: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras.ops.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)  # saves 15 s on JAX
    peer = keras.applications.MobileNetV2(
        SHAPE, alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    arrays = draw_arrays(LAYERS)
    peer.set_weights(list(arrays.values()))
    model = keras_model.build_model(LAYERS, classes=1280, input_shape=SHAPE, activation=None)
    dense = {
        "predictions/kernel": np.eye(1280, dtype=np.float32),
        "predictions/bias": np.zeros(1280, np.float32),
    }
    keras_model.set_arrays(model, arrays | dense)
    scaled = _draw_pixels() / np.float32(127.5) - 1

    features = _predict(model, scaled)

    assert features.std() > 0.01
    # Random weights enlarge what compilers do to the last bit; photographs stay below.
    np.testing.assert_allclose(features, _predict(peer, scaled), atol=1e-6)


@pytest.mark.parametrize(("scaling", "low", "high"), [("symmetric", -1.0, 1.0), ("unit", 0.0, 1.0)])
def test_scaling_is_the_first_layer(scaling: str, low: float, high: float) -> None:
    """The model reads pixels from 0 to 255, and the scaling's two ends come out of its layer."""
    trunk = keras_model.build_trunk([], scaling=scaling, image_px=96)
    pixels = np.stack([np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)])

    scaled = _predict(trunk, pixels)

    np.testing.assert_allclose(scaled[0], low, atol=1e-6)
    np.testing.assert_allclose(scaled[1], high, atol=1e-6)


def test_model_holds_stock_layers_only() -> None:
    """Keras reads best.keras without this package: no layer of ours, no Lambda."""
    model = keras_model.build_model(
        LAYERS, classes=3, input_shape=SHAPE, scaling="unit", dropout=0.5, seed=1
    )

    layers = model.get_config()["layers"]

    assert {layer["module"] for layer in layers} == {"keras.layers"}
    assert {layer["registered_name"] for layer in layers} == {None}
    assert "Lambda" not in {layer["class_name"] for layer in layers}
    assert [layer.name for layer in model.layers] == [
        *("image", "scaling"),
        *(layer.name for layer in LAYERS),
        *("dropout", "predictions"),
    ]


@pytest.mark.parametrize("first", ["Conv1", "block_16_expand_BN", "Conv_1", "out_relu", None])
def test_arrays_survive_the_way_through_a_model(first: str | None) -> None:
    """What `set_arrays` filled in, `get_arrays` gives back, for every cut and with dropout."""
    layers = _tail(first) if first else ()
    shape = _input_shape(layers)
    model = keras_model.build_model(layers, classes=3, input_shape=shape, dropout=0.5)
    rng = np.random.default_rng(3)
    arrays = draw_arrays(layers) | initial_dense(1280, 3, rng)
    unused = {"Conv9/kernel": np.zeros(1, np.float32)}

    keras_model.set_arrays(model, arrays | unused)

    found = keras_model.get_arrays(model)
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == np.float32


def _input_shape(layers: Sequence[Layer]) -> tuple[int, ...]:
    cut = len(LAYERS) - len(layers)
    return LAYERS[cut - 1].output_shape if cut else SHAPE


def test_get_arrays_gives_copies() -> None:
    """A later step of the optimizer must not change what was already read."""
    model = keras_model.build_model((), classes=2, input_shape=(1280,))
    before = keras_model.get_arrays(model)

    keras_model.set_arrays(model, {key: array + 1 for key, array in before.items()})

    assert not before["predictions/kernel"].any()
    assert keras_model.get_arrays(model)["predictions/kernel"].all()


def test_a_fresh_model_is_all_zero_but_for_batch_norm() -> None:
    """No random initialiser runs; forgetting `set_arrays` gives equal probabilities at once."""
    model = keras_model.build_model(_tail("Conv_1"), classes=4, input_shape=(3, 3, 112))

    arrays = keras_model.get_arrays(model)

    assert not arrays["Conv_1/kernel"].any()
    assert not arrays["predictions/kernel"].any()
    probabilities = _predict(model, np.ones((2, 3, 3, 112), np.float32))
    np.testing.assert_allclose(probabilities, 0.25, rtol=1e-6)


def test_set_arrays_refuses_missing_and_misshapen_arrays() -> None:
    """A head of another class count cannot slip in."""
    model = keras_model.build_model((), classes=2, input_shape=(1280,))
    kernel = np.zeros((1280, 3), np.float32)
    bias = np.zeros(2, np.float32)

    with pytest.raises(KeyError, match="predictions/bias"):
        keras_model.set_arrays(model, {"predictions/kernel": kernel[:, :2]})
    with pytest.raises(ValueError, match=r"\(1280, 3\)"):
        keras_model.set_arrays(model, {"predictions/kernel": kernel, "predictions/bias": bias})


@pytest.mark.parametrize(
    ("batch_norm", "trainable", "expected"),
    [
        ("frozen", ["Conv_1", "Conv_1_bn"], ["Conv_1/kernel"]),
        ("train", ["Conv_1", "Conv_1_bn"], ["Conv_1/kernel", "Conv_1_bn/gamma", "Conv_1_bn/beta"]),
        ("frozen", [], []),
        ("train", ["out_relu"], []),
    ],
)
def test_freeze_trains_the_named_layers_and_the_dense_layer(
    batch_norm: str, trainable: list[str], expected: list[str]
) -> None:
    """BatchNorm trains only where it is named and asked for."""
    model = keras_model.build_model(_tail("Conv_1"), classes=2, input_shape=(3, 3, 112))

    keras_model.freeze(model, trainable, batch_norm=batch_norm)

    names = [
        f"{layer.name}/{weight.name}"
        for layer in model.layers
        for weight in layer.trainable_weights
    ]
    assert names == [*expected, "predictions/kernel", "predictions/bias"]


def test_freeze_takes_back_an_earlier_freeze() -> None:
    """The second phase trains layers that the first one froze."""
    model = keras_model.build_model(_tail("Conv_1"), classes=2, input_shape=(3, 3, 112))

    keras_model.freeze(model, [], batch_norm="train")
    keras_model.freeze(model, ["Conv_1_bn"], batch_norm="train")

    assert [layer.name for layer in model.layers if layer.trainable_weights] == [
        "Conv_1_bn",
        "predictions",
    ]


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_frozen_batch_norm_keeps_its_statistics_in_a_training_step(batch_norm: str) -> None:
    """Otherwise a few steps on few images would overwrite what ImageNet taught."""
    layers = _tail("Conv_1")
    model = keras_model.build_model(layers, classes=2, input_shape=(3, 3, 112))
    arrays = draw_arrays(layers) | initial_dense(1280, 2, np.random.default_rng(0))
    keras_model.set_arrays(model, arrays)
    keras_model.freeze(model, ["Conv_1", "Conv_1_bn"], batch_norm=batch_norm)
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")

    features = np.random.default_rng(4).random((4, 3, 3, 112), np.float32)
    model.train_on_batch(features, np.eye(2, dtype=np.float32)[[0, 1, 0, 1]])

    after = keras_model.get_arrays(model)
    changed = {key for key, array in arrays.items() if not np.array_equal(array, after[key])}
    assert {"Conv_1/kernel", "predictions/kernel"} <= changed
    norm_changed = {key for key in changed if key.startswith("Conv_1_bn/")}
    parts = ("gamma", "beta", "moving_mean", "moving_variance")
    assert norm_changed == ({f"Conv_1_bn/{p}" for p in parts} if batch_norm == "train" else set())


def test_dropout_drops_in_training_only() -> None:
    """Predictions are the same with and without the layer."""
    rng = np.random.default_rng(5)
    arrays = initial_dense(1280, 2, rng)
    features = rng.random((4, 1280), np.float32)
    models = [
        keras_model.build_model((), classes=2, input_shape=(1280,), dropout=dropout)
        for dropout in (0.0, 0.9)
    ]
    for model in models:
        keras_model.set_arrays(model, arrays)

    plain, dropping = (_predict(model, features) for model in models)

    np.testing.assert_array_equal(plain, dropping)
    trained = keras.ops.convert_to_numpy(models[1](features, training=True))
    assert np.abs(trained - plain).max() > 0.01


def test_activation_decides_between_probabilities_and_logits() -> None:
    """best.keras gives probabilities; training and temperature need logits."""
    rng = np.random.default_rng(6)
    arrays = initial_dense(1280, 3, rng)
    features = rng.random((2, 1280), np.float32)
    results = []
    for activation in ("softmax", None):
        model = keras_model.build_model((), classes=3, input_shape=(1280,), activation=activation)
        keras_model.set_arrays(model, arrays)
        results.append(_predict(model, features))

    probabilities, logits = results
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(
        logits, features @ arrays["predictions/kernel"], atol=1e-5
    )  # biases start at zero


def test_initial_dense_is_glorot_uniform_of_its_generator() -> None:
    """Both backends start from these numbers; they lie in Glorot's range and fill it."""
    arrays = initial_dense(1280, 10, np.random.default_rng(7))
    again = initial_dense(1280, 10, np.random.default_rng(7))

    kernel, bias = arrays["predictions/kernel"], arrays["predictions/bias"]
    limit = math.sqrt(6 / 1290)
    assert kernel.shape == (1280, 10)
    assert kernel.dtype == bias.dtype == np.float32
    assert 0.99 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < limit / 50
    np.testing.assert_array_equal(bias, np.zeros(10))
    np.testing.assert_array_equal(kernel, again["predictions/kernel"])


def test_trunk_and_head_together_are_the_whole_model() -> None:
    """Cutting the network at a convolution with padding of its own changes no number."""
    arrays = draw_arrays(LAYERS) | initial_dense(1280, 3, np.random.default_rng(8))
    cut = cut_at(LAYERS, 35)  # block_13_depthwise is the first to train
    whole = keras_model.build_model(LAYERS, classes=3, input_shape=SHAPE, scaling="symmetric")
    trunk = keras_model.build_trunk(LAYERS[:cut], scaling="symmetric", image_px=96)
    head = keras_model.build_model(
        LAYERS[cut:], classes=3, input_shape=LAYERS[cut - 1].output_shape
    )
    for model in (whole, trunk, head):
        keras_model.set_arrays(model, arrays)
    pixels = _draw_pixels(2)

    probabilities = _predict(head, _predict(trunk, pixels))

    # The compiler fuses the two ways differently.
    np.testing.assert_allclose(probabilities, _predict(whole, pixels), atol=1e-5)


def test_draw_arrays_covers_the_network() -> None:
    """The weights of these tests are those that the network needs."""
    assert {key: array.shape for key, array in draw_arrays(LAYERS).items()} == array_shapes(0.35)
