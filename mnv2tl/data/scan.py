"""From a data folder to its manifest: every file is listed, read once, judged and split.

Files are decoded in processes with limits (`worker_pool`): here foreign bytes meet a decoder for
the first time.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl.data.collector import pause_collector
from mnv2tl.data.folder import Listing, list_folder
from mnv2tl.data.judge import check_listing, check_share, judge
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.data.scan_worker import OUT_OF_MEMORY
from mnv2tl.data.stat_index import Record, StatIndex
from mnv2tl.data.worker_pool import DIED, TIMEOUT, read_files
from mnv2tl.errors import MachineError, install_extra
from mnv2tl.progress import track

__all__ = ["Scan", "ScanConfig", "check_share", "inspect", "scan"]

# Another day, another user, a repaired disk or a machine with more room may read these.
_PASSING = {"permission-denied", "vanished", "input-output", DIED, TIMEOUT, OUT_OF_MEMORY}


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
        MachineError: The disk fails (E502), ImageHash is not installed (E508), or no process can
            decode (E509).
    """
    manifest = inspect(root, config).manifest
    check_share(manifest, config.max_bad, root)
    return manifest


def inspect(root: Path, config: ScanConfig) -> Scan:
    """Scan a data folder, however many of its images are bad; see `scan`.

    Raises:
        DataError: The folder cannot be used (E300 to E307, E310).
        MachineError: The disk fails (E502), ImageHash is not installed (E508), or no process can
            decode (E509).
    """
    listing = list_folder(root, test_dir=config.test_dir, follow_links=config.follow_links)
    check_listing(listing, root, config)
    records, files_read, warnings = read_records(listing, config)
    manifest = judge(listing, records, root, config)
    manifest = replace(manifest, warnings=(*manifest.warnings, *warnings))
    return Scan(manifest=manifest, files=len(records), files_read=files_read)


def read_records(listing: Listing, config: ScanConfig) -> tuple[list[Record], int, list[str]]:
    """Learn what each file of a listing holds, from the index or by reading it.

    Returns:
        A record per file, in the order of `listing.found`; how many files were read for them; and
        what went wrong with the index, one line each.

    Raises:
        MachineError: ImageHash is not installed (E508), or no process can decode (E509).
    """
    if config.near_duplicates:
        _require_dhash()
    index = StatIndex(config.index, rule=_rule(config), is_trusted=not config.rehash)
    known = _ask_index(index, listing)
    if config.near_duplicates:
        known = [
            record if record is None or record.code or record.dhash is not None else None
            for record in known
        ]
    new = [found for found, record in zip(listing.found, known, strict=True) if record is None]
    read = read_files(
        [found.file for found in new],
        {"max_pixels": config.max_pixels, "hash": config.near_duplicates},
        seconds=config.decode_seconds,
        workers=config.workers,
    )
    fresh = []
    try:
        for found, record in zip(new, track(read, "Reading images", total=len(new)), strict=True):
            fresh.append(record)
            if record.code not in _PASSING:
                index.put(found.file, found.stat, record)
    finally:
        read.close()
        index.flush(prune=len(fresh) == len(new))
    remaining = iter(fresh)
    records = [next(remaining) if record is None else record for record in known]
    return records, len(new), index.warnings


@pause_collector()
def _ask_index(index: StatIndex, listing: Listing) -> list[Record | None]:
    root = os.fspath(listing.root)
    inside = root + os.sep
    files = [found.file for found in listing.found]
    elsewhere = {os.path.dirname(file) for file in files if not file.startswith(inside)}
    index.load([root, *sorted(elsewhere)])
    return [index.get(found.file, found.stat) for found in listing.found]


def _require_dhash() -> None:
    """Raise a `MachineError` (E508) if ImageHash is not installed; the workers import it."""
    if importlib.util.find_spec("imagehash") is None:
        message = "near duplicates need the package ImageHash"
        raise MachineError("E508", message, fix=install_extra("train"))


def _rule(config: ScanConfig) -> str:
    """Return a name for how a file is read; records of another rule are read anew."""
    rule = [images.PREPROCESSING, images.pillow_version(), config.max_pixels]
    return store.sha256_json(rule)[:16]
