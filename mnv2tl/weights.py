"""Base weights by name or by path, as arrays.

Nothing here reaches the network: named weights are in the cache already, or the error says how to
fetch them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store, weight_cache, weight_file
from mnv2tl.mobilenet import array_shapes
from mnv2tl.weight_sources import LICENCES, SOURCES, check_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All arrays of a MobileNetV2 without its top, and where they come from."""

    arrays: Mapping[str, NDArray[np.float32]]
    """Key such as `Conv1/kernel` -> array, in the order of `mobilenet.array_shapes`."""
    name: str
    """The source: a name of `weight_sources.SOURCES`, or the path's last part."""
    sha256: str
    """SHA-256 of the arrays, whatever file they came in."""
    licence: str
    """SPDX name, or "unknown" for a path."""
    px: int | None
    """Side in pixels of the images that they were trained on; None if not known."""


def load(source: str, *, alpha: float = 1.0, image_px: int = 224, seed: int = 0) -> Weights:
    """Return base weights from the cache, from a path, or new ones; never from the network.

    Args:
        source: A name of `weight_sources.SOURCES`, or the path of a `.keras`, `.weights.h5` or
            `.h5` file.
        alpha: Width of the network, one of `mobilenet.ALPHAS`.
        image_px: Side of the model's input in pixels; `imagenet` has a file for each of
            `mobilenet.SIZES_PX`.
        seed: For `none`.

    Raises:
        ValueError: The source is neither a name nor a path of a known kind, or alpha or image_px
            is not allowed.
        ArtifactError: The file is missing (E414), damaged (E412), not the one that was fetched
            (E413), of another shape (E415), or holds values that are not finite (E602).
    """
    check_source(source)
    shapes = array_shapes(alpha)
    if source == "none":
        return _weights(initial_arrays(alpha, seed), source, px=None)
    if source in SOURCES:
        content = weight_cache.read_cached(source, alpha=alpha, image_px=image_px)
        path = weight_cache.cached_path(source, alpha=alpha, image_px=image_px)
        px = weight_cache.DOGS_PX if source == "imagenet-dogs" else image_px
        return _weights(weight_file.read_arrays(content, shapes, path=path), source, px=px)
    path = Path(source)
    content = weight_file.read_content(path)
    return _weights(weight_file.read_arrays(content, shapes, path=path), path.name, px=None)


def verify(file: weight_cache.CachedFile) -> Weights:
    """Check hash, shapes and values of one cached file; raise what `load` raises."""
    return load(file.name, alpha=file.alpha, image_px=file.px)


def initial_arrays(alpha: float, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return untrained arrays, drawn by NumPy: drawing by a framework takes 15 s on JAX.

    Kernels are He uniform (He et al., "Delving Deep into Rectifiers", arXiv:1502.01852); Keras'
    default, Glorot uniform, halves the signal in every layer until nothing reaches the last ones.
    Normalisation starts as the identity. Each array has a generator of its own, so that it does
    not depend on the others.
    """
    drawn: dict[str, NDArray[np.float32]] = {}
    for number, (key, shape) in enumerate(array_shapes(alpha).items()):
        part = key.rpartition("/")[2]
        if part == "kernel":
            is_depthwise = shape[3] == 1
            inputs = shape[0] * shape[1] * (1 if is_depthwise else shape[2])
            limit = np.sqrt(6.0 / inputs)
            generator = np.random.default_rng((seed, number))
            drawn[key] = generator.uniform(-limit, limit, shape).astype(np.float32)
        else:
            fill = 1.0 if part in ("gamma", "moving_variance") else 0.0
            drawn[key] = np.full(shape, fill, dtype=np.float32)
    return drawn


def hash_arrays(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """Return the SHA-256 of arrays with their keys and shapes, in whatever order they stand."""
    parts = {
        key: [list(array.shape), store.sha256_bytes(np.ascontiguousarray(array, "<f4").tobytes())]
        for key, array in arrays.items()
    }
    return store.sha256_json(parts)


def _weights(arrays: dict[str, NDArray[np.float32]], name: str, *, px: int | None) -> Weights:
    licence = LICENCES.get(name, "unknown")
    return Weights(arrays=arrays, name=name, sha256=hash_arrays(arrays), licence=licence, px=px)
