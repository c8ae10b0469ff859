"""Two ONNX graphs of one MobileNetV2, convolution by convolution and block by block.

The convolutions of the network lie in one line, so every order in which a graph can be computed
has them in the same order, and they are matched by their number. Compared is what leaves a
convolution after its BatchNorm: one graph folds it into the weights where the other has a Mul and
an Add. A block ends there, or with the sum with what went into the block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mnv2tl.mobilenet import Layer

_AFFINE = frozenset({"Mul", "Add", "Sub", "Div"})
_CHUNK_IMAGES = 4  # all points of one picture take 40 MB at 224 px and alpha 1


def list_points(model: onnx.ModelProto, ends: Sequence[int]) -> list[str]:
    """Return the tensors to compare: one per convolution, then one per end of a block.

    Args:
        model: Reads and writes (n, channels, h, w) inside.
        ends: Numbers of the convolutions that are the last of their block.
    """
    nodes = list(model.graph.node)
    constants = {each.name for each in model.graph.initializer}
    constants |= {node.output[0] for node in nodes if node.op_type == "Constant"}
    places = [at for at, node in enumerate(nodes) if node.op_type == "Conv"]
    stages = [_after_norm(nodes, at, constants) for at in places]
    blocks = []
    for number in ends:
        # The next convolution reads a sum of this block; one that comes later is another block's.
        between = nodes[places[number] + 1 : places[number + 1]]
        sums = [
            node.output[0]
            for node in between
            if node.op_type == "Add"
            and stages[number] in node.input
            and not constants.intersection(node.input)
        ]
        blocks.append(sums[0] if sums else stages[number])
    return stages + blocks


def name_points(layers: Iterable[Layer]) -> tuple[list[str], list[int]]:
    """Return the names of all convolutions, and the numbers of those that end a block."""
    names = [layer.name for layer in layers if layer.kind in ("conv", "depthwise")]
    return names, [number for number, name in enumerate(names) if name.endswith("project")]


def compare(
    paths: Sequence[Path], layers: Sequence[Layer], chunks: Iterable[NDArray[np.uint8]]
) -> dict[str, list[dict[str, Any]]]:
    """Return how far both graphs are from each other, at each convolution and block end.

    Args:
        paths: Two files that read `image`, uint8 (n, h, w, 3).
        layers: Of the network that they hold.
        chunks: Pictures, uint8 (n, px, px, 3).

    Raises:
        ValueError: A graph has another number of convolutions, or a tensor another shape.
    """
    names, ends = name_points(layers)
    models = [onnx.load(path) for path in paths]
    points = [list_points(model, ends) for model in models]
    if {len(each) for each in points} != {len(names) + len(ends)}:
        raise ValueError(f"{len(names)} convolutions expected, got {[len(p) for p in points]}")
    sessions = [_show(*each) for each in zip(models, points, strict=True)]
    largest = np.zeros(len(points[0]))
    total, count, level = (np.zeros(len(points[0])) for _ in range(3))
    for pixels in _split(chunks):
        pairs = [_ask(*each, pixels) for each in zip(sessions, points, strict=True)]
        for at, (first, second) in enumerate(zip(*pairs, strict=True)):
            if first.shape != second.shape:
                raise ValueError(f"{points[0][at]}: shapes {first.shape} and {second.shape}")
            difference = np.abs(first - second)
            largest[at] = max(largest[at], difference.max())
            total[at] += difference.sum(dtype=np.float64)
            count[at] += difference.size
            level[at] = max(level[at], np.abs(first).max())
    rows = [
        {"max": float(a), "mean": float(b), "largest_value": float(c)}
        for a, b, c in zip(largest, total / count, level, strict=True)
    ]
    blocks = [names[number].removesuffix("_project") for number in ends]
    return {
        "convolutions": [{"name": n, **r} for n, r in zip(names, rows[: len(names)], strict=True)],
        "blocks": [{"name": n, **r} for n, r in zip(blocks, rows[len(names) :], strict=True)],
    }


def _after_norm(nodes: Sequence[onnx.NodeProto], at: int, constants: set[str]) -> str:
    """Return what a convolution gives after the sums and products with constants behind it."""
    name = str(nodes[at].output[0])
    while True:
        readers = [node for node in nodes[at + 1 :] if name in node.input]
        if len(readers) != 1 or readers[0].op_type not in _AFFINE:
            return name
        if not constants.intersection(readers[0].input):
            return name
        name = str(readers[0].output[0])


def _show(model: onnx.ModelProto, points: Sequence[str]) -> onnxruntime.InferenceSession:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    for name in dict.fromkeys(points):
        shown.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(
        shown.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def _ask(
    session: onnxruntime.InferenceSession, points: Sequence[str], pixels: NDArray[np.uint8]
) -> list[NDArray[np.float32]]:
    names = list(dict.fromkeys(points))
    found = dict(zip(names, session.run(names, {"image": pixels}), strict=True))
    return [found[name] for name in points]


def _split(chunks: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    for pixels in chunks:
        for start in range(0, len(pixels), _CHUNK_IMAGES):
            yield pixels[start : start + _CHUNK_IMAGES]
