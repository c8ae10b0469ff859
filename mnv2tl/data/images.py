"""From image files to pixels of one size: the one way to open a file, the one resize rule.

Training, evaluation, the export gate and predict all read through this file, so that no two of
them see different pixels. It opens nothing but regular files; `image_decoder` does the decoding.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from mnv2tl.data.image_decoder import (
    FORMATS,
    MAX_ASPECT,
    MAX_PIXELS,
    Decoded,
    Picture,
    UnreadableImageError,
    decode,
    open_picture,
)

__all__ = [
    "FORMATS",
    "MAX_ASPECT",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "PREPROCESSING",
    "Decoded",
    "Picture",
    "UnreadableImageError",
    "decode",
    "open_picture",
    "pillow_version",
    "read",
    "read_bytes",
    "read_resized",
    "resize",
]

MAX_FILE_BYTES = 64 * 2**20

PREPROCESSING: dict[str, Any] = {
    "rule_version": 1,
    "formats": list(FORMATS),
    "frame": "first",
    "orientation": "EXIF block applied; XMP and colour profiles ignored",
    "sixteen_bit": "high byte",
    "alpha": "over white",
    "channels": "RGB",
    "resize": "stretched, bilinear with antialiasing, half-pixel centres, horizontal pass first, "
    "rounded to uint8 after each pass",
}
"""The rule by which files become pixels; part of cache keys and of exported files."""


def pillow_version() -> str:
    """Return the version of the installed decoder."""
    return PIL.__version__


def read(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the pixels of an image file.

    Args:
        path: A regular file; a symbolic link is refused.
        max_pixels: Width times height up to which a picture is decoded.

    Returns:
        RGB, shape (height, width, 3), 0..255, read-only, upright by EXIF.

    Raises:
        UnreadableImageError: The file cannot be opened or decoded, or is above a limit.
    """
    return decode(read_bytes(path), max_pixels=max_pixels).pixels


def read_resized(
    path: str | os.PathLike[str], image_px: int, *, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Return `resize(read(path), image_px)`, shape (image_px, image_px, 3).

    Raises:
        UnreadableImageError: As for `read`.
    """
    return resize(read(path, max_pixels=max_pixels), image_px)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file of 1 byte to `MAX_FILE_BYTES`.

    A FIFO or a device never blocks. A symbolic link is not followed; whether a folder on the way
    is one, is for those to see who list the files.

    Raises:
        UnreadableImageError: Reason "vanished", "permission-denied", "not-a-regular-file",
            "too-large", "empty-file" or "input-output".
    """
    # Windows lacks the first four; there a link is known by its name only.
    names = ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY")
    if not hasattr(os, "O_NOFOLLOW") and Path(path).is_symlink():
        raise UnreadableImageError("not-a-regular-file", "a symbolic link is not followed")
    try:
        descriptor = os.open(path, os.O_RDONLY | sum(getattr(os, name, 0) for name in names))
        try:
            status = os.fstat(descriptor)
            _check_file(status.st_mode, status.st_size)
            return _read(descriptor, status.st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _not_opened(error) from error


def resize(pixels: NDArray[np.uint8], image_px: int) -> NDArray[np.uint8]:
    """Stretch pixels to a square by the one rule of this project.

    Bilinear with antialiasing (a triangle filter, widened when shrinking), half-pixel centres,
    the horizontal pass first, rounded to whole levels after each pass.

    Args:
        pixels: RGB, shape (height, width, 3).
        image_px: Side of the square, in pixels.

    Returns:
        Shape (image_px, image_px, 3); `pixels` itself if it has that shape already.

    Raises:
        ValueError: `pixels` is no RGB picture, or `image_px` is below 1.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        got = f"{pixels.dtype} {pixels.shape}"
        raise ValueError(f"pixels must be uint8 of shape (height, width, 3), got {got}")
    if image_px < 1:
        raise ValueError(f"image_px must be 1 or more, got {image_px}")
    height, width, _ = pixels.shape
    if (height, width) == (image_px, image_px):
        return pixels
    # Two calls: in one, Pillow 13 picks the order of the passes by shape and Pillow 12 does not.
    image = Image.fromarray(pixels).resize((image_px, height), Image.Resampling.BILINEAR)
    image = image.resize((image_px, image_px), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)


def _read(descriptor: int, size: int) -> bytes:
    """Return at most so many bytes of a file; fewer if it ends before."""
    content = os.read(descriptor, size)
    while len(content) < size and (more := os.read(descriptor, size - len(content))):
        content += more  # Linux gives 2 GiB at a time, other file systems less
    return content


def _check_file(mode: int, size: int) -> None:
    """Raise unless a file's mode and size in bytes are those of a picture."""
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise UnreadableImageError("not-a-regular-file", f"not a regular file but {kind}")
    if size == 0:
        raise UnreadableImageError("empty-file", "0 bytes")
    if size > MAX_FILE_BYTES:
        message = f"too large: {size:,} bytes > limit {MAX_FILE_BYTES:,}"
        raise UnreadableImageError("too-large", message)


def _not_opened(error: OSError) -> UnreadableImageError:
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return UnreadableImageError("vanished", "the file is not there")
        case errno.EACCES | errno.EPERM:
            return UnreadableImageError("permission-denied", "permission denied")
        case errno.ELOOP:
            return UnreadableImageError("not-a-regular-file", "a symbolic link is not followed")
        case errno.ENXIO | errno.ENODEV:
            return UnreadableImageError("not-a-regular-file", "not a regular file but a device")
    return UnreadableImageError("input-output", f"reading failed: {error.strerror}")
