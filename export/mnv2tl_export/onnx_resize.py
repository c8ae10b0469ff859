"""The resize rule of `mnv2tl.data.images.resize` as plain ONNX operators, equal to it bit by bit.

Each pass is a product with matrices of filter weights that the graph computes from the picture's
height and width. ONNX's own `Resize` is not used: its antialias needs opset 18, it rounds once
instead of after each pass, and OpenVINO ignores it without a word.

Pillow rounds each weight to a multiple of 2^-22 (PRECISION_BITS in src/libImaging/Resample.c,
13.0), and a level that lies between two whole ones falls to the side that these roundings decide:
of a picture of 64 pixels stretched to 96, every tenth one. So the weights here are the same
multiples (of sides above 900 pixels, fewer than one in a thousand is the next one), split into a
high and a low part of 11 bits: every sum of their products with levels is one that float32 holds
exactly, whatever the order in which a runtime adds, if a pixel written needs at most 64 of those
read.

With `in` pixels read and `px` written, lengths are in units of 1 / px pixels read: the centre of
pixel i read lies at i px, that of pixel j written at (j + 1/2) in - px / 2, and the triangle
reaches max(in, px) far. These are multiples of a half, which float32 holds up to 37,532 pixels a
side at 224.

A pixel written needs few of those read, so a pass works in blocks of `_BLOCK` pixels written, each
of which reads a window. What both sides need is computed at once, in arrays with height before
width on their first axis; the longer windows are cut to those of the other side at the end.

A picture that has the right size already goes past: the resize is the body of a `Loop` that runs
once or not at all. An `If` would say it more plainly, but OpenVINO 2026.4 gives wrong probabilities
for one, by up to 0.7 and without a word. For a loop that does not run it gives what the last one
made that did; so of that only the rows are taken that the loop has made this time.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, TensorProto, helper

from mnv2tl.onnx_graph import GraphWriter

_HALF_BITS = 11
"""Half of Pillow's PRECISION_BITS, 32 - 8 - 2."""
_BLOCK = 16
"""Pixels written by one block; every side that MobileNetV2 has weights for is a multiple."""
_SIDES = ("height", "width")
_END = 2**31 - 1
"""Where a slice ends that takes all."""


def write_resize(writer: GraphWriter, image: str, image_px: int) -> str:
    """Write uint8 (n, h, w, 3) of any h and w to uint8 (n image_px, 3 image_px).

    Each row of the output is a row of a picture, with the three colours of a pixel side by side:
    (n, image_px, image_px, 3) in memory.

    Args:
        writer: Takes the nodes; their names start with `resize/`.
        image: Name of the input, at least one pixel high and wide.
        image_px: Side of the output in pixels, a multiple of 16.
    """
    if image_px % _BLOCK:
        raise ValueError(f"image_px must be a multiple of {_BLOCK}, got {image_px}")
    _write_constants(writer, image_px)
    # 1 where a side is another one, else 0: how often the loop runs.
    writer.add("Shape", [image], "resize/sides", start=1, end=3)  # (2,): height, width
    writer.add("Sub", ["resize/sides", "resize/square"], "resize/excess")
    writer.add("ReduceSumSquare", ["resize/excess"], "resize/difference", keepdims=0)
    runs = writer.add("Sign", ["resize/difference"], "resize/runs")
    inputs = [runs, "resize/true", "resize/no_rows"]
    made = writer.add("Loop", inputs, "resize/made", body=_make_body(image))
    made_end = writer.add("Mul", [runs, "resize/all"], "resize/made_end")
    made_now = writer.add("Slice", [made, "resize/zero", made_end], "resize/made_now")
    made_rows = writer.add("Reshape", [made_now, "resize/rows_shape"], "resize/made_rows")
    # No picture, or all of them.
    kept_end = writer.add("Sub", ["resize/all", made_end], "resize/kept_end")
    kept = writer.add("Slice", [image, "resize/zero", kept_end], "resize/kept")
    kept_rows = writer.add("Reshape", [kept, "resize/rows_shape"], "resize/kept_rows")
    return writer.add("Concat", [kept_rows, made_rows], "resize/output", axis=0)


