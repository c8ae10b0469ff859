"""The resize rule of `mnv2tl.data.images.resize` as TensorFlow operators, equal to it bit by bit.

The arithmetic is that of `onnx_resize`: weights are the multiples of 2^-22 that Pillow rounds to,
in two halves of 11 bits, so that float32 holds every sum exactly, and a block of pixels written
reads a window of those read. `tf.image.resize` is not used: two passes of it with antialias differ
from Pillow by up to 2 levels, and took a third longer for 480 x 640 pixels (TensorFlow 2.21).
"""

from __future__ import annotations

import tensorflow as tf

_HALF_BITS = 11
"""Half of Pillow's PRECISION_BITS, 32 - 8 - 2."""
_BLOCK = 16
"""Pixels written by one block; every side that MobileNetV2 has weights for is a multiple."""
_HIGH, _LOW = 2.0**_HALF_BITS, 2.0**-_HALF_BITS
_ROUNDING = 2.0 ** (2 * _HALF_BITS - 1)


def resize(image: tf.Tensor, image_px: int) -> tf.Tensor:
    """Return uint8 (n, h, w, 3) of any h and w as uint8 (n, image_px, image_px, 3).

    Args:
        image: At least one pixel high and wide.
        image_px: Side of the output in pixels, a multiple of 16.
    """
    if image_px % _BLOCK:
        raise ValueError(f"image_px must be a multiple of {_BLOCK}, got {image_px}")
    is_square = tf.reduce_all(tf.equal(tf.shape(image)[1:3], image_px))
    resized = tf.cond(is_square, lambda: image, lambda: _resize_both(image, image_px))
    return tf.ensure_shape(resized, (None, image_px, image_px, 3))


def _resize_both(image: tf.Tensor, image_px: int) -> tf.Tensor:
    columns = tf.transpose(image, (0, 2, 1, 3))  # (n, w, h, 3)
    columns = _resize_rows(columns, image_px)  # (n, px, h, 3)
    return _resize_rows(tf.transpose(columns, (0, 2, 1, 3)), image_px)  # (n, px, px, 3)


def _resize_rows(image: tf.Tensor, image_px: int) -> tf.Tensor:
    """Return uint8 (n, rows, w, 3) as uint8 (n, image_px, w, 3)."""
    count, rows, width = tf.unstack(tf.shape(image, out_type=tf.int64)[:3])
    reads, weights = _filters(rows, image_px)
    flat = tf.reshape(image, (count, rows, 3 * width))
    windows = tf.cast(tf.gather(flat, reads, axis=1), tf.float32)  # (n, blocks, length, 3 w)
    high, low = tf.split(tf.matmul(weights, windows), 2, axis=2)  # (n, blocks, 16, 3 w)
    # (sum + 2^21) >> 22
    levels = tf.floor((high + tf.floor((low + _ROUNDING) * _LOW)) * _LOW)
    return tf.cast(tf.reshape(levels, (count, image_px, width, 3)), tf.uint8)


def _filters(rows: tf.Tensor, image_px: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return which rows each block reads, and their weights.

    Returns:
        int64 (blocks, length), all of them inside, and float32 (blocks, 32, length), whole numbers:
        high halves before low ones.
    """
    # In units of 1 / (2 px) rows read: the triangle's reach, and the centres of rows written.
    reach = 2 * tf.maximum(rows, image_px)
    centres = (2 * tf.range(image_px, dtype=tf.int64) + 1) * rows
    centres = tf.reshape(centres, (-1, _BLOCK))  # (blocks, 16)
    length = tf.minimum(((_BLOCK - 1) * rows + reach) // image_px + 2, rows)
    start = (centres[:, :1] - reach) // (2 * image_px)
    reads = tf.clip_by_value(start, 0, rows - length) + tf.range(length)  # (blocks, length)
    places = (2 * reads + 1) * image_px
    distance = tf.abs(places[:, tf.newaxis] - centres[:, :, tf.newaxis])  # (blocks, 16, length)
    triangle = tf.cast(tf.maximum(reach - distance, 0), tf.float64)
    share = triangle / tf.reduce_sum(triangle, axis=2, keepdims=True)
    weights = tf.floor(share * _HIGH * _HIGH + 0.5)
    # The nearest, not the next lower: low halves of both signs keep their sum small.
    high = tf.floor(weights * _LOW + 0.5)
    halves = tf.concat((high, weights - high * _HIGH), axis=1)
    return reads, tf.cast(halves, tf.float32)
