"""What one reading of each file showed: a record per file, or columns for the files of a folder.

A data set may have a million files. As columns they take a third of the memory of tuples, and what
is done to all of them at once takes a tenth of the time.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from mnv2tl.data.packed import Digests


class Record(NamedTuple):
    """What one reading of a file showed."""

    sha256: str = ""
    """Of the file's bytes; empty if the file was not read."""
    width: int = 0
    """Pixels, upright; 0 if it is no image."""
    height: int = 0
    """Pixels, upright; 0 if it is no image."""
    format: str = ""
    """Such as `JPEG`, by content."""
    notes: tuple[str, ...] = ()
    """What the decoder remarked, such as a malformed EXIF block."""
    dhash: int | None = None
    """64 bits; None if it was not asked for."""
    code: str = ""
    """Why the file is left out, such as `truncated`; empty if it is used."""
    reason: str = ""
    """The same as one sentence."""


class Kind(NamedTuple):
    """What many files have in common; see `Record`."""

    format: str = ""
    notes: tuple[str, ...] = ()
    code: str = ""
    reason: str = ""
    has_dhash: bool = False


@functools.lru_cache(maxsize=1000)
def make_kind(form: str, notes: tuple[str, ...], code: str, reason: str, has_dhash: bool) -> Kind:
    """Return a kind; equal ones are most often the same object."""
    return Kind(form, notes, code, reason, has_dhash)


def _find_kind(record: Record) -> Kind:
    has_dhash = record.dhash is not None
    return make_kind(record.format, record.notes, record.code, record.reason, has_dhash)


@dataclass(slots=True, kw_only=True)
class Columns:
    """The records of some files, in the order of their names."""

    sha256: Digests
    widths: array[int]
    heights: array[int]
    dhashes: array[int]
    """0 where the kind has none."""
    kinds: list[Kind]

    @classmethod
    def make_blank(cls, count: int) -> Self:
        """Return columns of empty records."""
        return cls(
            sha256=Digests.blank(count),
            widths=array("I", bytes(4 * count)),
            heights=array("I", bytes(4 * count)),
            dhashes=array("Q", bytes(8 * count)),
            kinds=[make_kind("", (), "", "", False)] * count,
        )

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.sha256)

    def __getitem__(self, row: int) -> Record:
        """Return the record of a file."""
        kind = self.kinds[row]
        return Record(
            self.sha256.hex(row),
            self.widths[row],
            self.heights[row],
            kind.format,
            kind.notes,
            self.dhashes[row] if kind.has_dhash else None,
            kind.code,
            kind.reason,
        )

    def __setitem__(self, row: int, record: Record) -> None:
        """Put a record in the place of another."""
        self.sha256.put(row, record.sha256)
        self.widths[row] = record.width
        self.heights[row] = record.height
        self.dhashes[row] = record.dhash or 0
        self.kinds[row] = _find_kind(record)

    def find_lacking_dhash(self) -> list[int]:
        """Return the rows of images whose dHash was not asked for."""
        return [row for row, kind in enumerate(self.kinds) if not kind.has_dhash and not kind.code]

    def append(self, record: Record) -> None:
        """Add a file."""
        self.sha256.append(record.sha256)
        self.widths.append(record.width)
        self.heights.append(record.height)
        self.dhashes.append(record.dhash or 0)
        self.kinds.append(_find_kind(record))

    def extend(self, other: Columns) -> None:
        """Add the files of others."""
        self.sha256.extend(other.sha256)
        self.widths += other.widths
        self.heights += other.heights
        self.dhashes += other.dhashes
        self.kinds += other.kinds

    def take(self, rows: Sequence[int]) -> Columns:
        """Return the columns of some files, in the order of `rows`."""
        return Columns(
            sha256=self.sha256.take(rows),
            widths=array("I", [self.widths[row] for row in rows]),
            heights=array("I", [self.heights[row] for row in rows]),
            dhashes=array("Q", [self.dhashes[row] for row in rows]),
            kinds=[self.kinds[row] for row in rows],
        )
