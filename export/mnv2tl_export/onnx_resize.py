"""The resize rule of `mnv2tl.images.resize` as plain ONNX operators, equal to it bit by bit.

Each pass is a product with a matrix of filter weights that the graph computes from the picture's
height and width. ONNX's own `Resize` is not used: its antialias needs opset 18, it rounds once
instead of after each pass, and OpenVINO ignores it without a word.

Pillow rounds each weight to a multiple of 2^-22 (PRECISION_BITS in src/libImaging/Resample.c,
13.0), and a level that lies between two whole ones falls to the side that these roundings decide:
of a picture of 64 pixels stretched to 96, every tenth one. So the weights here are the same
multiples, split into a high and a low half of 11 bits: every sum of their products with levels is
a whole number that float32 holds exactly, whatever the order in which a runtime adds.

With `in` pixels read and `out` written, the distance of the centres of pixel i read and pixel j
written is |(2 i + 1) out - (2 j + 1) in| units of 1 / (2 out) pixels read, and the triangle
reaches 2 max(in, out) units far: whole numbers again.

A picture that has the right size already goes past: what is then resized is one pixel to one
pixel, and `Where` takes the picture itself. Neither `If` nor an empty tensor is needed.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mnv2tl.onnx_graph import GraphWriter

_HALF_BITS = 11
"""Half of Pillow's PRECISION_BITS, 32 - 8 - 2."""


def write_resize(writer: GraphWriter, image: str, image_px: int) -> str:
    """Write uint8 (n, h, w, 3) of any h and w to uint8 (n, 3, image_px, image_px).

    Args:
        writer: Takes the nodes; their names start with `resize/`.
        image: Name of the input, at least one pixel high and wide.
        image_px: Side of the output in pixels.
    """
    _write_constants(writer, image_px)
    writer.add("Shape", [image], "resize/sides", start=1, end=3)  # (2,): height, width
    _write_is_square(writer)
    keep = writer.add("Where", ["resize/same", "resize/sides", "resize/ones"], "resize/keep_sides")
    read = writer.add("Where", ["resize/same", "resize/ones", "resize/sides"], "resize/from_sides")
    writer.add("Where", ["resize/same", "resize/ones", "resize/square"], "resize/to_sides")
    kept = _write_crop(writer, image, keep, "resize/kept")
    x = _write_crop(writer, image, read, "resize/source")
    x = writer.add("Cast", [x], "resize/float", to=TensorProto.FLOAT)  # (n, 3, h, w)
    columns = _write_weights(writer, "width", axis=1)  # (w, 2 px)
    x = writer.add("MatMul", [x, columns], "resize/width/sums")  # (n, 3, h, 2 px)
    x = _write_rounding(writer, x, "width", axis=3)  # (n, 3, h, px)
    rows = _write_weights(writer, "height", axis=0)  # (2 px, h)
    x = writer.add("MatMul", [rows, x], "resize/height/sums")  # (n, 3, 2 px, px)
    x = _write_rounding(writer, x, "height", axis=2)  # (n, 3, px, px)
    x = writer.add("Cast", [x], "resize/uint8", to=TensorProto.UINT8)
    return writer.add("Where", ["resize/same", kept, x], "resize/output")


def _write_constants(writer: GraphWriter, image_px: int) -> None:
    for name, integers in (
        ("square", [image_px, image_px]),
        ("ones", [1, 1]),
        ("starts", [0, 0]),
        ("axes", [1, 2]),
        ("first", [0]),
        ("second", [1]),
        ("zero", 0),
        ("one", 1),
    ):
        writer.constant(f"resize/{name}", np.array(integers, np.int64))
    for name, value in (
        ("half", 0.5),
        ("px", image_px),
        ("twice_px", 2 * image_px),
        ("high", 2**_HALF_BITS),
        ("low", 2.0**-_HALF_BITS),
        ("rounding", 2 ** (2 * _HALF_BITS - 1)),
    ):
        writer.constant(f"resize/{name}", np.array(value, np.float32))
    # (2 j + 1) of every pixel j written.
    writer.constant("resize/odd", 2 * np.arange(image_px, dtype=np.float32) + 1)


