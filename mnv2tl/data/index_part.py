"""A part of the index of images: files of one folder, with their status and records, as bytes."""

from __future__ import annotations

import json
import os
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from mnv2tl.data.packed import SHA256_BYTES, Digests, Texts
from mnv2tl.data.records import Columns, make_kind

_HEADER = struct.Struct("<QQQ")  # files, bytes of their names, bytes of JSON
_STATUS = struct.Struct("<QqqQ")
STATUS_BYTES = _STATUS.size
_INODE_BITS = 2**64 - 1  # some file systems of Windows have more
_LATEST_NS = 2**63 - 1  # in April 2262; file systems know later times


class Status(NamedTuple):
    """What shows that a file is unchanged: a third of the memory of `os.stat_result`."""

    st_size: int
    """Bytes."""
    st_mtime_ns: int
    """Time of the last change of its bytes."""
    st_ctime_ns: int
    """Time of the last change of its bytes, name or rights."""
    st_ino: int
    """Inode."""


def pack_status(stat: Status | os.stat_result) -> bytes:
    """Return a status as `STATUS_BYTES` bytes."""
    try:
        return _STATUS.pack(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    except struct.error:  # it does not fit
        times = (
            max(min(each, _LATEST_NS), -_LATEST_NS) for each in (stat.st_mtime_ns, stat.st_ctime_ns)
        )
        return _STATUS.pack(stat.st_size, *times, stat.st_ino & _INODE_BITS)


def changed_ns(status: bytes | bytearray) -> int:
    """Return the change time of a packed status, in nanoseconds."""
    change: int = _STATUS.unpack(status)[2]
    return change


def sizes_of(stats: bytes) -> Sequence[int]:
    """Return the sizes in packed statuses that follow each other, in bytes."""
    return _to_array("Q", stats)[::4]


@dataclass(slots=True, kw_only=True)
class Part:
    """Some files of one folder."""

    names: Texts = field(default_factory=Texts)
    """Within the folder."""
    stats: bytes | bytearray = b""
    """A packed status per file."""
    columns: Columns = field(default_factory=lambda: Columns.make_blank(0))
    """What each holds."""

    def status(self, row: int) -> bytes | bytearray:
        """Return the packed status of a file."""
        return self.stats[row * STATUS_BYTES : (row + 1) * STATUS_BYTES]

    def take(self, rows: Sequence[int]) -> Part:
        """Return some of the files, in the order of `rows`."""
        return Part(
            names=self.names.take(rows),
            stats=b"".join([self.status(row) for row in rows]),
            columns=self.columns.take(rows),
        )


def merge(parts: Iterable[Part]) -> Part:
    """Return all files of some parts of a folder, sorted; of equal names the last one counts."""
    whole = Part()
    stats = []
    for part in parts:
        whole.names.extend(part.names)
        stats.append(part.stats)
        whole.columns.extend(part.columns)
    whole.stats = b"".join(stats)
    if all(first < second for first, second in pairwise(whole.names)):
        return whole
    where = dict(zip(whole.names, range(len(whole.names)), strict=True))
    return whole.take([where[name] for name in sorted(where)])


def pack(part: Part, rule: str) -> bytes:
    """Return a part as bytes.

    Args:
        part: The files.
        rule: Names how they were read.
    """
    columns = part.columns
    names = part.names.joined()
    kinds = dict.fromkeys(columns.kinds)
    numbers = {kind: number for number, kind in enumerate(kinds)}
    which = array("I", map(numbers.__getitem__, columns.kinds))
    texts = json.dumps([rule, list(kinds)]).encode("ascii")
    header = _HEADER.pack(len(part.names), len(names), len(texts))
    numbers_only = (columns.dhashes, columns.widths, columns.heights, which)
    return b"".join(
        [header, part.stats, *map(_to_bytes, numbers_only), columns.sha256.content, names, texts],
    )


def unpack(content: bytes) -> tuple[Part, str]:
    """Return what `pack` was given."""
    count, names_bytes, texts_bytes = _HEADER.unpack_from(content)
    at = _HEADER.size

    def read(size: int) -> bytes:
        nonlocal at
        at += size
        return content[at - size : at]

    stats = read(STATUS_BYTES * count)
    dhashes = _to_array("Q", read(8 * count))
    widths, heights, which = (_to_array("I", read(4 * count)) for _ in range(3))
    sha256 = Digests(read(SHA256_BYTES * count))
    names = Texts.from_joined(read(names_bytes))
    rule, texts = json.loads(read(texts_bytes))
    kinds = [make_kind(*kind[:1], tuple(kind[1]), *kind[2:]) for kind in texts]
    columns = Columns(
        sha256=sha256,
        widths=widths,
        heights=heights,
        dhashes=dhashes,
        kinds=list(map(kinds.__getitem__, which)),
    )
    return Part(names=names, stats=stats, columns=columns), rule


def _to_array(code: str, content: bytes) -> array[int]:
    values = array(code, content)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _to_bytes(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
