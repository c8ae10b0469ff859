"""Grad-CAM in closed form: which part of a picture speaks for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, arXiv:1610.02391. With A the last convolutional feature map of
Z = height * width places, and y the logit of class c, equations 1 and 2 are

    alpha_k = 1/Z * sum over places of dy/dA_k      map = ReLU(sum over k of alpha_k * A_k)

Behind that map this network has global average pooling and one Dense layer, with weights w and
bias b, and nothing else: y = b + sum over k of w_k * mean(A_k). So dy/dA_k is w_k/Z at every
place, alpha_k is w_k/Z, and the map needs no gradient: NumPy gives it from the features, for every
runtime and backend alike. (Section 3.1 of the paper shows the same of CAM, Zhou et al. 2016.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]

_WARM = np.array([255, 140, 0], np.float32)
_STRENGTH = 0.7
_HALF = 0.5


def class_maps(
    features: Floats, kernel: Floats, labels: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """Return the Grad-CAM map of one class for each image.

    Args:
        features: The last feature map, after its ReLU6, shape (n, height, width, channels).
        kernel: Weights of the Dense layer, shape (channels, classes).
        labels: The class that each map is for, shape (n,).

    Returns:
        Shape (n, height, width), 0 or more. Before the ReLU its sum over the places would be the
        logit without the bias.
    """
    places = features.shape[1] * features.shape[2]
    maps = np.einsum("nhwk,kn->nhw", features, kernel[:, labels], optimize=True) / places
    return np.asarray(np.maximum(maps, 0.0), np.float32)


def overlay(picture: Image.Image, class_map: Floats) -> Image.Image:
    """Lay a map over a picture: grey where nothing speaks for the class, warm where much does.

    A line surrounds what is above half of the largest value, so that colour is not the only sign.

    Args:
        picture: RGB, of any size; the map is stretched over all of it.
        class_map: Shape (height, width), 0 or more; scaled to its own largest value.
    """
    grey = np.asarray(picture.convert("L"), np.float32)[..., np.newaxis]  # (h, w, 1)
    heat = _enlarge(class_map, picture.size)[..., np.newaxis]  # (h, w, 1)
    blend = grey + _STRENGTH * heat * (_WARM - grey)  # (h, w, 3)
    line = _border(heat[..., 0] > _HALF)
    # Black on what is light and white on what is dark.
    blend[line] = np.where(blend[line].mean(axis=1, keepdims=True) > 127, 0, 255)
    return Image.fromarray(np.clip(blend, 0, 255).astype(np.uint8))


def _enlarge(class_map: Floats, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the map with values 0 to 1 at another size (width, height)."""
    largest = float(class_map.max()) or 1.0
    scaled = np.asarray(class_map / largest, np.float32)
    image = Image.fromarray(scaled).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image, np.float32), 0.0, 1.0)


def _border(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a region that have a neighbour outside of it."""
    padded = np.pad(inside, 1, mode="edge")
    around = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside & ~around
