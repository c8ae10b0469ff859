"""What was learnt of each file, so that an unchanged one is not read again.

An SQLite file. A record counts only while size, modification time, change time and inode of the
file are those of the time it was read. It is a cache: damage to it, or a lock on it, costs time and
a warning, never a result.

A scan of unchanged files does little but read this, so the files of a folder lie in one row, which
is compared with the folder as a whole. What is read anew is added in rows of its own; the end of a
scan makes one of them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mnv2tl.data.index_part import (
    Part,
    changed_ns,
    merge,
    pack,
    unpack,
)
from mnv2tl.data.packed import Texts
from mnv2tl.data.records import Columns, Record
from mnv2tl.errors import show

__all__ = ["INDEX_NAME", "Record", "StatIndex"]

INDEX_NAME = "images.sqlite"
"""A damaged file is deleted if its header says that it is an index, or, without one, its name."""

_APPLICATION_ID = 0x6D6E7632  # "mnv2" in the header that SQLite keeps for such marks
_SCHEMA = 4
_FLUSH_FILES = 2000
_PART_FILES = 10_000
# Two writes within one tick of the clock (at most 10 ms on Linux) leave the same times behind.
_TICK_NS = 100_000_000
_TABLES = (
    "CREATE TABLE IF NOT EXISTS "
    "parts (id INTEGER PRIMARY KEY, folder BLOB, content BLOB, crc INTEGER)",
    "CREATE INDEX IF NOT EXISTS folders ON parts (folder)",
)
_INSERT = "INSERT INTO parts (folder, content, crc) VALUES (?, ?, ?)"
_SELECT = "SELECT id, folder, content, crc FROM parts"
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


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
        self._known: dict[str, Part] = {}
        self._rows: dict[str, dict[str, int]] = {}
        self._asked: dict[str, list[Texts]] = {}
        self._whole: set[str] = set()
        self._new: list[tuple[str, Part]] = []
        self._changed: set[str] = set()

    def load(self, folders: Iterable[str]) -> None:
        """Read all records of the files below some absolute folders."""
        if self._path is None:
            return
        folders = list(folders)
        try:
            self._known = _read(self._path, folders, self._rule)
        except (sqlite3.Error, OSError) as error:
            if not self._remove_damaged(error):
                return
            with contextlib.suppress(sqlite3.Error, OSError):
                self._known = _read(self._path, folders, self._rule)

    def match(self, folder: str, names: Texts, stats: bytes) -> tuple[Columns, Sequence[int]]:
        """Return what is known of some files of a folder.

        Args:
            folder: Absolute.
            names: Of the files, sorted.
            stats: A packed status of each.

        Returns:
            A record per file, and the numbers of the files of which none is known.
        """
        known = self._known.get(folder) if self._is_trusted else None
        if known is not None and known.names == names and known.stats == stats:
            known.names, known.stats = names, stats  # once in memory
            self._whole.add(folder)
            return known.columns, ()
        self._asked.setdefault(folder, []).append(names)
        columns = Columns.make_blank(len(names))
        if known is None:
            return columns, range(len(names))
        found = Part(names=names, stats=stats, columns=columns)
        unknown = []
        rows = self._rows_of(folder)
        for row, name in enumerate(names):
            former = rows.get(name)
            if former is None or known.status(former) != found.status(row):
                unknown.append(row)
            else:
                columns[row] = known.columns[former]
        return columns, unknown

    def add(self, folder: str, part: Part) -> None:
        """Keep the records of some files of a folder.

        Args:
            folder: Absolute.
            part: The files, with their statuses of before they were read.
        """
        if self._path is None:
            return
        latest_ns = self._opened_ns - _TICK_NS
        rows = [row for row in range(len(part.names)) if changed_ns(part.status(row)) <= latest_ns]
        if rows:
            self._new.append((folder, part if len(rows) == len(part.names) else part.take(rows)))
        if sum(len(new.names) for _, new in self._new) >= _FLUSH_FILES:
            self.flush()

    def flush(self, *, prune: bool = False) -> None:
        """Write new records to the file.

        Args:
            prune: The scan is over: drop former records of files that were not asked for and are
                gone, and make one row of those of a folder.
        """
        gone = self._find_gone() if prune else {}
        self._changed |= {folder for folder, _ in self._new} | gone.keys()
        if self._path is None or not (self._new or (prune and self._changed)):
            return
        try:
            with _open(self._path) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                for folder, part in self._new:
                    connection.execute(_INSERT, _row(folder, part, self._rule))
                for folder in self._changed if prune else ():
                    _tidy(connection, folder, gone.get(folder, set()), self._rule)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        self._new.clear()

    def _rows_of(self, folder: str) -> dict[str, int]:
        if folder not in self._rows:
            names = self._known[folder].names if folder in self._known else ()
            self._rows[folder] = {name: row for row, name in enumerate(names)}
        return self._rows[folder]

    def _find_gone(self) -> dict[str, set[str]]:
        gone = {}
        for folder in self._known.keys() - self._whole:
            known = self._known[folder]
            unasked = set(known.names).difference(*self._asked.get(folder, []))
            lost = {name for name in unasked if not os.path.lexists(os.path.join(folder, name))}
            if lost:
                gone[folder] = lost
        return gone

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
        # In this order: another process may make the tables now, and it makes the marks before.
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        if tables and (application != _APPLICATION_ID or version != _SCHEMA):
            raise sqlite3.DatabaseError("it is another program's file, or of another version")
        if not tables:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
            for table in _TABLES:
                connection.execute(table)
        yield connection


def _read(path: Path, folders: list[str], rule: str) -> dict[str, Part]:
    parts: dict[str, list[Part]] = {}
    with _open(path) as connection:
        for folder in folders:
            for _, name, part in _select(connection, folder, rule):
                parts.setdefault(name, []).append(part)
    return {name: each[0] if len(each) == 1 else merge(each) for name, each in parts.items()}


def _select(
    connection: sqlite3.Connection, folder: str, rule: str, *, is_deep: bool = True
) -> Iterator[tuple[int, str, Part]]:
    """Yield number, folder and files of each row about a folder, the oldest first."""
    first = os.fsencode(folder)
    below = os.fsencode(folder.rstrip(os.sep) + os.sep)
    last = below[:-1] + bytes([below[-1] + 1]) if is_deep else below
    select = f"{_SELECT} WHERE folder = ? OR folder >= ? AND folder < ? ORDER BY id"
    for number, name, content, crc in connection.execute(select, (first, below, last)):
        try:
            is_whole = zlib.crc32(content, zlib.crc32(name)) == crc
        except TypeError:  # damage may change the type of a value too
            is_whole = False
        if not is_whole:
            raise sqlite3.DatabaseError("a record does not match its checksum")
        part, its_rule = unpack(content)
        yield number, os.fsdecode(name), part if its_rule == rule else Part()


def _tidy(connection: sqlite3.Connection, folder: str, gone: set[str], rule: str) -> None:
    """Make as few rows as possible of those about a folder, without the files that are gone."""
    found = list(_select(connection, folder, rule, is_deep=False))
    whole = merge(part for _, _, part in found)
    if gone:
        whole = whole.take([row for row, name in enumerate(whole.names) if name not in gone])
    connection.executemany("DELETE FROM parts WHERE id = ?", [(number,) for number, _, _ in found])
    for first in range(0, len(whole.names), _PART_FILES):
        part = whole.take(range(first, min(first + _PART_FILES, len(whole.names))))
        connection.execute(_INSERT, _row(folder, part, rule))


def _row(folder: str, part: Part, rule: str) -> tuple[bytes, bytes, int]:
    name, content = os.fsencode(folder), pack(part, rule)
    return name, content, zlib.crc32(content, zlib.crc32(name))


def _is_index(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(72)
    if header.startswith(b"SQLite format 3\0"):
        return header[68:72] == _APPLICATION_ID.to_bytes(4)
    return path.name == INDEX_NAME
