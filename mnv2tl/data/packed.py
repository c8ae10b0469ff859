"""Many short texts, or many SHA-256, in one block of memory each.

A str takes 50 bytes more than its characters and one of 64 digits 113, where a data set may have a
million files.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, overload

import numpy as np

SHA256_BYTES = 32
NO_SHA256 = bytes(SHA256_BYTES)
"""Stands for a file that was not read."""

_DECODED = 1000
"""Texts that are a str at a time."""
# Any str comes back: names of Linux may hold any bytes, those of Windows halves of a pair.
_ENCODING = ("utf-8", "surrogatepass")


class Texts(Sequence[str]):
    r"""Texts without the character 0, as UTF-8 with a 0 behind each.

    Example:
        >>> from mnv2tl.data.packed import Texts
        >>> texts = Texts(["a.png", "b.png"])
        >>> texts.append("c.png")
        >>> texts[2], len(texts), texts.joined()
        ('c.png', 3, b'a.png\x00b.png\x00c.png\x00')
    """

    __slots__ = ("_content", "_starts")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Take some texts.

        Raises:
            ValueError: As for `append`.
        """
        texts = list(texts)
        self._content = bytearray("".join([f"{text}\0" for text in texts]).encode(*_ENCODING))
        self._starts = array("Q", [0])
        self._starts.frombytes(_find_ends(self._content))
        if len(self) != len(texts):
            raise ValueError("a text must not hold the character 0")

    @classmethod
    def from_joined(cls, content: bytes) -> Self:
        """Return the texts that `joined` gave.

        Raises:
            ValueError: The last one has no end.
        """
        if content and content[-1]:
            raise ValueError("each text must end with a 0")
        texts = cls()
        texts._content += content
        texts._starts.frombytes(_find_ends(content))
        return texts

    def joined(self) -> bytes:
        """Return all of them as bytes, each with a 0 behind it."""
        return bytes(self._content)

    def append(self, text: str) -> None:
        """Add a text.

        Raises:
            ValueError: It has the character 0.
        """
        content = text.encode(*_ENCODING)
        if 0 in content:
            raise ValueError(f"a text must not hold the character 0, got {text!a}")
        self._content += content
        self._content.append(0)
        self._starts.append(len(self._content))

    def extend(self, texts: Texts, *, prefix: str = "") -> None:
        """Add others, each behind a prefix."""
        if not texts:
            return
        before = prefix.encode(*_ENCODING)
        content = before + texts._content[:-1].replace(b"\0", b"\0" + before) + b"\0"
        ends = np.frombuffer(_find_ends(content), np.uint64) + np.uint64(len(self._content))
        self._content += content
        self._starts.frombytes(ends.tobytes())

    def take(self, rows: Iterable[int]) -> Texts:
        """Return some of them, in the order of `rows`."""
        content, starts, taken = self._content, self._starts, Texts()
        taken._content += b"".join([content[starts[row] : starts[row + 1]] for row in rows])
        taken._starts.frombytes(_find_ends(taken._content))
        return taken

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._starts) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Texts: ...
    def __getitem__(self, at: Any) -> Any:
        """Return one of them, or some as Texts."""
        if isinstance(at, slice):
            return self.take(range(len(self))[at])
        row = range(len(self))[at]  # counted from the end if it is negative
        start, end = self._starts[row], self._starts[row + 1]
        return self._content[start : end - 1].decode(*_ENCODING)

    def __iter__(self) -> Iterator[str]:
        """Yield each."""
        starts = self._starts
        for first in range(0, len(self), _DECODED):
            start, end = starts[first], starts[min(first + _DECODED, len(self))]
            yield from self._content[start : end - 1].decode(*_ENCODING).split("\0")

    def __eq__(self, other: object) -> bool:
        """Tell whether another one has the same texts in the same order."""
        return isinstance(other, Texts) and self._content == other._content

    __hash__ = None  # type: ignore[assignment]


def _find_ends(content: bytes | bytearray) -> bytes:
    """Return where each text ends, with its 0, as 8 bytes each."""
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == 0) + 1
    return ends.astype(np.uint64).tobytes()


class Digests(Sequence[bytes]):
    """SHA-256 as 32 bytes each; `NO_SHA256` where there is none.

    Example:
        >>> from mnv2tl.data.packed import Digests
        >>> digests = Digests.blank(2)
        >>> digests.put(1, "ab" * 32)
        >>> digests.hex(0), digests.hex(1)[:4]
        ('', 'abab')
    """

    __slots__ = ("content",)

    def __init__(self, content: bytes | bytearray = b"") -> None:
        """Take the bytes of all, one behind the other."""
        self.content = bytearray(content)

    @classmethod
    def blank(cls, count: int) -> Self:
        """Return as many without a hash."""
        return cls(bytes(SHA256_BYTES * count))

    def put(self, row: int, digits: str) -> None:
        """Set one from its 64 hexadecimal digits, or an empty text for none.

        Raises:
            ValueError: It is something else.
        """
        start = SHA256_BYTES * range(len(self))[row]
        self.content[start : start + SHA256_BYTES] = _to_digest(digits)

    def append(self, digits: str) -> None:
        """Add one; see `put`."""
        self.content += _to_digest(digits)

    def hex(self, row: int) -> str:
        """Return one as 64 hexadecimal digits; an empty text where there is none."""
        digest = self[row]
        return "" if digest == NO_SHA256 else digest.hex()

    def hex_of(self, rows: Iterable[int]) -> list[str]:
        """Return some as 64 hexadecimal digits each, all of which there must be."""
        content = self.content
        return [content[SHA256_BYTES * row : SHA256_BYTES * (row + 1)].hex() for row in rows]

    def extend(self, other: Digests) -> None:
        """Add others."""
        self.content += other.content

    def take(self, rows: Iterable[int]) -> Digests:
        """Return some of them, in the order of `rows`."""
        content = self.content
        starts = [SHA256_BYTES * row for row in rows]
        return Digests(b"".join([content[start : start + SHA256_BYTES] for start in starts]))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.content) // SHA256_BYTES

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Digests: ...
    def __getitem__(self, at: Any) -> Any:
        """Return one of them, or some as Digests."""
        if isinstance(at, slice):
            return self.take(range(len(self))[at])
        start = SHA256_BYTES * range(len(self))[at]
        return bytes(self.content[start : start + SHA256_BYTES])

    def __eq__(self, other: object) -> bool:
        """Tell whether another one has the same in the same order."""
        return isinstance(other, Digests) and self.content == other.content

    __hash__ = None  # type: ignore[assignment]


def _to_digest(digits: str) -> bytes:
    if not digits:
        return NO_SHA256
    digest = bytes.fromhex(digits)
    if digest.hex() != digits or len(digest) != SHA256_BYTES:
        raise ValueError(f"a SHA-256 has 64 hexadecimal digits, got {digits[:80]!a}")
    return digest
