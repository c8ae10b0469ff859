"""Convolutions that are fast where Keras runs JAX on a CPU; elsewhere stock layers are used.

XLA computes a depthwise convolution on a CPU as one small convolution per channel, 20 times slower
than the nine shifted multiply-adds that it is, and its gradient slower still. A 1x1 convolution is
a matrix product. The layers hold the weights of the stock layers by the same names; they are never
saved, see `keras_model.build_model`.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import keras

Array = Any
"""A JAX array or tracer."""


class ShiftedDepthwise(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """Keras' DepthwiseConv2D without bias: square kernel and strides, one output per channel."""

    def call(self, inputs: Array) -> Array:
        """Return the convolution, shape (n, height, width, channels)."""
        if self.padding == "same":
            side = self.kernel_size[0] // 2  # right for stride 1, which is all that has 'same'
            inputs = jnp.pad(inputs, ((0, 0), (side, side), (side, side), (0, 0)))
        kernel = keras.ops.convert_to_tensor(self.kernel)[..., 0]
        return convolve_channels(inputs, kernel, self.strides[0])


class PointwiseConv(keras.layers.Conv2D):  # type: ignore[misc]
    """Keras' Conv2D without bias for a 1x1 kernel and stride 1."""

    def call(self, inputs: Array) -> Array:
        """Return the convolution, shape (n, height, width, filters)."""
        kernel = keras.ops.convert_to_tensor(self.kernel)[0, 0]
        outputs = inputs.reshape(-1, inputs.shape[-1]) @ kernel
        return outputs.reshape(*inputs.shape[:-1], self.filters)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_channels(pixels: Array, kernel: Array, stride: int) -> Array:
    """Return each channel's convolution with its own kernel, without padding.

    Args:
        pixels: Shape (n, height, width, channels).
        kernel: Shape (rows, columns, channels), rows and columns not less than the stride.
        stride: Step along both sides.

    Returns:
        Shape (n, (height - rows) // stride + 1, (width - columns) // stride + 1, channels).
    """
    shifts = _list_shifts(kernel)
    return _add(_shift(pixels, kernel, stride, at) * kernel[at] for at in shifts)


def _forward(pixels: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolve_channels(pixels, kernel, stride), (pixels, kernel)


def _backward(stride: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    pixels, kernel = kept
    shifts = _list_shifts(kernel)
    sums = [_sum_positions(_shift(pixels, kernel, stride, at) * gradient) for at in shifts]
    kernel_gradient = jnp.stack(sums).reshape(kernel.shape)
    return _spread(gradient, kernel, stride, pixels.shape), kernel_gradient


convolve_channels.defvjp(_forward, _backward)


def _list_shifts(kernel: Array) -> list[tuple[int, int]]:
    rows, columns, _ = kernel.shape
    return [(row, column) for row in range(rows) for column in range(columns)]


def _shift(pixels: Array, kernel: Array, stride: int, at: tuple[int, int]) -> Array:
    """Return the pixels that one element of the kernel meets, in the shape of the output."""
    (_, height, width, _), (rows, columns, _) = pixels.shape, kernel.shape
    row, column = at
    bottom, right = row + height - rows + 1, column + width - columns + 1
    return pixels[:, row:bottom:stride, column:right:stride]


def _spread(gradient: Array, kernel: Array, stride: int, shape: tuple[int, ...]) -> Array:
    """Return the gradient with respect to the pixels, of their shape.

    Pixels whose row and column leave the same remainder by the stride met the same elements of
    the kernel: each such group is a sum of shifted gradients, and the groups are then interleaved.
    """
    before = -(-(len(kernel) - 1) // stride)
    padded = jnp.pad(gradient, ((0, 0), (before, before), (before, before), (0, 0)))
    n, height, width, channels = shape
    rows, columns = gradient.shape[1] + before, gradient.shape[2] + before
    groups = [
        _add(
            padded[:, before - i // stride :, before - j // stride :][:, :rows, :columns]
            * kernel[i, j]
            for i, j in _list_shifts(kernel)
            if i % stride == row and j % stride == column
        )
        for row in range(stride)
        for column in range(stride)
    ]
    grid = jnp.stack(groups).reshape(stride, stride, n, rows, columns, channels)
    pixels = grid.transpose(2, 3, 0, 4, 1, 5).reshape(n, rows * stride, columns * stride, channels)
    return pixels[:, :height, :width]


def _sum_positions(values: Array) -> Array:
    """Return the sum over all but the last axis, shape (channels,).

    XLA adds along leading axes one float at a time. Adding a few rows element by element first,
    and the rest as a product with ones, keeps the processor's vectors full: 3 times faster.
    """
    n, height, width, channels = values.shape
    rows = max(count for count in range(1, 9) if height % count == 0)
    grouped = values.reshape(n, height // rows, rows, width, channels)
    few = _add(grouped[:, :, row] for row in range(rows)).reshape(-1, channels)
    return jnp.ones(len(few), few.dtype) @ few


def _add(terms: Any) -> Array:
    return functools.reduce(operator.add, terms)
