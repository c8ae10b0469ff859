"""The one decoder: from the bytes of a picture to pixels.

Everything that Pillow does to a file happens here, behind limits that are checked from the header,
and every damage becomes an `UnreadableImageError` with a reason that can be counted.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Without the plugin Pillow imports its forty others too when it meets a WebP.
from PIL import (
    Image,
    ImageFile,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from mnv2tl.data import image_headers

FORMATS = image_headers.ALLOWED
MAX_PIXELS = 100_000_000
MAX_ASPECT = 50
SMALL_PX = 8
"""Below this side a picture is used with a warning: it holds next to nothing."""

ANIMATED = "animated, only the first frame is used"
BAD_EXIF = "malformed EXIF, no rotation is applied"
SMALL = f"a side below {SMALL_PX} pixels"

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIDEWAYS = {5, 6, 7, 8}
# Where the last column and the last row of a file come to lie on the left and on the top.
_MIRRORED_ACROSS = {2, 3, 6, 7}
_MIRRORED_DOWN = {3, 4, 7, 8}

_header_lock = threading.Lock()
"""Held while Pillow reads a header: its pixel limit and Python's warning filters are global."""


class UnreadableImageError(Exception):
    """A file that cannot be used as a picture; the run goes on without it.

    Args:
        reason: A short code to count by, such as "truncated", "not-an-image" or "vanished".
        message: One sentence with the numbers, without a full stop and without the path.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Keep the reason and the sentence."""
        self.reason = reason
        self.message = message
        super().__init__(reason, message)

    def __str__(self) -> str:
        """Return the sentence."""
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What a file's bytes hold."""

    pixels: NDArray[np.uint8]
    """RGB, shape (height, width, 3), 0..255, read-only."""

    format: str
    """One of `FORMATS`, by content."""

    orientation_applied: bool
    """Whether EXIF asked for a rotation or a mirroring."""

    warnings: tuple[str, ...]
    """Any of `ANIMATED`, `BAD_EXIF` and `SMALL`."""

    width: int
    """In pixels, after the orientation."""

    height: int
    """In pixels, after the orientation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded image, before its pixels are copied into an array."""

    image: Image.Image
    """Of mode RGB or L, upright; of mode L maybe smaller than the picture."""

    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the picture in pixels of `image`: of one that is smaller, the
    pixels on two sides may reach beyond the picture."""

    width: int
    """Of the picture, in pixels, upright."""

    height: int
    """Of the picture, in pixels, upright."""

    format: str
    """One of `FORMATS`, by content."""

    orientation_applied: bool
    """Whether EXIF asked for a rotation or a mirroring."""

    warnings: tuple[str, ...]
    """Any of `ANIMATED`, `BAD_EXIF` and `SMALL`."""


def decode(content: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Return the pixels of an image file's bytes, and what was found on the way.

    Args:
        content: The whole file.
        max_pixels: Width times height up to which a picture is decoded, known from the header.

    Raises:
        UnreadableImageError: The bytes are no whole picture in one of `FORMATS`, or above a limit.
        MemoryError: The picture is within the limits, yet there is no room for it.
    """
    picture = open_picture(content, max_pixels=max_pixels)
    return Decoded(
        pixels=np.asarray(picture.image, dtype=np.uint8),
        format=picture.format,
        orientation_applied=picture.orientation_applied,
        warnings=picture.warnings,
        width=picture.width,
        height=picture.height,
    )


