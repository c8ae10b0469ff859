"""What was learnt of each file, so that an unchanged one is not read again.

An SQLite file keyed by absolute path. A record counts only while size, modification time, change
time and inode of the file are those of the time it was read. It is a cache: damage to it, or a
lock on it, costs time and a warning, never a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mnv2tl.errors import show

INDEX_NAME = "images.sqlite"
"""A damaged file is deleted if its header says that it is an index, or, without one, its name."""

_APPLICATION_ID = 0x6D6E7632  # "mnv2" in the header that SQLite keeps for such marks
_SCHEMA = 1
_FLUSH_ROWS = 2000
# Two writes within one tick of the clock (at most 10 ms on Linux) leave the same times behind.
_TICK_NS = 100_000_000
_TABLE = """
CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, inode INTEGER,
    rule TEXT, sha256 TEXT, width INTEGER, height INTEGER, format TEXT, notes TEXT, dhash TEXT,
    code TEXT, reason TEXT, crc INTEGER
) WITHOUT ROWID
"""
_INSERT = f"INSERT OR REPLACE INTO images VALUES ({', '.join('?' * 15)})"  # noqa: S608  no input
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}

_Row = tuple[bytes, int, int, int, int, str, str, int, int, str, str, str | None, str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
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
        self._known: dict[bytes, _Row] = {}
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

    def get(self, file: str, stat: os.stat_result) -> Record | None:
        """Return what is known of a file, or None if it must be read."""
        path = os.fsencode(file)
        self._asked.add(path)
        row = self._known.get(path)
        if row is None or not self._is_trusted or row[1:6] != (*_stamp(stat), self._rule):
            return None
        _, _, _, _, _, _, sha256, width, height, kind, notes, dhash, code, reason, _ = row
        return Record(
            sha256=sha256,
            width=width,
            height=height,
            format=kind,
            notes=tuple(json.loads(notes)) if notes else (),
            dhash=None if dhash is None else int(dhash, 16),
            code=code,
            reason=reason,
        )

    def put(self, file: str, stat: os.stat_result, record: Record) -> None:
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
        if isinstance(error, OSError) or code not in _DAMAGE or not _is_index(self._path):
            self._give_up(error)
            return False
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
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


def _select(path: Path, folders: list[str]) -> dict[bytes, _Row]:
    known: dict[bytes, _Row] = {}
    with _open(path) as connection:
        for folder in folders:
            first = os.fsencode(folder.rstrip(os.sep) + os.sep)
            last = first[:-1] + bytes([first[-1] + 1])
            select = "SELECT * FROM images WHERE path >= ? AND path < ?"
            for row in connection.execute(select, (first, last)):
                if _crc(row[:-1]) != row[-1]:
                    raise sqlite3.DatabaseError("a record does not match its checksum")
                known[row[0]] = row
    return known


def _row(path: bytes, stat: os.stat_result, rule: str, record: Record) -> _Row:
    row = (
        path,
        *_stamp(stat),
        rule,
        record.sha256,
        record.width,
        record.height,
        record.format,
        json.dumps(record.notes) if record.notes else "",
        None if record.dhash is None else f"{record.dhash:016x}",
        record.code,
        record.reason.encode("utf-8", "backslashreplace").decode("utf-8"),
    )
    return (*row, _crc(row))


def _stamp(stat: os.stat_result) -> tuple[int, int, int, int]:
    # SQLite holds 63 bits; some file systems number their inodes with 64.
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & (2**63 - 1)


def _crc(row: tuple[object, ...]) -> int:
    return zlib.crc32(repr(row).encode("utf-8", "backslashreplace"))


def _is_index(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(72)
    if header.startswith(b"SQLite format 3\0"):
        return header[68:72] == _APPLICATION_ID.to_bytes(4)
    return path.name == INDEX_NAME
