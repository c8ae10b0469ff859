"""Keras models made of stock layers from the list in `mobilenet`, and their weight arrays.

Every layer is created with zeros and then filled: random initialisers take 15 s on JAX for the
whole network, and the values always come from somewhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mnv2tl.mobilenet import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    DENSE,
    INPUT,
    Layer,
)
from mnv2tl.scaling import SCALINGS

Arrays = Mapping[str, NDArray[np.float32]]


def build_model(
    layers: Sequence[Layer],
    *,
    classes: int,
    input_shape: tuple[int, ...],
    scaling: str | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    activation: str | None = "softmax",
) -> keras.Model:
    """Return a Keras model of these layers and a new Dense layer, all weights zero.

    Args:
        layers: The whole network, or its last layers; empty for the Dense layer alone.
        classes: Number of outputs.
        input_shape: Shape of one input: (px, px, 3) or that of one image's features.
        scaling: A key of `SCALINGS` when the model reads pixels from 0 to 255; None when it reads
            features.
        dropout: Share of pooled features that training drops.
        seed: Seed of what it drops.
        activation: `softmax` for probabilities, None for logits.
    """
    image = keras.Input(input_shape, name=INPUT)
    x = _connect(image, layers, scaling)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    dense = keras.layers.Dense(
        classes, activation=activation, kernel_initializer="zeros", name=DENSE
    )
    return keras.Model(image, dense(x), name="mnv2tl")  # (n, classes)


def build_trunk(layers: Sequence[Layer], *, scaling: str, image_px: int) -> keras.Model:
    """Return a Keras model of the first layers: pixels from 0 to 255 to features, weights zero."""
    image = keras.Input((image_px, image_px, 3), name=INPUT)
    return keras.Model(image, _connect(image, layers, scaling), name="trunk")


def set_arrays(model: keras.Model, arrays: Arrays) -> None:
    """Fill a model's weights from arrays keyed `layer/name`, such as `Conv1/kernel`.

    Raises:
        KeyError: An array that the model needs is missing.
        ValueError: An array has another shape.
    """
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([arrays[f"{layer.name}/{w.name}"] for w in _weights(layer)])


def get_arrays(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Return copies of a model's weights keyed `layer/name`."""
    return {
        f"{layer.name}/{weight.name}": np.array(weight)
        for layer in model.layers
        for weight in _weights(layer)
    }


def freeze(model: keras.Model, trainable: Sequence[str], *, batch_norm: str) -> None:
    """Let only the named layers train, besides the new Dense layer.

    Args:
        model: Changed in place.
        trainable: Names of the layers to train.
        batch_norm: `frozen` keeps BatchNorm layers at their base weights and statistics even when
            they are named; `train` trains them as Keras does.
    """
    names = {DENSE, *trainable}
    for layer in model.layers:
        is_frozen_norm = batch_norm == "frozen" and isinstance(
            layer, keras.layers.BatchNormalization
        )
        layer.trainable = layer.name in names and not is_frozen_norm


def initial_dense(
    channels: int, classes: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Return NumPy-made first values of the Dense layer: Glorot uniform, biases zero.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010; the default of Keras' Dense, but equal on both backends.
    """
    limit = np.sqrt(6.0 / (channels + classes))
    kernel = rng.uniform(-limit, limit, (channels, classes)).astype(np.float32)
    return {f"{DENSE}/kernel": kernel, f"{DENSE}/bias": np.zeros(classes, np.float32)}


def _weights(layer: keras.layers.Layer) -> list[Any]:
    return [w for w in layer.weights if "seed" not in w.name]


def _connect(image: Any, layers: Sequence[Layer], scaling: str | None) -> Any:
    x = image
    if scaling is not None:
        factor, offset = SCALINGS[scaling]
        x = keras.layers.Rescaling(factor, offset, name="scaling")(image)
    outputs = {layers[0].inputs[0]: x} if layers else {}
    for layer in layers:
        tensors = [outputs[name] for name in layer.inputs]
        x = _make_layer(layer)(tensors if layer.kind == "add" else tensors[0])
        outputs[layer.name] = x
    return x


def _make_layer(layer: Layer) -> keras.layers.Layer:
    name, strides = layer.name, layer.stride
    match layer.kind:
        case "conv":
            return keras.layers.Conv2D(
                layer.channels,
                layer.kernel_px,
                strides=strides,
                padding="same",
                use_bias=False,
                kernel_initializer="zeros",
                name=name,
            )
        case "depthwise":
            return keras.layers.DepthwiseConv2D(
                layer.kernel_px,
                strides=strides,
                padding="same" if strides == 1 else "valid",
                use_bias=False,
                depthwise_initializer="zeros",
                name=name,
            )
        case "batch_norm":
            return keras.layers.BatchNormalization(
                epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=name
            )
        case "relu6":
            return keras.layers.ReLU(6.0, name=name)
        case "pad":
            return keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=name)
        case "add":
            return keras.layers.Add(name=name)
        case "pool":
            return keras.layers.GlobalAveragePooling2D(name=name)
