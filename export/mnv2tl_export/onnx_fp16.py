"""Halve an ONNX file: the network in float16, all that must be exact around it in float32.

The file is half as large, and meant for processors that compute in float16. A CPU is none for
onnxruntime (1.31): it casts back to float32, takes 1.2 to 1.6 times as long as with the float32
file, and loads in twice the time.

`onnxruntime.transformers.float16`, the converter that is kept up, decides per operator and name,
leaves `Min` and `Max` in float32 by a list, and adds its folder to `sys.path`. Here one cut before
the first convolution and one after the logits are all that is needed.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mnv2tl_export.onnx_model import LOGITS
from mnv2tl_export.onnx_network import finish, fold_scales, list_network

_HALF = "/half"
_LARGEST = float(np.finfo(np.float16).max)


def convert_fp16(content: bytes) -> bytes:
    """Return a float32 ONNX file of ours with a float16 network, equal for equal files.

    Resize and subtraction before it, temperature and softmax behind it stay float32, and so do the
    tensor `logits`, input and output. Weights that are too large become the largest float16.

    Args:
        content: What `onnx_model.write_model` gave, or a file with the same tensors.

    Raises:
        ValueError: It has no network, or other types than float32 in it.
    """
    model = onnx.load_from_string(content)
    fold_scales(model)
    network = list_network(model)
    halved = _halve_constants(model, network)
    made = {name for node in network for name in node.output}
    kept = {each.name for each in model.graph.initializer} - halved
    entering = dict.fromkeys(
        name for node in network for name in node.input if name and name not in made | kept | halved
    )
    for node in network:
        node.input[:] = [
            name + _HALF if name in halved or name in entering else name for name in node.input
        ]
    before = [_cast(name, name + _HALF, TensorProto.FLOAT16) for name in entering]
    first, last = network[0].name, network[-1].name
    network[-1].output[:] = [LOGITS + _HALF]
    nodes = []
    for node in model.graph.node:
        nodes += [*before, node] if node.name == first else [node]
        if node.name == last:
            nodes.append(_cast(LOGITS + _HALF, LOGITS, TensorProto.FLOAT))
    network[-1].name = LOGITS + _HALF
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return finish(model)


def _halve_constants(model: onnx.ModelProto, network: list[NodeProto]) -> set[str]:
    """Add float16 copies, named `.../half`, of the network's float constants.

    Returns:
        The names of the constants.
    """
    used = {name for node in network for name in node.input}
    floats = [
        each
        for each in model.graph.initializer
        if each.name in used and each.data_type == TensorProto.FLOAT
    ]
    for each in floats:
        half = np.clip(numpy_helper.to_array(each), -_LARGEST, _LARGEST).astype(np.float16)
        model.graph.initializer.append(numpy_helper.from_array(half, each.name + _HALF))
    return {each.name for each in floats}


def _cast(source: str, output: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [output], name=output, to=kind)
