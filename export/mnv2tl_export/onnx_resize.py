"""The resize rule of `mnv2tl.data.images.resize` as plain ONNX operators, equal to it bit by bit.

Each pass is a product with matrices of filter weights that the graph computes from the picture's
height and width. ONNX's own `Resize` is not used: its antialias needs opset 18, it rounds once
instead of after each pass, and OpenVINO ignores it without a word.

Pillow rounds each weight to a multiple of 2^-22 (PRECISION_BITS in src/libImaging/Resample.c,
13.0), and a level that lies between two whole ones falls to the side that these roundings decide:
of a picture of 64 pixels stretched to 96, every tenth one. So the weights here are the same
multiples, split into a high and a low half of 11 bits: every sum of their products with levels is
a whole number that float32 holds exactly, whatever the order in which a runtime adds.

With `in` pixels read and `out` written, the distance of the centres of pixel i read and pixel j
written is |(2 i + 1) out - (2 j + 1) in| units of 1 / (2 out) pixels read, and the triangle
reaches 2 max(in, out) units far: whole numbers again, which float32 holds up to 37,449 pixels a
side at 224.

A pixel written needs few of those read, so a pass works in blocks of `_BLOCK` pixels written, each
of which reads a window. A picture that has the right size already goes past: what is then resized
is one pixel to one block, and `Where` takes the picture itself. Its 130 small nodes cost about a
quarter of a millisecond then. An `If` around them would save that, but OpenVINO 2026.4 gives wrong
probabilities for such a file, by up to 0.7 and without a word.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mnv2tl.onnx_graph import GraphWriter

_HALF_BITS = 11
"""Half of Pillow's PRECISION_BITS, 32 - 8 - 2."""
_BLOCK = 16
"""Pixels written by one block; every side that MobileNetV2 has weights for is a multiple."""
_HEIGHT, _WIDTH = "resize/first", "resize/second"


def write_resize(writer: GraphWriter, image: str, image_px: int) -> str:
    """Write uint8 (n, h, w, 3) of any h and w to uint8 (n, 3, image_px, image_px).

    Args:
        writer: Takes the nodes; their names start with `resize/`.
        image: Name of the input, at least one pixel high and wide.
        image_px: Side of the output in pixels, a multiple of 16.
    """
    if image_px % _BLOCK:
        raise ValueError(f"image_px must be a multiple of {_BLOCK}, got {image_px}")
    _write_constants(writer, image_px)
    writer.add("Shape", [image], "resize/sides", start=1, end=3)  # (2,): height, width
    _write_is_square(writer)
    kept = _write_crop(writer, image, "resize/sides", "resize/ones", "kept")
    kept = writer.add("Transpose", [kept], "resize/kept", perm=[0, 3, 1, 2])
    x = _write_crop(writer, image, "resize/ones", "resize/sides", "source")
    # Both transpositions turn one matrix, which runtimes do fast.
    x = writer.add("Transpose", [x], "resize/columns", perm=[0, 2, 3, 1])  # (n, w, 3, h)
    x = writer.add("Reshape", [x, "resize/join_last"], "resize/source")  # (n, w, 3 h)
    x = _write_pass(writer, x, "width", _WIDTH)  # (n, blocks, 16, 3 h)
    x = writer.add("Transpose", [x], "resize/rows", perm=[0, 3, 1, 2])  # (n, 3 h, blocks, 16)
    shapes = ["resize/same", "resize/one_block", "resize/all_blocks"]
    shape = writer.add("Where", shapes, "resize/joined_shape")
    x = writer.add("Reshape", [x, shape], "resize/joined_rows")  # (n, 3, h, px)
    x = _write_pass(writer, x, "height", _HEIGHT)  # (n, 3, blocks, 16, px)
    x = writer.add("Reshape", [x, shape], "resize/joined")  # (n, 3, px, px)
    x = writer.add("Cast", [x], "resize/uint8", to=TensorProto.UINT8)
    sides = writer.add("Where", ["resize/same", "resize/ones", "resize/square"], "resize/to_sides")
    x = writer.add("Slice", [x, "resize/starts", sides, "resize/last_axes"], "resize/resized")
    return writer.add("Where", ["resize/same", kept, x], "resize/output")


