"""The second road to ONNX: Keras on TensorFlow, then tf2onnx, inside of our signature.

tf2onnx returns an invalid model without an error when it meets what it cannot convert, such as
`tf.image.resize` with antialias (1.17). So it gets the network alone, and what it made takes the
place of the network in the file of `onnx_model`, whose resize, names and metadata stay.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mnv2tl.errors import MachineError, ResultError, install_extra
from mnv2tl.onnx_graph import OPSET
from mnv2tl_export import onnx_model
from mnv2tl_export.onnx_file import DOMAINS, OPERATORS
from mnv2tl_export.onnx_model import LOGITS, RESIZED
from mnv2tl_export.onnx_network import walk
from mnv2tl_export.saved_model import ask_child, open_child

_PREFIX = "network"


def write_model(
    arrays: Mapping[str, NDArray[np.float32]],
    *,
    alpha: float,
    image_px: int,
    scaling: str,
    temperature: float | None,
    metadata: Mapping[str, str],
) -> bytes:
    """Return the bytes of an .onnx file; signature and arguments are those of `onnx_model`.

    Raises:
        MachineError: TensorFlow or tf2onnx is not installed or does not work (E508).
        ResultError: What tf2onnx made is no valid network (E601).
    """
    if importlib.util.find_spec("tf2onnx") is None:
        raise MachineError("E508", "tf2onnx is not installed", fix=install_extra("savedmodel"))
    network: dict[str, Any] = {"alpha": alpha, "image_px": image_px, "scaling": scaling}
    with open_child() as child:
        answer = ask_child(child, "convert", arrays=arrays, network=network)
    native = onnx_model.write_model(arrays, **network, temperature=temperature, metadata=metadata)
    return replace_network(native, answer.arrays["onnx"].tobytes())


def replace_network(native: bytes, converted: bytes) -> bytes:
    """Return a file of `onnx_model` with another network in it, equal for equal ones.

    Args:
        native: The file.
        converted: An ONNX model from float32 pixels (n, px, px, 3) to logits (n, classes).

    Raises:
        ResultError: The network is not valid, or not one that `mnv2tl predict` loads (E601).
    """
    model = onnx.load_from_string(native)
    network = onnx.load_from_string(converted)
    nodes = list(model.graph.node)
    start = next(at for at, node in enumerate(nodes) if RESIZED in node.input)
    end = next(at for at, node in enumerate(nodes) if LOGITS in node.output)
    _check_network(network, classes=model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    shape, *entry = _make_entry(_shapes(network.graph.input)[0][1])
    _rename(network.graph, source=entry[-1].name)
    nodes = [*nodes[:start], *entry, *network.graph.node, *nodes[end + 1 :]]
    constants = [*model.graph.initializer, shape, *network.graph.initializer]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    read = {name for node in walk(nodes) for name in node.input}
    model.graph.initializer.extend(each for each in constants if each.name in read)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _refusal(str(error).partition("\n")[0]) from error
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _check_network(network: onnx.ModelProto, *, classes: int) -> None:
    """Refuse a network of another signature, or one that needs what is not loaded."""
    versions = {each.version for each in network.opset_import if each.domain in DOMAINS}
    if versions != {OPSET}:
        raise _refusal(f"operator sets {sorted(versions)}")
    shapes = [_shapes(part) for part in (network.graph.input, network.graph.output)]
    match shapes:
        case [[[_, height, width, 3]], [[_, count]]] if height == width and count == classes:
            pass
        case _:
            raise _refusal(f"inputs and outputs {shapes}")
    for node in network.graph.node:
        if node.domain not in DOMAINS or node.op_type not in OPERATORS:
            raise _refusal(f"the operator {node.op_type}")


def _make_entry(image_px: int) -> tuple[TensorProto, NodeProto, NodeProto]:
    """Return what makes float32 (n, px, px, 3) of the tensor `RESIZED`: a shape, and two nodes."""
    sides = np.array([-1, image_px, image_px, 3], np.int64)
    shape = numpy_helper.from_array(sides, f"{_PREFIX}/shape")
    pixels, floats = f"{_PREFIX}/pixels", f"{_PREFIX}/float"
    reshape = helper.make_node("Reshape", [RESIZED, shape.name], [pixels], name=pixels)
    cast = helper.make_node("Cast", [pixels], [floats], name=floats, to=TensorProto.FLOAT)
    return shape, reshape, cast


def _shapes(values: Sequence[onnx.ValueInfoProto]) -> list[list[int]]:
    """Return the shape of each input or output; 0 stands for any size."""
    return [[side.dim_value for side in each.type.tensor_type.shape.dim] for each in values]


def _rename(graph: onnx.GraphProto, *, source: str) -> None:
    """Give all tensors names that depend on nothing but the graph, and sort its constants.

    tf2onnx counts names as it goes through hash tables.

    Args:
        graph: Changed in place.
        source: New name of its input.
    """
    constants = {each.name: each for each in graph.initializer}
    names = {graph.input[0].name: source}
    for old, new in _new_names(graph.node, constants):
        names.setdefault(old, new)
    names[graph.output[0].name] = LOGITS
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.name = node.output[0]
    del graph.initializer[:]
    for old, new in names.items():
        if old in constants:
            constants[old].name = new
            graph.initializer.append(constants[old])


def _new_names(
    nodes: Sequence[NodeProto], constants: Mapping[str, TensorProto]
) -> Iterator[tuple[str, str]]:
    """Yield the old and the new name of each tensor, in the order of the graph."""
    seen: Counter[str] = Counter()
    for node in nodes:
        for old in node.output:
            base = f"{_PREFIX}/{re.sub(r'__[0-9]+|:0$', '', old)}"
            seen[base] += 1
            new = base if seen[base] == 1 else f"{base}.{seen[base]}"
            for at, name in enumerate(node.input):
                if name in constants:
                    yield name, f"{new}/input.{at}"
            yield old, new


def _refusal(what: str) -> ResultError:
    message = f"tf2onnx gave a network that is not valid or not loaded: {what!a}"
    return ResultError("E601", message, fix="use --via native")
