"""Weights for networks of the tests, drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mnv2tl.mobilenet import DENSE, Layer, layer_array_shapes, list_layers

Arrays = dict[str, NDArray[np.float32]]


def draw_arrays(layers: Sequence[Layer], seed: int = 1) -> Arrays:
    """Return weights that keep the signal's size, with BatchNorm statistics unlike the defaults."""
    shapes = [item for layer in layers for item in layer_array_shapes(layer).items()]
    return _draw(dict(shapes), seed)


def draw_network(*, classes: int, image_px: int = 96, seed: int = 1) -> Arrays:
    """Return such weights for a whole narrow network and its Dense layer."""
    layers = list_layers(alpha=0.35, image_px=image_px)
    shapes = dict(item for layer in layers for item in layer_array_shapes(layer).items())
    shapes |= {f"{DENSE}/kernel": (layers[-1].channels, classes), f"{DENSE}/bias": (classes,)}
    return _draw(shapes, seed)


def _draw(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    arrays = {}
    for key, shape in shapes.items():
        if key.endswith("/kernel"):
            fan_in = math.prod(shape[:2]) if "depthwise" in key else math.prod(shape[:-1])
            array = rng.normal(0.0, math.sqrt(2 / fan_in), shape)
        elif key.endswith(("/gamma", "/moving_variance")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(0.0, 0.1, shape)
        arrays[key] = array.astype(np.float32)
    return arrays
