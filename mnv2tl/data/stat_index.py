"""What was learnt of each file, so that an unchanged one is not read again.

An SQLite file keyed by absolute path. A record counts only while size, modification time, change
time and inode of the file are those of the time it was read. It is a cache: damage to it, or a
lock on it, costs time and a warning, never a result.

A scan of unchanged files does little but read this, so a record is packed into one value.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mnv2tl.errors import show

INDEX_NAME = "images.sqlite"
"""A damaged file is deleted if its header says that it is an index, or, without one, its name."""

_APPLICATION_ID = 0x6D6E7632  # "mnv2" in the header that SQLite keeps for such marks
_SCHEMA = 2
_FLUSH_ROWS = 2000
# Two writes within one tick of the clock (at most 10 ms on Linux) leave the same times behind.
_TICK_NS = 100_000_000
_TABLE = """
CREATE TABLE IF NOT EXISTS images (path BLOB PRIMARY KEY, record BLOB, crc INTEGER) WITHOUT ROWID
"""
_INSERT = "INSERT OR REPLACE INTO images VALUES (?, ?, ?)"
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}

# Size, modification time, change time, inode; SHA-256 as text, width, height, dHash and whether
# there is one. After it comes JSON: the rule, then the other fields of `Record`.
_FIXED = struct.Struct("<QqqQ64sIIQ?")
_INODE_BITS = 2**64 - 1  # some file systems of Windows have more

_Row = tuple[bytes, bytes, int]


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


class Record(NamedTuple):
    """What one reading of a file showed. A tuple: there is one per file, and they are made fast."""

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


class StatIndex:
    """The records of the files in some folders; see the module.

    Args:
        path: The SQLite file; None keeps nothing.
        rule: Names how files were read; a record of another rule does not count.
        is_trusted: False gives no former record back, and replaces them all.
    """

    def __init__(self, path: Path | None, *, rule: str, is_trusted: bool = True) -> None:
        """Remember the file; `load` opens it."""
        self.warnings: list[str] = []
        self._path = path
        self._rule = rule
        self._is_trusted = is_trusted
        self._opened_ns = time.time_ns()
        self._known: dict[bytes, bytes] = {}
        self._asked: set[bytes] = set()
        self._new: list[_Row] = []

    def load(self, folders: Iterable[str]) -> None:
        """Read all records of the files below some absolute folders."""
        if self._path is None:
            return
        folders = list(folders)
        try:
            self._known = _select(self._path, folders)
        except (sqlite3.Error, OSError) as error:
            if not self._remove_damaged(error):
                return
            with contextlib.suppress(sqlite3.Error, OSError):
                self._known = _select(self._path, folders)

    def get(self, file: str, stat: Status | os.stat_result) -> Record | None:
        """Return what is known of a file, or None if it must be read."""
        path = os.fsencode(file)
        self._asked.add(path)
        content = self._known.get(path)
        if content is None or not self._is_trusted:
            return None
        size, mtime, ctime, inode, sha256, width, height, dhash, has_dhash = _FIXED.unpack_from(
            content
        )
        rule, kind, notes, code, reason = _read_texts(content[_FIXED.size :])
        if (
            size != stat.st_size
            or mtime != stat.st_mtime_ns
            or ctime != stat.st_ctime_ns
            or inode != stat.st_ino & _INODE_BITS
            or rule != self._rule
        ):
            return None
        return Record(
            sha256.rstrip(b"\0").decode("ascii"),
            width,
            height,
            kind,
            notes,
            dhash if has_dhash else None,
            code,
            reason,
        )

    def put(self, file: str, stat: Status | os.stat_result, record: Record) -> None:
        """Keep a record under what `stat` was before the file was read."""
        if self._path is None or stat.st_ctime_ns > self._opened_ns - _TICK_NS:
            return
        self._new.append(_row(os.fsencode(file), stat, self._rule, record))
        if len(self._new) >= _FLUSH_ROWS:
            self.flush()

    def flush(self, *, prune: bool = False) -> None:
        """Write new records to the file.

        Args:
            prune: Drop former records of files that were not asked for and are gone.
        """
        gone = []
        if prune:
            unasked = self._known.keys() - self._asked
            gone = [(path,) for path in unasked if not os.path.lexists(path)]
        if self._path is None or not (self._new or gone):
            return
        try:
            with _open(self._path) as connection, connection:
                connection.executemany(_INSERT, self._new)
                connection.executemany("DELETE FROM images WHERE path = ?", gone)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        self._new.clear()

    def _remove_damaged(self, error: sqlite3.Error | OSError) -> bool:
        """Delete the file if it is an index of ours that is damaged; else work without one."""
        if self._path is None:
            return False
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        try:
            if isinstance(error, OSError) or code not in _DAMAGE or not _is_index(self._path):
                self._give_up(error)
                return False
            for suffix in ("", "-journal", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        except OSError as other:  # a folder that is read-only, or where another process was quicker
            self._give_up(other)
            return False
        why = "was damaged or of another version"
        self.warnings.append(f"the index {show(self._path)} {why}, and is built anew")
        return True

    def _give_up(self, error: Exception) -> None:
        reason = ascii(str(error))[1:-1]
        self.warnings.append(f"the index {show(self._path or '')} is not used: {reason}")
        self._path = None


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path, timeout=5.0)) as connection:
        # A power cut may cost records; each row's checksum keeps a torn one from being believed.
        connection.execute("PRAGMA synchronous = OFF")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables and (application != _APPLICATION_ID or version != _SCHEMA):
            raise sqlite3.DatabaseError("it is another program's file, or of another version")
        if not tables:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
            connection.execute(_TABLE)
        yield connection


def _select(path: Path, folders: list[str]) -> dict[bytes, bytes]:
    known: dict[bytes, bytes] = {}
    with _open(path) as connection:
        for folder in folders:
            first = os.fsencode(folder.rstrip(os.sep) + os.sep)
            last = first[:-1] + bytes([first[-1] + 1])
            select = "SELECT path, record, crc FROM images WHERE path >= ? AND path < ?"
            for file, record, crc in connection.execute(select, (first, last)):
                try:
                    is_whole = zlib.crc32(record, zlib.crc32(file)) == crc
                except TypeError:  # damage may change the type of a value too
                    is_whole = False
                if not is_whole:
                    raise sqlite3.DatabaseError("a record does not match its checksum")
                known[file] = record
    return known


def _row(path: bytes, stat: Status | os.stat_result, rule: str, record: Record) -> _Row:
    fixed = _FIXED.pack(
        *(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & _INODE_BITS),
        *(record.sha256.encode("ascii"), record.width, record.height),
        *(record.dhash or 0, record.dhash is not None),
    )
    texts = [rule, record.format, record.notes, record.code, record.reason]
    content = fixed + json.dumps(texts).encode("ascii")
    return path, content, zlib.crc32(content, zlib.crc32(path))


@functools.lru_cache(maxsize=1000)
def _read_texts(content: bytes) -> tuple[str, str, tuple[str, ...], str, str]:
    # Few of them differ, so most are read once.
    rule, kind, notes, code, reason = json.loads(content)
    return rule, kind, tuple(notes), code, reason


def _is_index(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(72)
    if header.startswith(b"SQLite format 3\0"):
        return header[68:72] == _APPLICATION_ID.to_bytes(4)
    return path.name == INDEX_NAME
