"""Keras models of the layers listed in `mobilenet`, and their weight arrays.

They are made of stock layers, or to compute with of those of `jax_layers` and `tensorflow_layers`
where these are faster.

Every layer is created with zeros that NumPy makes, and then filled: random initialisers take 15 s
on JAX for the whole network, its own zeros one, and the values always come from somewhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from mnv2tl import backend
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
    to_save: bool = True,
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
        to_save: Take stock layers only, which Keras reads back anywhere. False takes the layers
            that compute fastest; weights and results are the same.
    """
    image = keras.Input(input_shape, name=INPUT)
    x = _connect(image, layers, scaling, to_save=to_save)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=seed, name="dropout")(x)
    dense = keras.layers.Dense(
        classes, activation=activation, kernel_initializer="zeros", name=DENSE
    )
    return keras.Model(image, _apply(dense, x), name="mnv2tl")  # (n, classes)


def build_trunk(layers: Sequence[Layer], *, scaling: str, image_px: int) -> keras.Model:
    """Return a Keras model of the first layers: pixels from 0 to 255 to features, weights zero."""
    image = keras.Input((image_px, image_px, 3), name=INPUT)
    return keras.Model(image, _connect(image, layers, scaling, to_save=False), name="trunk")


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


def describe_trainable(model: keras.Model) -> dict[str, Any]:
    """Return the names of the layers with trainable weights, and how many parameters they have."""
    return {
        "layers": [layer.name for layer in model.layers if layer.trainable_weights],
        "parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
    }


def _weights(layer: keras.layers.Layer) -> list[Any]:
    return [w for w in layer.weights if "seed" not in w.name]


def _connect(image: Any, layers: Sequence[Layer], scaling: str | None, *, to_save: bool) -> Any:
    make_layer = _make_layer if to_save else _choose_fast_layers()
    x = image
    if scaling is not None:
        factor, offset = SCALINGS[scaling]
        x = keras.layers.Rescaling(factor, offset, name="scaling")(image)
    outputs = {layers[0].inputs[0]: x} if layers else {}
    for layer in layers:
        tensors = [outputs[name] for name in layer.inputs]
        x = _apply(make_layer(layer), tensors if layer.kind == "add" else tensors[0])
        outputs[layer.name] = x
    return x


def _apply(layer: keras.layers.Layer, inputs: Any) -> Any:
    with _filled_by_numpy(layer):
        return layer(inputs)


@contextlib.contextmanager
def _filled_by_numpy(layer: keras.layers.Layer) -> Iterator[None]:
    """Make NumPy fill the weights that the block creates."""
    initializers = {k: v for k, v in vars(layer).items() if k.endswith("_initializer")}
    for name, initializer in initializers.items():
        setattr(layer, name, _fill_ones if _is_ones(initializer) else _fill_zeros)
    yield
    for name, initializer in initializers.items():
        setattr(layer, name, initializer)


def _is_ones(initializer: Any) -> bool:
    return isinstance(initializer, keras.initializers.Ones)


def _fill_zeros(shape: tuple[int, ...], dtype: str) -> Any:
    return _place(np.zeros(shape, dtype))


def _fill_ones(shape: tuple[int, ...], dtype: str) -> Any:
    return _place(np.ones(shape, dtype))


def _place(array: NDArray[Any]) -> Any:
    """Return what Keras makes a variable of; JAX compiles a program per shape of a NumPy array."""
    if keras.backend.backend() != "jax":
        return array
    import jax  # noqa: PLC0415  JAX may be missing

    return jax.device_put(array)


def _choose_fast_layers() -> Callable[[Layer], keras.layers.Layer]:
    """Return what makes the layers that compute fastest here."""
    name = keras.backend.backend()
    if backend.has_gpu(name):
        return _make_gpu_layer if name == "jax" else _make_layer
    return _make_cpu_layer if name == "jax" else _make_tensorflow_layer


def _make_gpu_layer(layer: Layer) -> keras.layers.Layer:
    from mnv2tl import jax_layers  # noqa: PLC0415  JAX may be missing

    if layer.kind == "batch_norm":
        return _make_batch_norm(layer, jax_layers.SummedBatchNorm)
    return _make_layer(layer)


def _make_cpu_layer(layer: Layer) -> keras.layers.Layer:
    from mnv2tl import jax_layers  # noqa: PLC0415  JAX may be missing

    if layer.kind == "depthwise":
        return _make_depthwise(layer, jax_layers.ShiftedDepthwise)
    if layer.kind == "conv":
        kind = jax_layers.PointwiseConv if layer.kernel_px == 1 else jax_layers.GatheredConv
        return _make_conv(layer, kind)
    if layer.kind == "batch_norm":
        return _make_batch_norm(layer, jax_layers.SummedBatchNorm)
    return _make_layer(layer)


def _make_tensorflow_layer(layer: Layer) -> keras.layers.Layer:
    from mnv2tl.tensorflow_layers import FusedBatchNorm  # noqa: PLC0415  TensorFlow may be missing

    if layer.kind == "batch_norm":
        return _make_batch_norm(layer, FusedBatchNorm)
    return _make_layer(layer)


def _make_conv(layer: Layer, kind: Callable[..., keras.layers.Layer]) -> keras.layers.Layer:
    return kind(
        layer.channels,
        layer.kernel_px,
        strides=layer.stride,
        padding="same",
        use_bias=False,
        kernel_initializer="zeros",
        name=layer.name,
    )


def _make_depthwise(layer: Layer, kind: Callable[..., keras.layers.Layer]) -> keras.layers.Layer:
    return kind(
        layer.kernel_px,
        strides=layer.stride,
        padding="same" if layer.stride == 1 else "valid",
        use_bias=False,
        depthwise_initializer="zeros",
        name=layer.name,
    )


def _make_batch_norm(layer: Layer, kind: Callable[..., keras.layers.Layer]) -> keras.layers.Layer:
    return kind(epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=layer.name)


def _make_layer(layer: Layer) -> keras.layers.Layer:
    name = layer.name
    match layer.kind:
        case "conv":
            return _make_conv(layer, keras.layers.Conv2D)
        case "depthwise":
            return _make_depthwise(layer, keras.layers.DepthwiseConv2D)
        case "batch_norm":
            return _make_batch_norm(layer, keras.layers.BatchNormalization)
        case "relu6":
            return keras.layers.ReLU(6.0, name=name)
        case "pad":
            return keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=name)
        case "add":
            return keras.layers.Add(name=name)
        case "pool":
            return keras.layers.GlobalAveragePooling2D(name=name)