def _write_is_square(writer: GraphWriter) -> None:
    """Write `resize/same`, bool (1,): height and width are the wanted ones already."""
    writer.add("Equal", ["resize/sides", "resize/square"], "resize/equal")
    writer.add("Cast", ["resize/equal"], "resize/equal_float", to=TensorProto.FLOAT)
    writer.add("ReduceMin", ["resize/equal_float"], "resize/least", axes=[0], keepdims=1)
    writer.add("Cast", ["resize/least"], "resize/same", to=TensorProto.BOOL)


def _write_crop(writer: GraphWriter, image: str, sides: str, name: str) -> str:
    """Write the upper left part of the given height and width as (n, 3, height, width)."""
    inputs = [image, "resize/starts", sides, "resize/axes"]
    part = writer.add("Slice", inputs, f"{name}/nhwc")
    return writer.add("Transpose", [part], name, perm=[0, 3, 1, 2])


def _write_weights(writer: GraphWriter, side: str, *, axis: int) -> str:
    """Write the matrix of one pass: (in, 2 out) for axis 1, the width; (2 out, in) for axis 0."""
    at, index = f"resize/{side}", "resize/second" if axis == 1 else "resize/first"
    triangle = _write_triangle(writer, at, index, is_width=axis == 1)
    other = "resize/first" if axis == 1 else "resize/second"
    total = writer.add("ReduceSum", [triangle, other], f"{at}/total", keepdims=1)
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
    return writer.add("Concat", [high, low], f"{at}/weights", axis=axis)


def _write_triangle(writer: GraphWriter, at: str, index: str, *, is_width: bool) -> str:
    """Write the filter's value for every pair of pixels, (in, out) or transposed, not negative."""
    writer.add("Gather", ["resize/from_sides", index], f"{at}/in_vector", axis=0)  # (1,)
    writer.add("Squeeze", [f"{at}/in_vector"], f"{at}/in")  # ()
    writer.add("Cast", [f"{at}/in"], f"{at}/in_float", to=TensorProto.FLOAT)
    # (2 i + 1) out of every pixel i read.
    writer.add("Range", ["resize/zero", f"{at}/in", "resize/one"], f"{at}/range")
    writer.add("Cast", [f"{at}/range"], f"{at}/range_float", to=TensorProto.FLOAT)
    writer.add("Mul", [f"{at}/range_float", "resize/twice_px"], f"{at}/twice_range")
    inputs = writer.add("Add", [f"{at}/twice_range", "resize/px"], f"{at}/inputs")  # (in,)
    # (2 j + 1) in of every pixel j written.
    writer.add("Gather", ["resize/to_sides", index], f"{at}/out", axis=0)  # (1,)
    writer.add("Slice", ["resize/odd", "resize/first", f"{at}/out"], f"{at}/odd")
    outputs = writer.add("Mul", [f"{at}/odd", f"{at}/in_float"], f"{at}/outputs")  # (out,)
    column, row = (inputs, outputs) if is_width else (outputs, inputs)
    writer.add("Unsqueeze", [column, "resize/second"], f"{at}/column")
    writer.add("Unsqueeze", [row, "resize/first"], f"{at}/row")
    writer.add("Sub", [f"{at}/column", f"{at}/row"], f"{at}/difference")
    writer.add("Abs", [f"{at}/difference"], f"{at}/distance")
    writer.add("Max", [f"{at}/in_float", "resize/px"], f"{at}/longer")
    writer.add("Add", [f"{at}/longer", f"{at}/longer"], f"{at}/reach")
    writer.add("Sub", [f"{at}/reach", f"{at}/distance"], f"{at}/rest")
    return writer.add("Relu", [f"{at}/rest"], f"{at}/triangle")


def _write_rounding(writer: GraphWriter, sums: str, side: str, *, axis: int) -> str:
    """Write the sums with high and low weights to whole levels: (sum + 2^21) >> 22."""
    at = f"resize/{side}"
    outputs = [f"{at}/high_sum", f"{at}/low_sum"]
    writer.split(sums, outputs, axis=axis)
    writer.add("Add", [outputs[1], "resize/rounding"], f"{at}/low_rounded")
    writer.add("Mul", [f"{at}/low_rounded", "resize/low"], f"{at}/carry_share")
    writer.add("Floor", [f"{at}/carry_share"], f"{at}/carry")
    writer.add("Add", [outputs[0], f"{at}/carry"], f"{at}/sum")
    writer.add("Mul", [f"{at}/sum", "resize/low"], f"{at}/level_share")
    return writer.add("Floor", [f"{at}/level_share"], f"{at}/level")
