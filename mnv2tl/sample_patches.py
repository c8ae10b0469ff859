"""The sample data `patches`: crops of the photographs that scikit-image's wheel carries."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl.errors import MachineError
from mnv2tl.sample_picture import Picture, encode_png

# Class name -> file and its SHA-256. They ship inside scikit-image's wheel and are PNG: a JPEG's
# pixels would depend on the decoder's version.
_PHOTOGRAPHS = {
    "astronaut": (
        "astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    "brick": ("brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
    "cameraman": ("camera.png", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
    "cat": ("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    "coffee": ("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    "coins": ("coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
    "grass": ("grass.png", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89"),
    "gravel": ("gravel.png", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
    "tissue": ("ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
    "motorcycle": (
        "motorcycle_left.png",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
}
_TRAIN_CROPS, _VAL_CROPS = 40, 10
_CROP_SIDES_PX = (64, 80, 96)
# The middle quarter of the longer side is for validation, what lies on both sides of it for
# training, so that crops of the two splits never share a pixel.
_VAL_BAND = (0.375, 0.625)
# The two-dimensional golden ratio, whose multiples cover a rectangle evenly: Roberts (2018),
# "The unreasonable effectiveness of quasirandom sequences".
_STEP_X, _STEP_Y = 0.7548776662466927, 0.5698402909980532

Pixels = NDArray[np.uint8]
"""uint8, shape (height, width, 3)."""


def make_patches(left_out: list[str]) -> Iterator[Picture]:
    """Yield crops of each photograph, from regions of their own for the two splits."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        message = "scikit-image is not installed, and its wheel carries the photographs"
        raise MachineError("E508", message, fix='install "mnv2tl[demo]", or scikit-image')
    data = Path(found.submodule_search_locations[0]) / "data"
    for class_name, (file_name, sha256) in _PHOTOGRAPHS.items():
        path = data / file_name
        if not path.is_file() or store.sha256_file(path) != sha256:
            left_out.append(f"{file_name}: missing, or not the expected photograph")
            continue
        train, val = divide(images.read(path))
        for split, regions, count in (("train", train, _TRAIN_CROPS), ("val", val, _VAL_CROPS)):
            for number in range(count):
                crop = _crop(regions[number % len(regions)], number)
                yield f"{split}/{class_name}/{number:02d}.png", encode_png(crop)


def divide(pixels: Pixels) -> tuple[list[Pixels], list[Pixels]]:
    """Return the regions for training and those for validation, shape (height, width, 3) each."""
    axis = 0 if pixels.shape[0] > pixels.shape[1] else 1
    borders = [int(pixels.shape[axis] * share) for share in _VAL_BAND]
    first, middle, last = np.split(pixels, borders, axis=axis)
    return [first, last], [middle]


def _crop(region: Pixels, number: int) -> Pixels:
    """Return the crop of this number: places spread evenly over the region, three sizes."""
    side = min(_CROP_SIDES_PX[number % len(_CROP_SIDES_PX)], *region.shape[:2])
    top = int((number + 1) * _STEP_Y % 1.0 * (region.shape[0] - side + 1))
    left = int((number + 1) * _STEP_X % 1.0 * (region.shape[1] - side + 1))
    return region[top : top + side, left : left + side]
