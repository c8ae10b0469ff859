"""Small pictures inside of the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE_PX = 96
"""Longer side of a picture in a gallery."""
MAP_SIDE_PX = 64
"""Longer side of a picture in the embedding map."""
_QUALITY = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A small picture as the page holds it."""

    uri: str
    """A data URI."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def shrink(pixels: NDArray[np.uint8], side_px: int = SIDE_PX) -> Image.Image:
    """Return a picture whose longer side is at most `side_px`, its shape kept.

    Args:
        pixels: RGB, shape (height, width, 3).
        side_px: At least 1.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px), Image.Resampling.BILINEAR)
    return image


def encode(image: Image.Image) -> bytes:
    """Return a picture as a WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def open_small(content: bytes) -> Image.Image:
    """Return the picture that `encode` gave."""
    return Image.open(io.BytesIO(content)).convert("RGB")


def embed(content: bytes, *, side_px: int | None = None) -> Picture:
    """Return a WebP file as the page holds it, made smaller if `side_px` is given."""
    image: Any = open_small(content)
    if side_px is not None and max(image.size) > side_px:
        image.thumbnail((side_px, side_px), Image.Resampling.BILINEAR)
        content = encode(image)
    uri = "data:image/webp;base64," + base64.b64encode(content).decode("ascii")
    return Picture(uri=uri, width=image.width, height=image.height)