def _write_constants(writer: GraphWriter, image_px: int) -> None:
    blocks = image_px // _BLOCK
    for name, integers in (
        ("square", [image_px, image_px]),
        ("ones", [1, 1]),
        ("starts", [0, 0]),
        ("axes", [1, 2]),
        ("last_axes", [2, 3]),
        ("first", [0]),
        ("second", [1]),
        ("third", [2]),
        ("blocks", [blocks]),
        ("zero", 0),
        ("one", 1),
        # A zero keeps a side.
        ("join_last", [0, 0, -1]),
        ("all_blocks", [0, 3, -1, image_px]),
        ("one_block", [0, 3, -1, _BLOCK]),
    ):
        writer.constant(f"resize/{name}", np.array(integers, np.int64))
    for name, value in (
        ("half", 0.5),
        ("px", image_px),
        ("twice_px", 2 * image_px),
        ("high", 2**_HALF_BITS),
        ("low", 2.0**-_HALF_BITS),
        ("rounding", 2 ** (2 * _HALF_BITS - 1)),
        ("block_less_one", _BLOCK - 1),
        # Both ends are taken wider than needed, since their places are rounded.
        ("margin", 2),
        ("window_margin", 5),
    ):
        writer.constant(f"resize/{name}", np.array(value, np.float32))
    # (2 j + 1) of every pixel j written, and of the first one of each block.
    odd = 2 * np.arange(image_px, dtype=np.float32).reshape(blocks, 1, _BLOCK) + 1
    writer.constant("resize/odd", odd)


def _write_is_square(writer: GraphWriter) -> None:
    """Write `resize/same`, bool (1,): height and width are the wanted ones already."""
    writer.add("Equal", ["resize/sides", "resize/square"], "resize/equal")
    writer.add("Cast", ["resize/equal"], "resize/equal_float", to=TensorProto.FLOAT)
    writer.add("ReduceMin", ["resize/equal_float"], "resize/least", axes=[0], keepdims=1)
    writer.add("Cast", ["resize/least"], "resize/same", to=TensorProto.BOOL)
    blocks = ["resize/same", "resize/second", "resize/blocks"]
    writer.add("Where", blocks, "resize/used_blocks")  # (1,)
    inputs = ["resize/odd", "resize/first", "resize/used_blocks"]
    writer.add("Slice", inputs, "resize/used_odd")  # (blocks, 1, 16)


def _write_crop(writer: GraphWriter, image: str, if_same: str, if_not: str, name: str) -> str:
    """Write the upper left part of a picture, of a height and width that depend on its size."""
    at = f"resize/{name}"
    sides = writer.add("Where", ["resize/same", if_same, if_not], f"{at}/sides")
    inputs = [image, "resize/starts", sides, "resize/axes"]
    return writer.add("Slice", inputs, f"{at}/nhwc")


def _write_pass(writer: GraphWriter, x: str, side: str, index: str) -> str:
    """Write (..., in, rest) to whole levels (..., blocks, 16, rest)."""
    at = f"resize/{side}"
    writer.add("Gather", ["resize/source/sides", index], f"{at}/in", axis=0)  # (1,)
    writer.add("Cast", [f"{at}/in"], f"{at}/in_float", to=TensorProto.FLOAT)
    writer.add("Max", [f"{at}/in_float", "resize/px"], f"{at}/longer")
    writer.add("Mul", ["resize/used_odd", f"{at}/in_float"], f"{at}/centres")  # (blocks, 1, 16)
    reads = _write_windows(writer, at)  # (blocks, length)
    weights = _write_weights(writer, at, reads)  # (blocks, 32, length)
    window = writer.add("Gather", [x, reads], f"{at}/window", axis=-2)
    if side == "width":
        window = writer.add("Cast", [window], f"{at}/window_float", to=TensorProto.FLOAT)
    writer.add("MatMul", [weights, window], f"{at}/sums")  # (..., blocks, 32, rest)
    return _write_rounding(writer, at)


