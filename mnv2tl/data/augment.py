"""Distorted views of a picture, as a pure function of seed, picture and view number.

A view can be made again at any time and in any order, on any thread, so views can be cached as
features and a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RULE_VERSION = 1
"""Part of cache keys; goes up when the same arguments give other pixels."""

_LIMITS = {"rotation_degrees": 180.0, "shift": 0.5, "zoom": 0.9, "brightness": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How far a view may differ from its picture; every amount is drawn uniformly.

    Raises:
        ValueError: An amount is outside its range.
    """

    rotation_degrees: float = 0.0
    """Rotated by up to this many degrees either way, 0 to 180."""

    shift: float = 0.0
    """Moved along each axis by up to this share of the side, 0 to 0.5."""

    zoom: float = 0.0
    """Scaled by a factor from 1 - zoom to 1 + zoom, 0 to 0.9."""

    horizontal_flip: bool = False
    """Mirrored left to right in every second view."""

    brightness: float = 0.0
    """Levels multiplied by a factor from 1 - brightness to 1 + brightness, 0 to 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise ValueError(f"{name} must be from 0 to {limit:g}, got {value}")

    def to_json(self) -> dict[str, float | bool]:
        """Return the fields, for `run.json` and cache keys; 20 and 20.0 give the same text."""
        return {
            name: value if isinstance(value, bool) else float(value)
            for name, value in asdict(self).items()
        }


PRESETS = {
    "none": AugmentConfig(),
    "light": AugmentConfig(rotation_degrees=20, shift=0.1, zoom=0.1, horizontal_flip=True),
    "strong": AugmentConfig(
        rotation_degrees=30, shift=0.2, zoom=0.3, horizontal_flip=True, brightness=0.3
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The amounts drawn for one view."""

    degrees: float = 0.0
    """Rotation about the middle, counter-clockwise."""

    shift_x: float = 0.0
    """To the right, as a share of the side."""

    shift_y: float = 0.0
    """Downwards, as a share of the side."""

    scale: float = 1.0
    """Above 1 enlarges."""

    is_flipped: bool = False
    """Mirrored left to right, before anything else."""

    brightness: float = 1.0
    """Factor of every level."""


def augment(
    pixels: NDArray[np.uint8], config: AugmentConfig, *, seed: int, sha256: str, view: int
) -> NDArray[np.uint8]:
    """Return one distorted view of a picture; equal arguments give equal pixels.

    Args:
        pixels: RGB, shape (side, side, 3).
        config: How far the view may differ.
        seed: The run's seed.
        sha256: Hash of the image file, so that a renamed file keeps its views.
        view: Number of the view, from 0.

    Returns:
        Shape (side, side, 3); `pixels` itself if `config` allows no difference.
    """
    if config == PRESETS["none"]:
        return pixels
    return render(pixels, draw_view(config, seed=seed, sha256=sha256, view=view))


def draw_view(config: AugmentConfig, *, seed: int, sha256: str, view: int) -> View:
    """Return the amounts of one view; the arguments are those of `augment`.

    Each amount has its own random number, so setting one to 0 leaves the others as they were.
    """
    digest = hashlib.sha256(f"{seed} {sha256} {view}".encode("ascii")).digest()
    # Only `random` is called: NumPy may change other methods of Generator from release to release.
    draws = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big"))).random(6)
    degrees, shift_x, shift_y, zoom, brightness = (2 * draws[:5] - 1).tolist()
    return View(
        degrees=degrees * config.rotation_degrees,
        shift_x=shift_x * config.shift,
        shift_y=shift_y * config.shift,
        scale=1 + zoom * config.zoom,
        is_flipped=config.horizontal_flip and bool(draws[5] < 0.5),
        brightness=1 + brightness * config.brightness,
    )


def render(pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """Return the pixels of a view: one bilinear warp, then brightness.

    Outside the picture its edge is repeated. A view of less than half the size is made from a
    picture shrunk with antialiasing to twice that size, since bilinear sampling would skip pixels.

    Args:
        pixels: RGB, shape (side, side, 3).
        view: What to do; the order is flip, rotation, scale, shift, brightness.

    Returns:
        Shape (side, side, 3). The warp cuts levels to whole numbers, as Pillow's sampling does;
        brightness rounds them and clips them to 0..255.

    Raises:
        ValueError: `pixels` is no square RGB picture.
    """
    side = pixels.shape[0]
    if pixels.dtype != np.uint8 or pixels.shape != (side, side, 3) or side == 0:
        got = f"{pixels.dtype} {pixels.shape}"
        raise ValueError(f"pixels must be uint8 of shape (side, side, 3), got {got}")
    warped = _warp(pixels, view)
    if view.brightness == 1:
        return warped
    levels = np.rint(np.arange(256) * view.brightness).clip(0, 255).astype(np.uint8)
    return np.take(levels, warped)


def _warp(pixels: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    side = pixels.shape[0]
    source_side = min(side, math.ceil(2 * view.scale * side))
    if source_side < side:
        small = Image.fromarray(pixels).resize(
            (source_side, source_side), Image.Resampling.BILINEAR
        )
        pixels = np.asarray(small, dtype=np.uint8)
    matrix = _matrix(view, side, source_side)
    left, right = _margins(matrix[:3], side, source_side)
    top, bottom = _margins(matrix[3:], side, source_side)
    padded = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")
    a, b, c, d, e, f = matrix
    warped = Image.fromarray(padded).transform(
        (side, side),
        Image.Transform.AFFINE,
        (a, b, c + left, d, e, f + top),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(warped, dtype=np.uint8)


def _matrix(
    view: View, side: int, source_side: int
) -> tuple[float, float, float, float, float, float]:
    """Return (a, b, c, d, e, f): a point (x, y) of the view shows (ax+by+c, dx+ey+f).

    Points are in pixels from the top left corner, so the first pixel's middle is (0.5, 0.5).
    """
    zoom = source_side / side / view.scale
    cos = math.cos(math.radians(view.degrees)) * zoom
    sin = math.sin(math.radians(view.degrees)) * zoom
    x = (0.5 + view.shift_x) * side  # where the middle of the picture goes
    y = (0.5 + view.shift_y) * side
    middle = source_side / 2
    mirror = -1 if view.is_flipped else 1
    return (
        mirror * cos,
        mirror * -sin,
        middle - mirror * (cos * x - sin * y),
        sin,
        cos,
        middle - (sin * x + cos * y),
    )


def _margins(row: tuple[float, float, float], side: int, source_side: int) -> tuple[int, int]:
    """Return how many pixels a row of the matrix reaches before and behind the picture."""
    corners = [row[0] * x + row[1] * y + row[2] for x in (0, side) for y in (0, side)]
    before = max(0, math.ceil(-min(corners)))
    behind = max(0, math.ceil(max(corners) - source_side))
    return before + 1, behind + 1  # one more: bilinear sampling reads a neighbour
