"""Write a trained network as one ONNX file that takes pixels of any size and gives probabilities.

No framework takes part, so the file does not depend on the backend that trained the weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mnv2tl.mobilenet import DENSE, INPUT, list_layers
from mnv2tl.onnx_graph import GraphWriter, write_network
from mnv2tl_export.onnx_resize import write_resize

OUTPUT = "probabilities"
LOGITS = "logits"
"""Tensor before temperature and softmax, float32 (n, classes); the gate looks at it."""
RESIZED = "resize/output"
"""Tensor after the resize, uint8 (n px, 3 px), which holds (n, px, px, 3); the gate looks at it."""


def write_model(
    arrays: Mapping[str, NDArray[np.float32]],
    *,
    alpha: float,
    image_px: int,
    scaling: str,
    temperature: float | None,
    metadata: Mapping[str, str],
) -> bytes:
    """Return the bytes of an .onnx file.

    Input `image`: uint8 (N, H, W, 3), N, H and W at least 1, pixels from 0 to 255. Output
    `probabilities`: float32 (N, classes), rows summing to 1.

    Args:
        arrays: All weights, keyed `layer/name`, as `Run.read_arrays` gives them.
        alpha: Width of the network.
        image_px: Side that pictures are resized to, in pixels.
        scaling: A key of `mnv2tl.scaling.SCALINGS`.
        temperature: Logits are divided by it; None leaves the division out.
        metadata: Texts that travel in the file.
    """
    writer = GraphWriter()
    x = write_resize(writer, INPUT, image_px)
    layers = list_layers(alpha=alpha, image_px=image_px)
    x = write_network(writer, layers, arrays, x, scaling=scaling)  # (n, channels)
    kernel = writer.constant(f"{DENSE}/kernel", arrays[f"{DENSE}/kernel"])
    bias = writer.constant(f"{DENSE}/bias", arrays[f"{DENSE}/bias"])
    x = writer.add("Gemm", [x, kernel, bias], LOGITS)  # (n, classes)
    if temperature is not None:
        divisor = writer.constant("temperature", np.array(temperature, np.float32))
        x = writer.add("Div", [x, divisor], "logits/calibrated")
    writer.add("Softmax", [x], OUTPUT, axis=1)
    classes = len(arrays[f"{DENSE}/bias"])
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ("N", "H", "W", 3))
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("N", classes))
    return writer.model([image], output, metadata=metadata)


def replace_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return an .onnx file with other texts in it, equal for equal ones."""
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(metadata.items())))
    replaced: bytes = model.SerializeToString(deterministic=True)
    return replaced
