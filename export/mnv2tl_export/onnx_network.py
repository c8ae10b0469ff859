"""Find the network inside of an ONNX file of ours: what lies between the resize and the logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from mnv2tl_export.onnx_model import LOGITS, RESIZED


def list_network(model: onnx.ModelProto) -> list[NodeProto]:
    """Return the nodes that compute with pictures, first convolution to logits, in their order.

    Resize and subtraction lie before them, temperature and softmax behind. It is the same for a
    file of `onnx_model` and for one of another road that has the same `resize/output` and `logits`.

    Args:
        model: The nodes are its own, not copies.

    Raises:
        ValueError: It has no such network.
    """
    reached = {RESIZED}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if reached.isdisjoint(node.input):
            continue
        reached.update(node.output)
        if nodes or node.op_type == "Conv":
            nodes.append(node)
        if LOGITS in node.output:
            break
    if not nodes or LOGITS not in nodes[-1].output:
        raise ValueError(f"there is no convolution between {RESIZED} and {LOGITS}")
    return nodes


def walk(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes, and after each one those in its body, if it has one."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from walk(attribute.g.node)


def fold_scales(model: onnx.ModelProto) -> None:
    """Fold factors and summands per channel into the convolutions before them, in place.

    tf2onnx leaves those of the BatchNorm after a depthwise convolution. `onnx_model` folds them.

    Raises:
        ValueError: It has no network.
    """
    constants = {each.name: each for each in model.graph.initializer}
    for convolution in [node for node in list_network(model) if node.op_type == "Conv"]:
        while (reader := _sole_reader(model, convolution.output[0])) is not None:
            others = [name for name in reader.input if name != convolution.output[0]]
            if reader.op_type not in ("Mul", "Add") or not _is_per_channel(others, constants):
                break
            _fold(model, convolution, reader.op_type, constants, others[0])
            convolution.output[0] = reader.output[0]
            model.graph.node.remove(reader)


def _sole_reader(model: onnx.ModelProto, name: str) -> NodeProto | None:
    readers = [node for node in model.graph.node if name in node.input]
    return readers[0] if len(readers) == 1 else None


def _is_per_channel(names: list[str], constants: dict[str, TensorProto]) -> bool:
    """Return whether it is one constant of shape (channels, 1, 1) or (1, channels, 1, 1)."""
    if len(names) != 1 or names[0] not in constants:
        return False
    sides = list(constants[names[0]].dims)
    return len(sides) in (3, 4) and sides[-2:] == [1, 1] and sides[:-3] in ([], [1])


def _fold(
    model: onnx.ModelProto,
    convolution: NodeProto,
    operator: str,
    constants: dict[str, TensorProto],
    name: str,
) -> None:
    """Write new weights and a new bias for a convolution that is followed by Mul or Add."""
    value = _to_array(constants[name]).reshape(-1)
    weight = _to_array(constants[convolution.input[1]])
    bias = np.zeros(len(weight))
    if len(convolution.input) > 2:
        bias = _to_array(constants[convolution.input[2]])
    if operator == "Mul":
        weight, bias = weight * value.reshape(-1, 1, 1, 1), bias * value
    else:
        bias = bias + value
    convolution.input[1:] = [f"{convolution.name}/weight", f"{convolution.name}/bias"]
    for key, array in zip(convolution.input[1:], (weight, bias), strict=True):
        tensor = numpy_helper.from_array(array.astype(np.float32), key)
        if key in constants:
            constants[key].CopyFrom(tensor)
        else:
            model.graph.initializer.append(tensor)
            constants[key] = model.graph.initializer[-1]


def _to_array(tensor: TensorProto) -> NDArray[np.float64]:
    return np.asarray(numpy_helper.to_array(tensor), np.float64)


def finish(model: onnx.ModelProto) -> bytes:
    """Return a checked model as the bytes of an .onnx file, equal for equal models.

    Constants that nothing reads and notes on inner types are left out.

    Args:
        model: Changed in place.

    Raises:
        onnx.checker.ValidationError: It is not valid.
    """
    read = {name for node in walk(model.graph.node) for name in node.input}
    constants = [each for each in model.graph.initializer if each.name in read]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(constants)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
