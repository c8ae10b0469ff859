"""What the first bytes of a file say about a picture, read before any decoder sees it.

Pillow can open forty formats and some of their decoders have a history of holes, so a file is
known by its own bytes here and given to one decoder, or refused by name.
"""

from __future__ import annotations

import struct

ALLOWED = ("JPEG", "PNG", "BMP", "GIF", "WEBP")

_MAGIC = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"BM", "BMP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\xff\x0a", "JXL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xffO\xffQ", "JPEG 2000"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF-", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\1\0", "ICO"),
)
"""Offset, bytes there, format; the first match counts."""

_JPEG_FRAMES = {0xC0, 0xC1, 0xC2}
"""SOF0 to SOF2: baseline, extended and progressive, all lossy and Huffman-coded."""
_JPEG_SEGMENTS = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""Tables, restart interval, comment and applications' data."""
_JPEG_SCAN = 0xDA

_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"hevc": "HEIC",
    b"hevx": "HEIC",
}
_ORIENTATION_TAG = 274
_SHORT = 3
_LONG = 4


def format_of(content: bytes) -> str | None:
    """Return the name of a picture's format, whether allowed or not, or None.

    >>> format_of(b"GIF89a...")
    'GIF'
    """
    for offset, magic, name in _MAGIC:
        if content.startswith(magic, offset):
            return name
    return _heif_format(content) if content[4:8] == b"ftyp" else None


def _heif_format(content: bytes) -> str | None:
    """Return HEIC, AVIF or HEIF from the brands of an ISO media file; None for a film."""
    end = min(int.from_bytes(content[:4], "big"), 256)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, end, 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    return "HEIF" if brands[0] in (b"mif1", b"msf1") else None


def is_lossy_jpeg(content: bytes) -> bool:
    """Tell whether a JPEG is surely no lossless one, whoever reads it.

    That is: up to the first scan its segments follow each other without a gap, none is of a rare
    kind, and one names a lossy process; see ITU-T T.81, annex B.

    >>> is_lossy_jpeg(bytes.fromhex("ffd8 ffc0 0002 ffda"))
    True
    >>> is_lossy_jpeg(bytes.fromhex("ffd8 ffc3 0002 ffda"))
    False
    """
    at, has_frame = 2, False
    while at + 1 < len(content) and content[at] == 0xFF:
        kind = content[at + 1]
        if kind == _JPEG_SCAN:
            return has_frame
        if kind not in _JPEG_SEGMENTS and (kind not in _JPEG_FRAMES or has_frame):
            return False
        has_frame = has_frame or kind in _JPEG_FRAMES
        at += 2 + max(int.from_bytes(content[at + 2 : at + 4], "big"), 2)
    return False


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP's canvas, or None where the header is too short.

    Pillow 12 makes the canvas before it knows whether the size is allowed.
    """
    kind = content[12:16]
    if kind == b"VP8X" and len(content) >= 30:
        width, height = (int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
        return width + 1, height + 1
    if kind == b"VP8 " and len(content) >= 30:
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(content) >= 25:
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def exif_orientation(exif: bytes) -> int:
    """Return the orientation 1 to 8 that an EXIF block asks for; 1 where it names none.

    Args:
        exif: A TIFF header with its first directory, with or without the leading "Exif" mark.

    Raises:
        ValueError: The block is cut off, is no EXIF, or holds an orientation that is not one.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        raise ValueError(f"EXIF must begin with a TIFF header, got {exif[:4]!r}")
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", exif, at)
            if tag == _ORIENTATION_TAG:
                layout = {_SHORT: "H", _LONG: "I"}.get(kind, "x")
                values = struct.unpack_from(order + layout, exif, at + 8)
                if count != 1 or not values or not 1 <= values[0] <= 8:
                    raise ValueError(f"orientation must be 1 to 8, got {count} of {values}")
                return int(values[0])
    except struct.error as error:
        raise ValueError(f"EXIF is cut off after {len(exif)} bytes") from error
    return 1
