"""A kind of JPEG that Pillow reads and cannot write."""

from __future__ import annotations

import struct


def make_lossless_jpeg(width: int, height: int, components: int) -> bytes:
    """Return a lossless JPEG, process 14 of ITU-T T.81, annex H; every difference is 0: mid-gray.

    Args:
        width: In pixels.
        height: In pixels.
        components: 1 for gray, 3 for colours.
    """
    ids = range(1, components + 1)
    size = struct.pack(">HBHHB", 8 + 3 * components, 8, height, width, components)
    frame = b"\xff\xc3" + size + b"".join(bytes([each, 0x11, 0]) for each in ids)
    table = b"\xff\xc4" + struct.pack(">H", 20) + bytes([0, 1, *[0] * 15, 0])
    tables = b"".join(bytes([each, 0]) for each in ids)
    scan = b"\xff\xda" + struct.pack(">HB", 6 + 2 * components, components) + tables + b"\1\0\0"
    bits = bytes(-(-width * height * components // 8))
    return b"\xff\xd8" + frame + table + scan + bits + b"\xff\xd9"
