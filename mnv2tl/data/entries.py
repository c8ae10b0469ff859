"""The images of a manifest: columns in memory, of which an entry is made when it is asked for.

As objects they would take 330 bytes each; so they take their path and 62.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, overload

from mnv2tl.data.packed import Digests, Texts
from mnv2tl.data.split import SPLITS, Split

_CODES = {split: code for code, split in enumerate(SPLITS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image that is used."""

    path: str
    """Relative to the root, with forward slashes; bytes that are not UTF-8 as surrogates."""
    label: int
    """Index into the class names."""
    split: Split
    """`train`, `val` or `test`."""
    sha256: str
    """Of the file's bytes, 64 hexadecimal digits."""
    bytes: int
    """Size of the file."""
    width: int
    """Pixels, upright (after the EXIF orientation)."""
    height: int
    """Pixels, upright."""


class _Columns(NamedTuple):
    paths: Texts
    labels: array[int]
    splits: bytearray
    """Index into `SPLITS` of each."""
    sha256: Digests
    sizes: Sequence[int]
    widths: array[int]
    heights: array[int]


class Entries(Sequence[Entry]):
    """Some entries, made anew each time that they are asked for.

    A selection of entries shares the columns and takes 8 bytes for each.

    Args:
        entries: Taken in their order.

    Raises:
        ValueError: A hash is none, or a path holds the character 0.
        KeyError: A split is not one of `SPLITS`.
        OverflowError: A number is negative or too large.

    Example:
        >>> from mnv2tl.data.entries import Entries, Entry
        >>> common = {"label": 0, "sha256": "ab" * 32, "bytes": 9, "width": 4, "height": 3}
        >>> entries = Entries(
        ...     Entry(path=path, split=split, **common)
        ...     for path, split in [("a.png", "train"), ("b.png", "val")]
        ... )
        >>> entries.of_split("val")[0].path, entries[-1].split
        ('b.png', 'val')
    """

    __slots__ = ("_columns", "_rows")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Copy entries into columns."""
        sizes = array("Q")
        columns = _Columns(
            Texts(), array("I"), bytearray(), Digests(), sizes, array("I"), array("I")
        )
        for entry in entries:
            columns.paths.append(entry.path)
            columns.labels.append(entry.label)
            columns.splits.append(_CODES[entry.split])
            if not entry.sha256:
                raise ValueError(f"{entry.path!a} has no SHA-256")
            columns.sha256.append(entry.sha256)
            sizes.append(entry.bytes)
            columns.widths.append(entry.width)
            columns.heights.append(entry.height)
        self._columns = columns
        self._rows: Sequence[int] = range(len(sizes))

    @classmethod
    def from_columns(
        cls,
        *,
        paths: Texts,
        labels: array[int],
        splits: Iterable[Split],
        sha256: Digests,
        sizes: Sequence[int],
        widths: array[int],
        heights: array[int],
    ) -> Self:
        """Return the entries of these fields; the caller changes none of them any more.

        Raises:
            ValueError: They are not equally long.
        """
        codes = bytearray(map(_CODES.__getitem__, splits))
        columns = _Columns(paths, labels, codes, sha256, sizes, widths, heights)
        lengths = {len(column) for column in columns}
        if len(lengths) != 1:
            raise ValueError(f"columns must be equally long, got {sorted(lengths)}")
        return cls._select(columns, range(len(codes)))

    def take(self, numbers: Iterable[int]) -> Self:
        """Return some of them, in the order of `numbers`."""
        rows = self._rows
        return self._select(self._columns, array("Q", [rows[each] for each in numbers]))

    def of_split(self, name: Split) -> Self:
        """Return those of one split, in their order."""
        code, splits = _CODES[name], self._columns.splits
        rows = array("Q", [row for row in self._rows if splits[row] == code])
        return self._select(self._columns, rows)

    def paths(self) -> Iterator[str]:
        """Yield the path of each."""
        if isinstance(self._rows, range):
            return iter(self._columns.paths)
        return map(self._columns.paths.__getitem__, self._rows)

    def labels(self) -> Iterator[int]:
        """Yield the label of each."""
        return map(self._columns.labels.__getitem__, self._rows)

    def hashes(self) -> Iterator[str]:
        """Yield the SHA-256 of each."""
        return (self._columns.sha256[row].hex() for row in self._rows)

    def splits(self) -> Iterator[Split]:
        """Yield the split of each."""
        return (SPLITS[self._columns.splits[row]] for row in self._rows)

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """Yield the fields of each, in the order of `Entry`."""
        return map(self._to_dict, self._rows)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: Any) -> Any:
        """Return one of them, or some."""
        if isinstance(at, slice):
            return self.take(range(len(self))[at])
        return Entry(**self._to_dict(self._rows[at]))

    def __iter__(self) -> Iterator[Entry]:
        """Yield each."""
        return (Entry(**each) for each in self.to_dicts())

    def __eq__(self, other: object) -> bool:
        """Tell whether a sequence holds equal entries in the same order."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == its for mine, its in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return how many there are."""
        return f"<{len(self)} entries>"

    def __add__(self, other: Entries) -> Entries:
        """Return both, one behind the other."""
        if self._columns is other._columns:
            return self._select(self._columns, array("Q", [*self._rows, *other._rows]))
        return Entries(itertools.chain(self, other))

    @classmethod
    def _select(cls, columns: _Columns, rows: Sequence[int]) -> Self:
        """Return some rows of columns; making empty columns first would take most of the time."""
        entries = object.__new__(cls)
        entries._columns, entries._rows = columns, rows
        return entries

    def _to_dict(self, row: int) -> dict[str, Any]:
        columns = self._columns
        return {
            "path": columns.paths[row],
            "label": columns.labels[row],
            "split": SPLITS[columns.splits[row]],
            "sha256": columns.sha256[row].hex(),
            "bytes": columns.sizes[row],
            "width": columns.widths[row],
            "height": columns.heights[row],
        }