def _make_body(image: str) -> GraphProto:
    """Return what the loop does: uint8 (n, h, w, 3) to uint8 (n px, 3 px)."""
    writer = GraphWriter()
    _write_lengths(writer)
    _write_windows(writer)
    _write_weights(writer)
    # Both transpositions turn one matrix, which runtimes do fast.
    x = writer.add("Transpose", [image], "resize/columns", perm=[0, 2, 3, 1])  # (n, w, 3, h)
    x = writer.add("Reshape", [x, "resize/join_last"], "resize/joined_columns")  # (n, w, 3 h)
    x = _write_pass(writer, x, "width")  # (n, 1, blocks, 16, 3 h)
    x = writer.add("Reshape", [x, "resize/columns_shape"], "resize/joined_rows")  # (n, 3 px, h)
    x = writer.add("Transpose", [x], "resize/rows", perm=[0, 2, 1])  # (n, h, 3 px)
    x = _write_pass(writer, x, "height")  # (n, 1, blocks, 16, 3 px)
    x = writer.add("Flatten", [x], "resize/joined", axis=-1)  # (n px, 3 px)
    x = writer.add("Cast", [x], "resize/uint8", to=TensorProto.UINT8)
    # A loop also hands on whether it goes on.
    go_on = writer.add("Identity", ["resize/is_on"], "resize/goes_on")
    described = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("resize/run", TensorProto.INT64, ()),
            ("resize/is_on", TensorProto.BOOL, ()),
            ("resize/rows_before", TensorProto.UINT8, (None, None)),
            (go_on, TensorProto.BOOL, ()),
            (x, TensorProto.UINT8, (None, None)),
        )
    ]
    return helper.make_graph(writer.nodes, "resize", described[:3], described[3:])


def _write_constants(writer: GraphWriter, image_px: int) -> None:
    for name, integers in (
        ("square", [image_px, image_px]),
        ("all", [_END]),
        ("zero", [0]),
        ("one", [1]),
        ("two", [2]),
        ("last", [-1]),
        ("inner_axes", [1, 2, 3]),
        # A zero keeps a side.
        ("join_last", [0, 0, -1]),
        ("columns_shape", [0, 3 * image_px, -1]),
        ("rows_shape", [-1, 3 * image_px]),
    ):
        writer.constant(f"resize/{name}", np.array(integers, np.int64))
    for name, value in (
        ("none", 0),
        ("step", 1),
        ("px", image_px),
        ("half_px", image_px / 2),
        ("window_share", (_BLOCK + 1) / image_px),
        ("margin", 2),
        ("low", 2.0**-_HALF_BITS),
        ("rounding", 2 ** (_HALF_BITS - 1)),
    ):
        writer.constant(f"resize/{name}", np.array(value, np.float32))
    writer.constant("resize/true", np.array(True))
    writer.constant("resize/no_rows", np.zeros((0, 3 * image_px), np.uint8))
    # j + 1/2 of every pixel j written.
    middles = np.arange(image_px, dtype=np.float32).reshape(1, -1, _BLOCK, 1) + 0.5
    writer.constant("resize/middles", middles)


def _write_lengths(writer: GraphWriter) -> None:
    """Write sides, reaches and centres, in units of 1 / px pixels read."""
    writer.add("Cast", ["resize/sides"], "resize/sides_float", to=TensorProto.FLOAT)
    writer.add("Max", ["resize/sides_float", "resize/px"], "resize/reaches")
    for source, output in (("sides_float", "in"), ("reaches", "reach")):
        inputs = [f"resize/{source}", "resize/inner_axes"]
        writer.add("Unsqueeze", inputs, f"resize/{output}")  # (2, 1, 1, 1)
    writer.add("Mul", ["resize/middles", "resize/in"], "resize/middle_units")
    inputs = ["resize/middle_units", "resize/half_px"]
    writer.add("Sub", inputs, "resize/centres")  # (2, blocks, 16, 1)


def _write_windows(writer: GraphWriter) -> None:
    """Write the pixels that each block reads, int64 (1, blocks, length) for height and width.

    Those beyond the last one are replaced by the first one here, and their weights by zero below.
    """
    # start = (centre of the first pixel written - reach) / px. The weight of the place itself is
    # zero, so no pixel is lost if the quotient is rounded up to a whole one.
    inputs = ["resize/centres", "resize/zero", "resize/one", "resize/two"]
    writer.add("Slice", inputs, "resize/first_centre")  # (2, blocks, 1, 1)
    writer.add("Sub", ["resize/first_centre", "resize/reach"], "resize/start_units")
    writer.add("Div", ["resize/start_units", "resize/px"], "resize/start_px")
    writer.add("Relu", ["resize/start_px"], "resize/start_inside")
    writer.add("Floor", ["resize/start_inside"], "resize/start")
    # With m = reach / px, the outer centres of a block are 15 m pixels apart or less, and triangles
    # reach m to both sides. A start at a whole pixel takes one more, rounding this down another.
    writer.add("Mul", ["resize/reaches", "resize/window_share"], "resize/spans")
    writer.add("Add", ["resize/spans", "resize/margin"], "resize/lengths")  # (2,)
    writer.add("ReduceMax", ["resize/lengths"], "resize/longest", keepdims=0)
    writer.add("Range", ["resize/none", "resize/longest", "resize/step"], "resize/steps")
    writer.add("Add", ["resize/start", "resize/steps"], "resize/reads")  # (2, blocks, 1, length)
    writer.add("Less", ["resize/reads", "resize/in"], "resize/is_inside")
    writer.add("Where", ["resize/is_inside", "resize/reads", "resize/none"], "resize/reads_inside")
    writer.add("Cast", ["resize/reads_inside"], "resize/reads_integer", to=TensorProto.INT64)
    writer.add("Squeeze", ["resize/reads_integer", "resize/two"], "resize/both_reads")
    writer.add("Cast", ["resize/lengths"], "resize/whole_lengths", to=TensorProto.INT64)
    writer.split("resize/whole_lengths", [f"resize/{side}/length" for side in _SIDES], axis=0)
    _write_cut(writer, "reads")


