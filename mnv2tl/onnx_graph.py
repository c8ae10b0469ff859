"""Write the layers of `mobilenet` as an ONNX graph: BatchNorm and padding folded into Conv.

No framework takes part: about a hundred nodes are written in a tenth of a second, and the file is
the same whichever backend trained the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mnv2tl.mobilenet import BATCH_NORM_EPSILON, INPUT, Layer
from mnv2tl.scaling import SCALINGS

Arrays = Mapping[str, NDArray[np.float32]]
Floats = Mapping[str, NDArray[np.floating]]
"""Arrays, some of them float64 still."""

# The newest pair that an onnxruntime of two years ago (1.19) still loads with room to spare.
OPSET = 17
IR_VERSION = 8


class GraphWriter:
    """Collects nodes and constants of one ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Append a node and return the name of its output."""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def split(self, source: str, outputs: Sequence[str], *, axis: int) -> None:
        """Append a node that cuts a tensor into equal parts along an axis."""
        name = f"{source}/split"
        self.nodes.append(helper.make_node("Split", [source], list(outputs), name=name, axis=axis))

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Append a constant and return its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        output: onnx.ValueInfoProto,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the checked model as the bytes of an .onnx file.

        Args:
            inputs: What it reads.
            output: What it gives.
            metadata: Texts that travel in the file, in the order of their keys.
        """
        graph = helper.make_graph(self.nodes, "mnv2tl", list(inputs), [output], self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        proto = helper.make_model(graph, opset_imports=opsets, producer_name="mnv2tl")
        proto.ir_version = IR_VERSION
        if metadata:
            helper.set_model_props(proto, dict(sorted(metadata.items())))
        onnx.checker.check_model(proto, full_check=True)
        content: bytes = proto.SerializeToString(deterministic=True)
        return content


def write_trunk(layers: Sequence[Layer], arrays: Arrays, *, scaling: str) -> bytes:
    """Return the frozen layers as an ONNX file.

    Input `image`: uint8 (n, px, px, 3), pixels from 0 to 255. Output `features`: float32
    (n, h, w, channels), or (n, channels) when the pooling layer is the last.

    Args:
        layers: The first layers of the network, not empty.
        arrays: Their weights, keyed `layer/name`.
        scaling: A key of `SCALINGS`.
    """
    side = layers[0].px * layers[0].stride
    writer = GraphWriter()
    last = write_network(writer, layers, arrays, INPUT, scaling=scaling)
    shape = ("n", *layers[-1].output_shape)
    if layers[-1].px:
        writer.add("Transpose", [last], "features", perm=[0, 2, 3, 1])  # (n, h, w, channels)
    else:
        writer.add("Identity", [last], "features")  # (n, channels)
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ("n", side, side, 3))
    output = helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)
    return writer.model([image], output)


def write_network(
    writer: GraphWriter, layers: Sequence[Layer], arrays: Arrays, pixels: str, *, scaling: str
) -> str:
    """Write layers from the first one on; return the name of the last output.

    A picture is read as one channel whose columns are the colours of its pixels, so nothing is
    transposed. The weights of the first convolution take the scaling's factor; the level that
    becomes zero is subtracted before, since the convolution pads with zeros.

    Args:
        writer: Takes the nodes.
        layers: The first layers of the network, not empty.
        arrays: Their weights, keyed `layer/name`.
        pixels: Name of a uint8 tensor that holds (n, px, px, 3), of any shape.
        scaling: A key of `SCALINGS`.
    """
    side, key = layers[0].px * layers[0].stride, f"{layers[0].name}/kernel"
    factor, offset = SCALINGS[scaling]
    shape = writer.constant("image/shape", np.array([-1, 1, side, 3 * side], np.int64))
    x = writer.add("Reshape", [pixels, shape], "image/rows")  # (n, 1, px, 3 px)
    x = writer.add("Cast", [x], "image/float", to=TensorProto.FLOAT)
    if offset:
        zero = writer.constant("scaling/zero", np.array(-offset / factor, np.float32))
        x = writer.add("Sub", [x, zero], "image/centred")
    kernel = arrays[key].astype(np.float64) * factor
    return write_layers(writer, layers, {**arrays, key: kernel}, x)


