"""What all sample data sets give: pictures as files that are yet to be written."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = tuple[str, bytes]
"""Path below the data set's folder, and the file's content."""


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the bytes of a PNG file with these pixels, shape (height, width, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
