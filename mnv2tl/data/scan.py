"""From a data folder to its manifest: every file is listed, read once, judged and split.

Files are decoded in processes with limits (`worker_pool`): here foreign bytes meet a decoder for
the first time.
"""

from __future__ import annotations

import bisect
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl.data.folder import Group, Listing, list_folder
from mnv2tl.data.judge import check_listing, check_share, judge
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.near_duplicates import HASH
from mnv2tl.data.records import Columns
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.data.scan_worker import OUT_OF_MEMORY
from mnv2tl.data.stat_index import StatIndex
from mnv2tl.data.worker_pool import DIED, TIMEOUT, read_files
from mnv2tl.interrupts import raise_pending
from mnv2tl.memory import pause_collector
from mnv2tl.progress import track

__all__ = ["Scan", "ScanConfig", "check_share", "inspect", "scan"]

# Another day, another user, a repaired disk or a machine with more room may read these.
_PASSING = {"permission-denied", "vanished", "input-output", DIED, TIMEOUT, OUT_OF_MEMORY}

_AT_ONCE = 500
"""Files of a folder that go to the index together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A manifest and what it took to make it."""

    manifest: Manifest
    """The data set."""
    files: int
    """Files in class folders."""
    files_read: int
    """How many of them were opened; the others stood in the index unchanged."""


def scan(root: Path, config: ScanConfig) -> Manifest:
    """Return the manifest of a data folder.

    Raises:
        DataError: The folder cannot be used (E300 to E308, E310).
        MachineError: The disk fails (E502), or no process can decode (E509).
    """
    manifest = inspect(root, config).manifest
    check_share(manifest, config.max_bad, root)
    return manifest


def inspect(root: Path, config: ScanConfig) -> Scan:
    """Scan a data folder, however many of its images are bad; see `scan`.

    Raises:
        DataError: The folder cannot be used (E300 to E307, E310).
        MachineError: The disk fails (E502), or no process can decode (E509).
    """
    listing = list_folder(root, test_dir=config.test_dir, follow_links=config.follow_links)
    check_listing(listing, root, config)
    records, files_read, warnings = read_records(listing, config)
    files = sum(map(len, records))
    manifest = judge(listing, records, root, config)
    manifest = replace(manifest, warnings=(*manifest.warnings, *warnings))
    return Scan(manifest=manifest, files=files, files_read=files_read)


def read_records(listing: Listing, config: ScanConfig) -> tuple[list[Columns], int, list[str]]:
    """Learn what each file of a listing holds, from the index or by reading it.

    Returns:
        The records of each group of `listing.groups`; how many files were read for them; and
        what went wrong with the index, one line each.

    Raises:
        MachineError: No process can decode (E509).
        InterruptError: A signal came before, and Python dropped what it raised (E901).
    """
    index = StatIndex(config.index, rule=_rule(config), is_trusted=not config.rehash)
    known, new = _ask_index(index, listing, needs_dhash=config.near_duplicates)
    read = read_files(
        new,
        {"max_pixels": config.max_pixels, "hash": config.near_duplicates},
        seconds=config.decode_seconds,
        workers=config.workers,
    )
    is_done = False
    at, rows = 0, array("Q")  # of one group, read since the index got some

    def keep() -> None:
        index.add(listing.groups[at].folder, listing.groups[at].make_part(rows, known[at]))

    try:
        shown = track(read, "Reading images", total=len(new))
        for (number, row), record in zip(new.places(), shown, strict=True):
            raise_pending()
            known[number][row] = record
            if record.code in _PASSING:
                continue
            if number != at or len(rows) >= _AT_ONCE:
                keep()
                at, rows = number, array("Q")
            rows.append(row)
        is_done = True
    finally:
        read.close()
        keep()
        index.flush(prune=is_done)
    return known, len(new), index.warnings


class _Files(Sequence[str]):
    """The paths of some files of a listing, made when they are asked for."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._rows: list[Sequence[int]] = []
        self._ends: list[int] = []

    def add(self, rows: Sequence[int]) -> None:
        """Take some files of the next group."""
        self._rows.append(rows)
        self._ends.append(len(self) + len(rows))

    def places(self) -> Iterator[tuple[int, int]]:
        """Yield the number of the group and the row in it of each file."""
        for number, rows in enumerate(self._rows):
            for row in rows:
                yield number, row

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, at: Any) -> Any:
        number = bisect.bisect_right(self._ends, at)
        rows = self._rows[number]
        return self._groups[number].file(rows[at - self._ends[number]])


@pause_collector()
def _ask_index(
    index: StatIndex, listing: Listing, *, needs_dhash: bool
) -> tuple[list[Columns], _Files]:
    root = os.fspath(listing.root)
    inside = root + os.sep
    elsewhere = {each.folder for each in listing.groups if not each.folder.startswith(inside)}
    index.load([root, *sorted(elsewhere - {root})])
    columns, files = [], _Files(listing.groups)
    for group in listing.groups:
        known, unknown = index.match(group.folder, group.names, group.stats)
        if needs_dhash:
            unread = set(unknown)
            lacking = known.find_lacking_dhash()
            unknown = sorted(unread.union(lacking)) if lacking else unknown
        columns.append(known)
        files.add(unknown)
    return columns, files


def _rule(config: ScanConfig) -> str:
    """Return a name for how a file is read; records of another rule are read anew."""
    rule = [images.PREPROCESSING, images.pillow_version(), config.max_pixels, HASH]
    return store.sha256_json(rule)[:16]