def write_layers(writer: GraphWriter, layers: Sequence[Layer], arrays: Floats, start: str) -> str:
    """Write layers that read (n, channels, h, w); return the name of the last output.

    The first layer of the network reads a picture as (n, 1, h, 3 w). The pooled output is
    (n, channels).
    """
    by_name = {layer.name: layer for layer in layers}
    outputs = {layers[0].inputs[0]: start}
    low, high = _relu6_limits(writer)
    folded = _fold(layers)
    for layer in layers:
        source = [outputs[name] for name in layer.inputs]
        match layer.kind:
            case "conv" | "depthwise":
                norm = by_name[folded[layer.name]] if layer.name in folded else None
                outputs[layer.name] = _write_conv(writer, layer, norm, arrays, source[0])
            case "relu6":
                outputs[layer.name] = writer.add("Clip", [source[0], low, high], layer.name)
            case "add":
                outputs[layer.name] = writer.add("Add", source, layer.name)
            case "pool":
                mean = writer.add("GlobalAveragePool", source, f"{layer.name}/mean")
                outputs[layer.name] = writer.add("Flatten", [mean], layer.name)  # (n, channels)
            case "batch_norm" if layer.name not in folded.values():
                outputs[layer.name] = _write_norm(writer, layer, arrays, source[0])
            case "batch_norm" | "pad":
                outputs[layer.name] = source[0]  # folded into the convolution beside it
    return outputs[layers[-1].name]


def _fold(layers: Sequence[Layer]) -> dict[str, str]:
    """Return convolution -> the BatchNorm that reads it alone."""
    convs = {layer.name for layer in layers if layer.kind in ("conv", "depthwise")}
    return {
        layer.inputs[0]: layer.name
        for layer in layers
        if layer.kind == "batch_norm" and layer.inputs[0] in convs
    }


def _relu6_limits(writer: GraphWriter) -> tuple[str, str]:
    low = writer.constant("relu6/low", np.array(0, np.float32))
    return low, writer.constant("relu6/high", np.array(6, np.float32))


def _scale_and_shift(
    norm: Layer, arrays: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the factor and the summand per channel of a BatchNorm at inference."""
    gamma, beta, mean, variance = (
        arrays[f"{norm.name}/{part}"].astype(np.float64)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return scale, beta - mean * scale


def _write_norm(writer: GraphWriter, layer: Layer, arrays: Floats, source: str) -> str:
    scale, shift = (part.astype(np.float32) for part in _scale_and_shift(layer, arrays))
    factor = writer.constant(f"{layer.name}/factor", scale.reshape(-1, 1, 1))
    summand = writer.constant(f"{layer.name}/summand", shift.reshape(-1, 1, 1))
    x = writer.add("Mul", [source, factor], f"{layer.name}/scaled")
    return writer.add("Add", [x, summand], layer.name)


def _write_conv(
    writer: GraphWriter, layer: Layer, norm: Layer | None, arrays: Floats, source: str
) -> str:
    kernel = arrays[f"{layer.name}/kernel"].astype(np.float64)
    is_depthwise = layer.kind == "depthwise"
    side = layer.kernel_px
    # Columns that a pixel takes: of a picture, one for each colour.
    columns = layer.in_channels if layer.inputs == (INPUT,) else 1
    if columns > 1:
        kernel = kernel.reshape(side, side * columns, 1, -1)  # (h, 3 w, 1, out)
    # Keras (h, w, in, out) and (h, w, channels, 1) become (out, in, h, w) and (channels, 1, h, w).
    weight = kernel.transpose((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))
    inputs = [source, f"{layer.name}/weight"]
    if norm is not None:
        scale, shift = _scale_and_shift(norm, arrays)
        weight = weight * scale.reshape(-1, 1, 1, 1)
        inputs.append(writer.constant(f"{layer.name}/bias", shift.astype(np.float32)))
    writer.constant(f"{layer.name}/weight", weight.astype(np.float32))
    # Sides are even where the stride is 2, so 'same' and Keras' pad layer both pad the far edge.
    near = (side - 1) // 2 if layer.stride == 1 else 0
    far = (side - 1) // 2
    return writer.add(
        "Conv",
        inputs,
        layer.name,
        kernel_shape=[side, side * columns],
        strides=[layer.stride, layer.stride * columns],
        pads=[near, near * columns, far, far * columns],
        group=layer.channels if is_depthwise else 1,
    )
