"""Layers that are fast where Keras runs JAX on a CPU, and BatchNorm on a graphics card too.

XLA computes a depthwise convolution on a CPU as one small convolution per channel, 20 times slower
than the nine shifted multiply-adds that it is, and its gradient slower still. A 1x1 convolution is
a matrix product; so is one over a picture's three channels, once its windows are gathered. The
gradient of BatchNorm is two sums, where JAX's own rule makes four. The layers hold the weights of
the stock layers by the same names; they are never saved, see `keras_model.build_model`.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import keras

from mnv2tl import backend

Array = Any
"""A JAX array or tracer."""


class ShiftedDepthwise(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """Keras' DepthwiseConv2D without bias: square kernel and strides, one output per channel."""

    def call(self, inputs: Array) -> Array:
        """Return the convolution, shape (n, height, width, channels)."""
        if self.padding == "same":
            side = self.kernel_size[0] // 2  # right for stride 1, which is all that has 'same'
            inputs = jnp.pad(inputs, ((0, 0), (side, side), (side, side), (0, 0)))
        # Without it XLA computes what comes before anew for the shifts that miss the border.
        inputs = jax.lax.optimization_barrier(inputs)
        kernel = keras.ops.convert_to_tensor(self.kernel)[..., 0]
        return convolve_channels(inputs, kernel, self.strides[0])


class PointwiseConv(keras.layers.Conv2D):  # type: ignore[misc]
    """Keras' Conv2D without bias for a 1x1 kernel and stride 1."""

    def call(self, inputs: Array) -> Array:
        """Return the convolution, shape (n, height, width, filters)."""
        kernel = keras.ops.convert_to_tensor(self.kernel)[0, 0]
        outputs = inputs.reshape(-1, inputs.shape[-1]) @ kernel
        return outputs.reshape(*inputs.shape[:-1], self.filters)


class GatheredConv(keras.layers.Conv2D):  # type: ignore[misc]
    """Keras' Conv2D without bias: square kernel and strides, padding 'same', few channels."""

    def call(self, inputs: Array) -> Array:
        """Return the convolution, shape (n, height / stride, width / stride, filters), rounded up.

        The gradient with respect to the inputs is right, but was not made fast.
        """
        kernel = keras.ops.convert_to_tensor(self.kernel)
        _, height, width, _ = inputs.shape
        sides = [_pad_same(size, len(kernel), self.strides[0]) for size in (height, width)]
        padded = jnp.pad(inputs, ((0, 0), *sides, (0, 0)))
        shifts = [_shift(padded, kernel, self.strides[0], at) for at in _list_shifts(kernel)]
        windows = jnp.concatenate(shifts, axis=-1)  # (n, rows, columns, side * side * channels)
        outputs = windows.reshape(-1, windows.shape[-1]) @ kernel.reshape(-1, self.filters)
        return outputs.reshape(*windows.shape[:-1], self.filters)


class SummedBatchNorm(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Keras' BatchNormalization of images over the last axis; another gradient when it trains."""

    def call(self, inputs: Array, training: bool | None = None) -> Array:
        """Return the normalised images; training moves the means and variances."""
        if not (training and self.trainable):
            return super().call(inputs, training=training)
        # Of float32 whatever the layer computes in, as Keras keeps them.
        gamma, beta = (each.value for each in (self.gamma, self.beta))
        outputs, *moments = normalise_batch(inputs, gamma, beta, self.epsilon)
        for moving, now in zip((self.moving_mean, self.moving_variance), moments, strict=True):
            moving.assign(moving * self.momentum + now * (1.0 - self.momentum))
        return outputs


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_batch(
    pixels: Array, gamma: Array, beta: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Return the pixels normalised by channel, and the mean and variance of each channel.

    Args:
        pixels: Shape (n, height, width, channels).
        gamma: Factor after normalisation, shape (channels,).
        beta: Summand after it, of the same shape.
        epsilon: Added to the variance.

    Returns:
        The outputs, which alone have a gradient; mean; variance.
    """
    return _normalise(pixels, gamma, beta, epsilon)[0]


def _normalise(
    pixels: Array, gamma: Array, beta: Array, epsilon: float
) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
    count = pixels.size // pixels.shape[-1]
    floats = pixels.astype(jnp.float32)  # sums of bfloat16 would be wrong
    mean = _sum_positions(floats) / count
    variance = _sum_positions(jnp.square(floats - mean)) / count
    inverse = jax.lax.rsqrt(variance + epsilon)
    factor = inverse * gamma
    factor, summand = jax.lax.optimization_barrier((factor, beta - mean * factor))
    outputs = (floats * factor + summand).astype(pixels.dtype)
    return (outputs, mean, variance), (pixels, mean, inverse, factor)


def _normalise_backward(
    epsilon: float, kept: tuple[Array, ...], gradients: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """Return the gradients by pixels, gamma and beta.

    Ioffe and Szegedy, "Batch Normalization", arXiv:1502.03167, section 3, solved for the pixels.
    """
    del epsilon
    (pixels, mean, inverse, factor), gradient = kept, gradients[0].astype(jnp.float32)
    count = pixels.size // pixels.shape[-1]
    floats = pixels.astype(jnp.float32)
    by_beta = _sum_positions(gradient)
    by_gamma = _sum_positions(gradient * (floats - mean)) * inverse
    slope = factor * inverse * by_gamma / count
    # Without it XLA computes the channels' numbers anew for every pixel.
    slope, level = jax.lax.optimization_barrier((slope, slope * mean - factor * by_beta / count))
    by_pixels = factor * gradient - floats * slope + level
    return by_pixels.astype(pixels.dtype), by_gamma, by_beta


normalise_batch.defvjp(_normalise, _normalise_backward)


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
    rows, columns = kernel.shape[:2]
    return [(row, column) for row in range(rows) for column in range(columns)]


def _shift(pixels: Array, kernel: Array, stride: int, at: tuple[int, int]) -> Array:
    """Return the pixels that one element of the kernel meets, in the shape of the output."""
    (_, height, width, _), (rows, columns, *_) = pixels.shape, kernel.shape
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


def _pad_same(size: int, side: int, stride: int) -> tuple[int, int]:
    """Return what Keras' padding 'same' adds before and after."""
    total = max((-(-size // stride) - 1) * stride + side - size, 0)
    return total // 2, total - total // 2


def _sum_positions(values: Array) -> Array:
    """Return the sum over all but the last axis, shape (channels,).

    On a CPU XLA adds along leading axes one float at a time. Adding a few rows element by element
    first, and the rest as a product with ones, keeps the processor's vectors full: 3 times faster.
    """
    if backend.has_gpu("jax"):
        return values.sum((0, 1, 2))
    n, height, width, channels = values.shape
    rows = max(count for count in range(1, 9) if height % count == 0)
    grouped = values.reshape(n, height // rows, rows, width, channels)
    few = _add(grouped[:, :, row] for row in range(rows)).reshape(-1, channels)
    return jnp.ones(len(few), few.dtype) @ few


def _add(terms: Any) -> Array:
    return functools.reduce(operator.add, terms)
