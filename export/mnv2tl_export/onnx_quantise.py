"""Put an ONNX file of ours into 8 bits by one recipe, with onnxruntime's quantiser.

Its tools write temporary files, print and log; none of that is left behind or reaches stdout.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import TensorsData

from mnv2tl_export.onnx_model import RESIZED
from mnv2tl_export.onnx_network import finish, fold_scales, list_network

Ranges = Mapping[str, Any]
"""Name of a tensor -> onnxruntime's `TensorData`."""

_CHUNK_IMAGES = 4
_METHODS = {
    "min-max": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"percentile": 99.999}),
    "entropy": (CalibrationMethod.Entropy, {}),
}
_OPERATORS = ("Conv", "Clip", "Add", "Gemm", "MatMul", "Pad")
# Added up in 32 bits, a bias must leave room for the products.
_LARGEST_BIAS = 2.0**28
_LEVELS, _WEIGHT_LEVELS = 255, 127
_LEAST_RANGE = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is quantised."""

    name: str
    """What it is called in tables."""
    calibration: str = "min-max"
    """How the range of a tensor is found: min-max, percentile (99.999) or entropy."""
    group: int = 0
    """Recipes of a group make the same graph; a lower one runs faster."""
    float_convolutions: int = 3
    """How many convolutions at the start stay float32."""
    per_channel: bool = True
    """One scale of weights per output channel, else one per tensor."""
    seven_bits: bool = True
    """Weights that are summed over channels have 7 bits."""
    unsigned_weights: bool = False
    """Weights are uint8, else int8; activations are uint8 always."""


def quantise(content: bytes, recipe: Recipe, pixels: NDArray[np.uint8]) -> bytes:
    """Return an 8-bit file, equal for equal arguments, versions and kinds of processors.

    Metadata stay, and so do input, output and the tensors `resize/output` and `logits`.

    Args:
        content: What `onnx_model.write_model` gave, or a file with the same tensors.
        recipe: How.
        pixels: Pictures of the training split, shape (n, px, px, 3), px that of the network.

    Raises:
        ValueError: The file has no network, there is no picture, or the calibration is unknown.
    """
    return apply(content, recipe, calibrate(content, recipe, pixels))


def calibrate(content: bytes, recipe: Recipe, pixels: NDArray[np.uint8]) -> Ranges:
    """Return the range of every tensor of the network; of a recipe, `calibration` matters alone.

    Raises:
        ValueError: As for `quantise`.
    """
    if recipe.calibration not in _METHODS:
        message = f"calibration must be one of {tuple(_METHODS)}, got {recipe.calibration!r}"
        raise ValueError(message)
    if not len(pixels):
        raise ValueError("there is no calibration picture")
    method, options = _METHODS[recipe.calibration]
    with tempfile.TemporaryDirectory(prefix="mnv2tl-int8-") as made, _quietly():
        path = Path(made) / "network.onnx"
        onnx.save(_cut_network(content, pixels.shape[1]), path)
        calibrator = create_calibrator(
            path,
            _OPERATORS,
            augmented_model_path=str(Path(made) / "augmented.onnx"),
            calibrate_method=method,
            extra_options=options,
        )
        # Histograms of a few pictures at a time: all tensors of all pictures do not fit in memory.
        for start in range(0, len(pixels), _CHUNK_IMAGES):
            calibrator.collect_data(_Reader(pixels[start : start + _CHUNK_IMAGES]))
        return dict(calibrator.compute_data().items())


def _cut_network(content: bytes, image_px: int) -> onnx.ModelProto:
    """Return what follows the resize, from uint8 (N px, 3 px) to the logits."""
    model = onnx.load_from_string(content)
    fold_scales(model)
    network = list_network(model)
    reached, nodes = {RESIZED}, []
    for node in model.graph.node:
        if not reached.isdisjoint(node.input):
            reached.update(node.output)
            nodes.append(node)
        if node.name == network[-1].name:
            break
    read = {name for node in nodes for name in node.input}
    constants = [each for each in model.graph.initializer if each.name in read]
    entry = helper.make_tensor_value_info(RESIZED, TensorProto.UINT8, ("rows", 3 * image_px))
    end = helper.make_tensor_value_info(network[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "network", [entry], [end], constants)
    cut = helper.make_model(graph, opset_imports=model.opset_import)
    cut.ir_version = model.ir_version
    return onnx.shape_inference.infer_shapes(cut)


class _Reader:
    """Gives pictures to a calibrator, once."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        rows = pixels.reshape(-1, pixels.shape[2] * 3)  # (n px, 3 px)
        self._inputs = iter([{RESIZED: rows}])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the input of the next call, or None at the end."""
        return next(self._inputs, None)


def apply(content: bytes, recipe: Recipe, ranges: Ranges) -> bytes:
    """Return an 8-bit file of a recipe, with ranges that were found before."""
    model = onnx.load_from_string(content)
    fold_scales(model)
    model = onnx.shape_inference.infer_shapes(model)
    producer, texts = model.producer_name, list(model.metadata_props)
    nodes = _choose_nodes(model, recipe)
    _raise_small_weights(model, nodes, ranges)
    weights = QuantType.QUInt8 if recipe.unsigned_weights else QuantType.QInt8
    eight_bits = {"quant_type": weights, "reduce_range": False}
    if recipe.per_channel:
        eight_bits["axis"] = 0
    overrides = {node.input[1]: [eight_bits] for node in nodes if _is_depthwise(model, node)}
    with _quietly():
        quantizer = QDQQuantizer(
            model,
            recipe.per_channel,
            recipe.seven_bits,
            weights,
            QuantType.QUInt8,
            # The quantizer changes ranges in place.
            TensorsData(_METHODS[recipe.calibration][0], dict(ranges)),
            [node.name for node in nodes],
            [],
            list(_OPERATORS),
            {
                "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
                "TensorQuantOverrides": overrides if recipe.seven_bits else {},
            },
        )
        quantised = quantizer.quantize_model()
        quantizer.model.topological_sort()
    quantised.producer_name = producer
    quantised.ClearField("producer_version")
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(texts)
    return finish(quantised)


def _choose_nodes(model: onnx.ModelProto, recipe: Recipe) -> list[NodeProto]:
    """Return the nodes that are quantised: those behind the first convolutions."""
    network = list_network(model)
    constants = {each.name for each in model.graph.initializer}
    convolutions = [at for at, node in enumerate(network) if node.op_type == "Conv"]
    start = convolutions[min(recipe.float_convolutions, len(convolutions) - 1)]
    return [
        node
        for node in network[start:]
        if node.op_type in _OPERATORS
        # The addition of a constant is a bias; shortcuts add two tensors.
        and not (node.op_type == "Add" and constants.intersection(node.input))
    ]


def _is_depthwise(model: onnx.ModelProto, node: NodeProto) -> bool:
    groups = [each.i for each in node.attribute if each.name == "group"]
    return node.op_type == "Conv" and bool(groups) and groups[0] > 1


def _raise_small_weights(
    model: onnx.ModelProto, nodes: Sequence[NodeProto], ranges: Ranges
) -> None:
    """Give a channel that is nearly constant one weight that is large enough for its bias.

    A bias has the scale of input times weights. Where BatchNorm made the weights tiny, it would
    not fit into 32 bits. One weight is raised, in place, by what changes the channel by less than
    a thousandth of its bias.
    """
    constants = {each.name: each for each in model.graph.initializer}
    for node in nodes:
        if node.op_type != "Conv" or len(node.input) < 3:
            continue
        scale = _find_scale(ranges[node.input[0]])
        bias = np.abs(numpy_helper.to_array(constants[node.input[2]]))
        weight = numpy_helper.to_array(constants[node.input[1]]).copy()
        rows = weight.reshape(len(weight), -1)
        largest = np.abs(rows).argmax(axis=1)
        least = _WEIGHT_LEVELS * bias / (scale * _LARGEST_BIAS)
        is_small = np.abs(rows[np.arange(len(rows)), largest]) < least
        if is_small.any():
            rows[is_small, largest[is_small]] = least[is_small]
            constants[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))


def _find_scale(tensor: Any) -> float:
    """Return the step between two levels of a tensor."""
    low, high = (float(np.asarray(each).reshape(-1)[0]) for each in tensor.range_value)
    return max(max(high, 0.0) - min(low, 0.0), _LEAST_RANGE) / _LEVELS


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what onnxruntime's tools print and log away from stdout and from the root logger."""
    handler = logging.NullHandler()
    # Without a handler, logging.info() configures one for the whole process.
    logging.root.addHandler(handler)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.root.removeHandler(handler)
