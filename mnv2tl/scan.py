"""From a data folder to its manifest: every file is listed, read once, judged and split.

Files are read in threads (Pillow lets go of Python's lock), a few ahead of the one whose turn it
is, so memory does not grow with the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnv2tl import images, store
from mnv2tl.errors import MachineError, install_extra
from mnv2tl.folder import Found, Listing, list_folder
from mnv2tl.judge import check_listing, check_share, judge
from mnv2tl.manifest import Manifest
from mnv2tl.parallel import map_ordered
from mnv2tl.progress import track
from mnv2tl.scan_config import ScanConfig
from mnv2tl.stat_index import Record, StatIndex

__all__ = ["Scan", "ScanConfig", "check_share", "inspect", "scan"]

Hash = Callable[[NDArray[np.uint8]], int]

# Another day, another user or a repaired disk may read these.
_PASSING = {"permission-denied", "vanished", "input-output"}


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
        MachineError: The disk fails (E502), or ImageHash is not installed (E508).
    """
    manifest = inspect(root, config).manifest
    check_share(manifest, config.max_bad, root)
    return manifest


def inspect(root: Path, config: ScanConfig) -> Scan:
    """Scan a data folder, however many of its images are bad; see `scan`.

    Raises:
        DataError: The folder cannot be used (E300 to E307, E310).
        MachineError: The disk fails (E502), or ImageHash is not installed (E508).
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
        MachineError: ImageHash is not installed (E508).
    """
    dhash = _load_dhash() if config.near_duplicates else None
    index = StatIndex(config.index, rule=_rule(config), is_trusted=not config.rehash)
    root = os.fspath(listing.root)
    folders = {os.path.dirname(found.file) for found in listing.found}
    index.load([root, *sorted(each for each in folders if not each.startswith(root + os.sep))])
    known = [index.get(found.file, found.stat) for found in listing.found]
    if dhash is not None:
        known = [
            record if record is None or record.code or record.dhash is not None else None
            for record in known
        ]
    new = [found for found, record in zip(listing.found, known, strict=True) if record is None]

    def read_one(found: Found) -> Record:
        return _read_file(found.file, config.max_pixels, dhash)

    read = map_ordered(read_one, new, workers=config.workers)
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


def _read_file(file: str, max_pixels: int, dhash: Hash | None) -> Record:
    sha256 = ""
    try:
        content = images.read_bytes(file)
        sha256 = store.sha256_bytes(content)
        decoded = images.decode(content, max_pixels=max_pixels)
    except images.UnreadableImageError as error:
        return Record(sha256=sha256, code=error.reason, reason=error.message)
    return Record(
        sha256=sha256,
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        notes=decoded.warnings,
        dhash=None if dhash is None else dhash(decoded.pixels),
    )


def _load_dhash() -> Hash:
    try:
        import imagehash  # noqa: PLC0415  not installed where nothing is trained
    except ImportError as error:
        message = "near duplicates need the package ImageHash"
        raise MachineError("E508", message, fix=install_extra("train")) from error

    def dhash(pixels: NDArray[np.uint8]) -> int:
        bits = imagehash.dhash(Image.fromarray(pixels)).hash
        return int.from_bytes(np.packbits(bits).tobytes())

    return dhash


def _rule(config: ScanConfig) -> str:
    """Return a name for how a file is read; records of another rule are read anew."""
    rule = [images.PREPROCESSING, images.pillow_version(), config.max_pixels]
    return store.sha256_json(rule)[:16]