def open_picture(
    content: bytes, *, max_pixels: int = MAX_PIXELS, gray_px: int | None = None
) -> Picture:
    """Decode as `decode` does, for callers that look at a picture without an array of its pixels.

    Args:
        content: The whole file.
        max_pixels: Width times height up to which a picture is decoded, known from the header.
        gray_px: Gray is enough, and so are so many pixels on either side: a JPEG is then read in
            down to half of the time, since it holds luma apart and gives a half, a quarter or an
            eighth of its size at once. All of its bytes are read and checked nonetheless.

    Raises:
        UnreadableImageError: The bytes are no whole picture in one of `FORMATS`, or above a limit.
        MemoryError: The picture is within the limits, yet there is no room for it.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES must be False, got True")
    format_name = _allowed_format(content)
    try:
        image = _open_header(content, format_name, max_pixels)
        width, height = image.size
        _check_size(width, height, max_pixels)
        # A lossless JPEG has no smaller sizes; Pillow 12.3 asked for one writes beyond its buffer.
        if gray_px is not None and format_name == "JPEG" and image_headers.is_lossy_jpeg(content):
            image.draft("L", (gray_px, gray_px))
        image.load()
        mode = "RGB" if gray_px is None else "L"
        flat = _flatten(image, mode, is_16_bit=format_name == "PNG" and content[24] == 16)
        orientation, notes = _orientation(image.info.get("exif"))
        if getattr(image, "is_animated", False):
            notes.append(ANIMATED)
    except (UnreadableImageError, MemoryError):
        raise
    # Pillow's decoders raise anything on a damaged file: OSError, SyntaxError, struct.error,
    # zlib.error, IndexError and more; none of them may end a run over a folder.
    except Exception as error:
        raise _not_decoded(error, content, format_name) from error
    if orientation in _TRANSPOSE:
        flat = flat.transpose(_TRANSPOSE[orientation])
    if orientation in _SIDEWAYS:
        width, height = height, width
    if min(width, height) < SMALL_PX:
        notes.append(SMALL)
    return Picture(
        image=flat,
        box=_find_box(flat.size, (width, height), orientation),
        width=width,
        height=height,
        format=format_name,
        orientation_applied=orientation in _TRANSPOSE,
        warnings=tuple(notes),
    )


def _allowed_format(content: bytes) -> str:
    if not content:
        raise UnreadableImageError("empty-file", "0 bytes")
    name = image_headers.format_of(content)
    if name is None:
        raise UnreadableImageError("not-an-image", "not an image by its content")
    if name not in FORMATS:
        message = f"format {name} not supported; convert to JPEG"
        raise UnreadableImageError("format-not-supported", message)
    return name


def _open_header(content: bytes, format_name: str, max_pixels: int) -> Image.Image:
    """Let Pillow read a header, with a picture above the limit as an error."""
    if format_name == "WEBP" and (size := image_headers.webp_size(content)):
        _check_size(*size, max_pixels)
    with _header_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            return Image.open(io.BytesIO(content), formats=(format_name,))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            # "Image size (400000000 pixels) exceeds ...": raised before there is a size to ask for.
            count = re.search(r"\d+", str(error))
            raise _too_many_pixels(int(count[0]) if count else 0, max_pixels) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_many_pixels(width * height, max_pixels)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnreadableImageError("aspect", f"aspect of {width} x {height} > {MAX_ASPECT}:1")


def _too_many_pixels(pixels: int, max_pixels: int) -> UnreadableImageError:
    return UnreadableImageError("too-many-pixels", f"{pixels:,} pixels > limit {max_pixels:,}")


def _flatten(image: Image.Image, mode: str, *, is_16_bit: bool) -> Image.Image:
    """Return a loaded image in RGB or L: high bytes, CMYK as Pillow has it, alpha over white."""
    if image.mode.startswith("I"):
        image = _to_8_bit(image)
    elif is_16_bit and isinstance(image.info.get("transparency"), tuple):
        # Pillow keeps the high byte of each sample, but both bytes of the transparent colour.
        image.info["transparency"] = tuple(value >> 8 for value in image.info["transparency"])
    if not image.has_transparency_data:
        return image if image.mode == mode else image.convert(mode)
    rgba = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(rgba, mask=rgba)
    return white if mode == "RGB" else white.convert(mode)


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Return 16-bit gray as 8-bit gray by its high byte; 32-bit gray is clipped to 16 first."""
    levels = np.asarray(image).clip(0, 65535)
    gray = Image.fromarray((levels >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return gray
    alpha = Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (gray, alpha))


def _orientation(exif: bytes | None) -> tuple[int, list[str]]:
    """Return the orientation 1 to 8 of an EXIF block, with a warning where it is malformed."""
    try:
        return (image_headers.exif_orientation(exif) if exif else 1), []
    except ValueError:
        return 1, [BAD_EXIF]


def _find_box(
    reduced: tuple[int, int], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """Return what of a reduced image is the picture, left, top, right and bottom.

    Pixels that stand for fewer than the others are the last ones as the file has them.

    >>> _find_box((51, 50), (401, 400), 1), _find_box((51, 50), (401, 400), 3)
    ((0.0, 0.0, 50.125, 50.0), (0.875, 0.0, 51.0, 50.0))
    """
    width, height = (side / round(side / each) for side, each in zip(size, reduced, strict=True))
    left = reduced[0] - width if orientation in _MIRRORED_ACROSS else 0.0
    top = reduced[1] - height if orientation in _MIRRORED_DOWN else 0.0
    return left, top, left + width, top + height


def _not_decoded(error: Exception, content: bytes, format_name: str) -> UnreadableImageError:
    text = ascii(str(error))[1:-1][:200]
    if "too large" in text or "text chunks" in text:
        return UnreadableImageError("too-large", f"too large once unpacked: {text}")
    # libwebp gives no cause, so the length that the file states for itself is looked at.
    stated = int.from_bytes(content[4:8], "little") + 8 if format_name == "WEBP" else 0
    if len(content) < stated or re.search(r"truncat|EOF|not enough", text, re.IGNORECASE):
        message = f"truncated: the {format_name} ends after {len(content):,} bytes"
        return UnreadableImageError("truncated", message)
    if isinstance(error, UnidentifiedImageError):
        text = "its header is not understood"
    return UnreadableImageError("damaged", f"damaged {format_name}: {text}")