def _write_cut(writer: GraphWriter, name: str) -> None:
    """Write each side's part of an array (2, ..., longest) as (1, ..., its own length)."""
    writer.split(f"resize/both_{name}", [f"resize/{side}/long_{name}" for side in _SIDES], axis=0)
    for side in _SIDES:
        at = f"resize/{side}"
        inputs = [f"{at}/long_{name}", "resize/zero", f"{at}/length", "resize/last"]
        writer.add("Slice", inputs, f"{at}/{name}")


def _write_weights(writer: GraphWriter) -> None:
    """Write the weights of each block, (1, blocks, 32, length) for height and width.

    In units of 2^-11: high parts, which are whole, before low ones, which are multiples of 2^-11
    from -1/2 to 1/2.
    """
    writer.add("Mul", ["resize/reads", "resize/px"], "resize/places")
    writer.add("Sub", ["resize/places", "resize/centres"], "resize/offset")
    writer.add("Abs", ["resize/offset"], "resize/distance")
    writer.add("Sub", ["resize/reach", "resize/distance"], "resize/rest")
    writer.add("Relu", ["resize/rest"], "resize/endless_triangle")
    inputs = ["resize/is_inside", "resize/endless_triangle", "resize/none"]
    triangle = writer.add("Where", inputs, "resize/triangle")  # (2, blocks, 16, length)
    writer.add("ReduceSum", [triangle, "resize/last"], "resize/total", keepdims=1)
    unit = writer.add("Mul", ["resize/total", "resize/low"], "resize/high_unit")
    writer.add("Div", [triangle, unit], "resize/high_share")
    high = writer.add("Round", ["resize/high_share"], "resize/high")
    writer.add("Mul", [high, unit], "resize/taken")
    writer.add("Sub", [triangle, "resize/taken"], "resize/left")
    unit = writer.add("Mul", [unit, "resize/low"], "resize/low_unit")
    writer.add("Div", ["resize/left", unit], "resize/low_share")
    writer.add("Round", ["resize/low_share"], "resize/low_integer")
    low = writer.add("Mul", ["resize/low_integer", "resize/low"], "resize/low_fraction")
    writer.add("Concat", [high, low], "resize/both_weights", axis=2)  # (2, blocks, 32, length)
    _write_cut(writer, "weights")


def _write_pass(writer: GraphWriter, x: str, side: str) -> str:
    """Write (n, in, rest) to whole levels (n, 1, blocks, 16, rest)."""
    at = f"resize/{side}"
    window = writer.add("Gather", [x, f"{at}/reads"], f"{at}/window", axis=1)
    if side == "width":
        window = writer.add("Cast", [window], f"{at}/window_float", to=TensorProto.FLOAT)
    writer.add("MatMul", [f"{at}/weights", window], f"{at}/sums")  # (n, 1, blocks, 32, rest)
    # (high + low) / 2^11 + 1/2, rounded down; high + low would not fit into float32.
    writer.split(f"{at}/sums", [f"{at}/high_sum", f"{at}/low_sum"], axis=-2)
    writer.add("Add", [f"{at}/low_sum", "resize/rounding"], f"{at}/low_rounded")
    writer.add("Floor", [f"{at}/low_rounded"], f"{at}/carry")
    writer.add("Add", [f"{at}/high_sum", f"{at}/carry"], f"{at}/sum")
    writer.add("Mul", [f"{at}/sum", "resize/low"], f"{at}/level_share")
    return writer.add("Floor", [f"{at}/level_share"], f"{at}/level")
