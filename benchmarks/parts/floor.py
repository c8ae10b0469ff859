"""The least that a computation could take here: operations over the peak, bytes over the bandwidth.

Peak and bandwidth are measured, not looked up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mnv2tl.mobilenet import Layer
from mnv2tl.parallel import count_workers

TRAINING = 3
"""A step computes outputs, gradients of inputs and gradients of weights, at equal cost each."""

_FLOAT_BYTES = 4
_MATRIX = 2048
_COPIED_BYTES = 2**29


def count_multiply_adds(layers: Sequence[Layer], *, classes: int) -> int:
    """Return the multiply-adds of convolutions and Dense layer for one image, forward.

    >>> from mnv2tl.mobilenet import list_layers
    >>> round(count_multiply_adds(list_layers(), classes=1000) / 1e6)  # table 4 of the paper: 300
    301
    """
    total = layers[-1].channels * classes
    for layer in layers:
        each = layer.px**2 * layer.channels * layer.kernel_px**2
        if layer.kind == "conv":
            total += each * layer.in_channels
        elif layer.kind == "depthwise":
            total += each
    return total


def count_moved_bytes(layers: Sequence[Layer]) -> int:
    """Return the bytes that one image's float32 activations move, forward, at least.

    The output of each convolution and sum is written once and read once; BatchNorm, ReLU6 and
    padding are taken to happen on the way.
    """
    kinds = ("conv", "depthwise", "add")
    values = sum(layer.px**2 * layer.channels for layer in layers if layer.kind in kinds)
    return 2 * _FLOAT_BYTES * values


def measure_peak() -> float:
    """Return the operations per second of NumPy's float32 matrix product, on all cores."""
    matrix = np.random.default_rng(0).random((_MATRIX, _MATRIX), np.float32)
    seconds = _best(lambda: matrix @ matrix)
    return float(2 * _MATRIX**3 / seconds)


def measure_bandwidth() -> float:
    """Return the bytes per second, read and written, of copying a large array on all cores."""
    source = np.ones(_COPIED_BYTES, np.uint8)
    target = np.zeros_like(source)
    workers = count_workers()
    parts = list(zip(np.array_split(target, workers), np.array_split(source, workers), strict=True))
    with ThreadPoolExecutor(workers) as pool:
        seconds = _best(lambda: list(pool.map(lambda pair: np.copyto(*pair), parts)))
    return 2 * _COPIED_BYTES / seconds


def describe_floor(layers: Sequence[Layer], *, classes: int) -> dict[str, Any]:
    """Measure the machine and return the least ms per image, forward and for a training step."""
    peak, bandwidth = measure_peak(), measure_bandwidth()
    operations = 2 * count_multiply_adds(layers, classes=classes)
    moved = count_moved_bytes(layers)
    compute, memory = 1000 * operations / peak, 1000 * moved / bandwidth
    return {
        "operations_per_image": operations,
        "bytes_per_image": moved,
        "peak_gflops": peak / 1e9,
        "bandwidth_gb_per_second": bandwidth / 1e9,
        "forward_ms": {"operations": compute, "bytes": memory},
        "training_ms": {"operations": TRAINING * compute, "bytes": TRAINING * memory},
    }


def _best(call: Callable[[], object]) -> float:
    """Return the seconds of the quickest of some calls: nothing else is the peak."""
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
