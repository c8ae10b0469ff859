"""Build a trained network in TensorFlow, write it as a SavedModel, or give it to tf2onnx.

Keras' own layers make the network, so that these roads share nothing with our writer of ONNX
graphs. Only the process of `saved_model_child` imports this file: Keras runs on TensorFlow in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mnv2tl.keras_model import Arrays, build_model, set_arrays
from mnv2tl.mobilenet import DENSE, INPUT, list_layers
from mnv2tl.onnx_graph import OPSET
from mnv2tl_export.tensorflow_resize import resize

PIXELS = "pixels"
"""Input of the network that `convert` returns."""


def write(folder: Path, core: Any, *, image_px: int, temperature: float | None) -> None:
    """Write a SavedModel; equal networks give equal files where the process did nothing before.

    Args:
        folder: Where to; it must not exist, or be empty.
        core: What `make_core` returned.
        image_px: Side that pictures are resized to, in pixels.
        temperature: Logits are divided by it; None leaves the division out.
    """
    served = tf.Module()
    served.resize = _on_image(lambda image: resize(image, image_px))
    served.logits = _on_image(lambda image: core(tf.cast(served.resize(image), tf.float32)))

    def predict(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = served.logits(image)
        calibrated = logits if temperature is None else logits / tf.constant(temperature)
        return {"probabilities": tf.nn.softmax(calibrated)}

    served.predict = _on_image(predict)
    tf.saved_model.save(served, str(folder), signatures={"serving_default": served.predict})
    # An identifier drawn anew each time and an empty folder, which no reader needs.
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (folder / "assets").rmdir()


def make_core(arrays: Arrays, *, alpha: float, image_px: int, scaling: str) -> Any:
    """Return a `tf.function` from float32 pixels (n, px, px, 3), 0 to 255, to logits (n, classes).

    Args:
        arrays: All weights, keyed `layer/name`.
        alpha: Width of the network.
        image_px: Side of its input in pixels.
        scaling: A key of `mnv2tl.scaling.SCALINGS`.
    """
    shape = (image_px, image_px, 3)
    model = build_model(
        list_layers(alpha=alpha, image_px=image_px),
        classes=len(arrays[f"{DENSE}/bias"]),
        input_shape=shape,
        scaling=scaling,
        activation=None,
    )
    set_arrays(model, arrays)
    trained = [np.array(each) for each in model.trainable_variables]
    fixed = [np.array(each) for each in model.non_trainable_variables]

    def core(pixels: tf.Tensor) -> tf.Tensor:
        # TensorFlow folds BatchNorm into the convolutions if both are constants, and not if they
        # are variables: a third faster (2.21, two cores).
        constants = [[tf.constant(each) for each in part] for part in (trained, fixed)]
        logits, _ = model.stateless_call(*constants, pixels, training=False)
        return logits

    return _function(core, tf.TensorSpec((None, *shape), tf.float32, name=PIXELS))


def convert(core: Any) -> NDArray[np.uint8]:
    """Return the bytes of what tf2onnx makes of a network: `pixels` (n, px, px, 3) to logits.

    Args:
        core: What `make_core` returned, or another function of `pixels`.
    """
    import tf2onnx

    signature = core.input_signature
    model, _ = tf2onnx.convert.from_function(core, input_signature=signature, opset=OPSET)
    return np.frombuffer(model.SerializeToString(), np.uint8)


def _on_image(function: Callable[[tf.Tensor], Any]) -> Any:
    return _function(function, tf.TensorSpec((None, None, None, 3), tf.uint8, name=INPUT))


def _function(function: Callable[[tf.Tensor], Any], spec: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=[spec], autograph=False)