def _write_windows(writer: GraphWriter, at: str) -> str:
    """Write the pixels that each block reads, int64 (blocks, length), all of them inside."""
    # length = 15 in / px + 2 max(in, px) / px, in pixels read, and a margin; at most all.
    writer.add("Mul", [f"{at}/in_float", "resize/block_less_one"], f"{at}/block_span")
    reach = writer.add("Add", [f"{at}/longer", f"{at}/longer"], f"{at}/reach")
    writer.add("Add", [f"{at}/block_span", reach], f"{at}/span")
    writer.add("Div", [f"{at}/span", "resize/px"], f"{at}/span_px")
    writer.add("Add", [f"{at}/span_px", "resize/window_margin"], f"{at}/wide")
    writer.add("Floor", [f"{at}/wide"], f"{at}/wide_px")
    length = writer.add("Min", [f"{at}/wide_px", f"{at}/in_float"], f"{at}/length")  # (1,)
    # start = (centre of the first pixel written - reach) / (2 px), less a margin.
    inputs = [f"{at}/centres", "resize/first", "resize/second", "resize/third"]
    first = writer.add("Slice", inputs, f"{at}/first_centre")  # (blocks, 1, 1)
    writer.add("Squeeze", [first, "resize/third"], f"{at}/first_column")  # (blocks, 1)
    writer.add("Sub", [f"{at}/first_column", reach], f"{at}/start_units")
    writer.add("Div", [f"{at}/start_units", "resize/twice_px"], f"{at}/start_px")
    writer.add("Sub", [f"{at}/start_px", "resize/margin"], f"{at}/start_early")
    writer.add("Floor", [f"{at}/start_early"], f"{at}/start_floor")
    last = writer.add("Sub", [f"{at}/in_float", length], f"{at}/last_start")
    writer.add("Min", [f"{at}/start_floor", last], f"{at}/start_inside")
    start = writer.add("Relu", [f"{at}/start_inside"], f"{at}/start")
    start = writer.add("Cast", [start], f"{at}/start_int", to=TensorProto.INT64)
    writer.add("Cast", [length], f"{at}/length_int", to=TensorProto.INT64)
    writer.add("Squeeze", [f"{at}/length_int"], f"{at}/length_scalar")  # ()
    inputs = ["resize/zero", f"{at}/length_scalar", "resize/one"]
    steps = writer.add("Range", inputs, f"{at}/steps")  # (length,)
    return writer.add("Add", [start, steps], f"{at}/reads")


def _write_weights(writer: GraphWriter, at: str, reads: str) -> str:
    """Write the weights of each block, high halves before low ones, (blocks, 32, length)."""
    # (2 i + 1) px of every pixel i read.
    writer.add("Cast", [reads], f"{at}/reads_float", to=TensorProto.FLOAT)
    writer.add("Mul", [f"{at}/reads_float", "resize/twice_px"], f"{at}/reads_units")
    writer.add("Add", [f"{at}/reads_units", "resize/px"], f"{at}/places")
    writer.add("Unsqueeze", [f"{at}/places", "resize/second"], f"{at}/row")  # (blocks, 1, length)
    writer.add("Transpose", [f"{at}/centres"], f"{at}/column", perm=[0, 2, 1])  # (blocks, 16, 1)
    writer.add("Sub", [f"{at}/row", f"{at}/column"], f"{at}/difference")
    writer.add("Abs", [f"{at}/difference"], f"{at}/distance")
    writer.add("Sub", [f"{at}/reach", f"{at}/distance"], f"{at}/rest")
    triangle = writer.add("Relu", [f"{at}/rest"], f"{at}/triangle")  # (blocks, 16, length)
    total = writer.add("ReduceSum", [triangle, "resize/third"], f"{at}/total", keepdims=1)
    # triangle / total * 2^22, rounded, is high * 2^11 + low; each step is exact in float32.
    scaled = writer.add("Mul", [triangle, "resize/high"], f"{at}/scaled")
    writer.add("Div", [scaled, total], f"{at}/high_share")
    high = writer.add("Floor", [f"{at}/high_share"], f"{at}/high")
    writer.add("Mul", [high, total], f"{at}/taken")
    writer.add("Sub", [scaled, f"{at}/taken"], f"{at}/left")
    writer.add("Mul", [f"{at}/left", "resize/high"], f"{at}/left_scaled")
    writer.add("Div", [f"{at}/left_scaled", total], f"{at}/low_share")
    writer.add("Add", [f"{at}/low_share", "resize/half"], f"{at}/low_half")
    low = writer.add("Floor", [f"{at}/low_half"], f"{at}/low")
    return writer.add("Concat", [high, low], f"{at}/weights", axis=1)


def _write_rounding(writer: GraphWriter, at: str) -> str:
    """Write the sums with high and low weights to whole levels: (sum + 2^21) >> 22."""
    high, low = f"{at}/high_sum", f"{at}/low_sum"
    writer.split(f"{at}/sums", [high, low], axis=-2)
    writer.add("Add", [low, "resize/rounding"], f"{at}/low_rounded")
    writer.add("Mul", [f"{at}/low_rounded", "resize/low"], f"{at}/carry_share")
    writer.add("Floor", [f"{at}/carry_share"], f"{at}/carry")
    writer.add("Add", [high, f"{at}/carry"], f"{at}/sum")
    writer.add("Mul", [f"{at}/sum", "resize/low"], f"{at}/level_share")
    return writer.add("Floor", [f"{at}/level_share"], f"{at}/level")
