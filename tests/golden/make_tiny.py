"""Write tiny.onnx, the smallest file of the form that `mnv2tl export` writes.

    python tests/golden/make_tiny.py

It names the colour of a picture, red, green or blue, from its mean after the resize. Tests of what
is deployed use it where neither a training framework nor the package onnx is installed.
"""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl.metrics import softmax
from mnv2tl.onnx_graph import GraphWriter
from mnv2tl.sample_picture import encode_png
from mnv2tl_export import golden
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_resize import write_resize

PATH = Path(__file__).with_name("tiny.onnx")
CLASS_NAMES = ("red", "green", "blue")
IMAGE_PX = 16
TEMPERATURE = 2.0
# Logits from mean levels: the colour itself, less the others.
KERNEL = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2]], np.float32) / 32
BIAS = np.array([0.25, 0, -0.25], np.float32)


def make_tiny() -> bytes:
    """Return the bytes of the file."""
    writer = GraphWriter()
    x = write_resize(writer, "image", IMAGE_PX)
    shape = writer.constant("shape", np.array([-1, IMAGE_PX, IMAGE_PX, 3], np.int64))
    x = writer.add("Reshape", [x, shape], "image/pixels")  # (n, 16, 16, 3)
    x = writer.add("Cast", [x], "image/float", to=TensorProto.FLOAT)
    x = writer.add("ReduceMean", [x], "mean", axes=[1, 2], keepdims=0)  # (n, 3)
    kernel, bias = writer.constant("kernel", KERNEL), writer.constant("bias", BIAS)
    x = writer.add("Gemm", [x, kernel, bias], "logits")
    divisor = writer.constant("temperature", np.array(TEMPERATURE, np.float32))
    x = writer.add("Div", [x, divisor], "logits/calibrated")
    writer.add("Softmax", [x], "probabilities", axis=1)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ("N", "H", "W", 3))
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("N", 3))
    return writer.model([image], output, metadata=_describe().to_texts())


def _describe() -> Metadata:
    # A part of the usual picture: most of the bytes of this file would be its own otherwise.
    picture = golden.draw_picture()[24:48, 30:64]
    mean = images.resize(picture, IMAGE_PX).mean(axis=(0, 1))  # (3,)
    logits = (mean @ KERNEL + BIAS)[np.newaxis]
    probabilities = softmax(logits, temperature=TEMPERATURE)[0]
    return Metadata(
        class_names=CLASS_NAMES,
        image_px=IMAGE_PX,
        preprocessing=images.PREPROCESSING | {"scaling": "none"},
        temperature=TEMPERATURE,
        run={},
        base_weights={"name": "none", "sha256": "", "licence": "none"},
        val_accuracy={"accuracy": 0.75, "interval": [0.5, 0.9], "images": 8},
        versions={"mnv2tl": "0"},
        selftest=golden.describe(probabilities.tolist())
        | {"png": base64.b64encode(encode_png(picture)).decode("ascii")},
        artifact={"format": "onnx", "via": "native"},
    )


if __name__ == "__main__":
    store.write_bytes(PATH, make_tiny())
