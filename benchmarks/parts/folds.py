"""Folds: every picture is validated on once, by both recipes in the same company.

A fold is a folder with train/ and val/, which `mnv2tl train` and Keras' generator both take as
the split, so neither needs to be told about folds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from mnv2tl.data.manifest import Manifest
from mnv2tl.data.scan import scan
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.data.split import positions


def assign_folds(images: Iterable[tuple[str, int]], *, folds: int, seed: int = 0) -> dict[str, int]:
    """Return the fold of each distinct content, from 0 to folds - 1.

    Contents are dealt out class by class in the order of a seeded hash, each class starting one
    fold further on. Equal bytes are one content, so duplicates stay together.

    Args:
        images: SHA-256 and label of each image.
        folds: How many folds, at least 2.
        seed: Another seed gives other folds.

    >>> sorted(assign_folds([("00", 0), ("11", 0), ("22", 1)], folds=2).values())
    [0, 1, 1]
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    of_class: dict[int, set[str]] = {}
    for sha256, label in images:
        of_class.setdefault(label, set()).add(sha256)
    fold_of: dict[str, int] = {}
    for label, hashes in of_class.items():
        u = positions(hashes, seed)
        ordered = sorted(hashes, key=lambda sha256: (u[sha256], sha256))
        fold_of |= {sha256: (rank + label) % folds for rank, sha256 in enumerate(ordered)}
    return fold_of


def read_data(data: Path) -> Manifest:
    """Scan a data folder; near duplicates are not looked for."""
    return scan(data, ScanConfig(near_duplicates=False))


def has_own_split(data: Path) -> bool:
    """Tell whether a data folder comes with train/ and val/."""
    return (data / "train").is_dir() and (data / "val").is_dir()


def write_fold(manifest: Manifest, folder: Path, *, fold: int, folds: int) -> None:
    """Make a folder train/CLASS/ and val/CLASS/ of links to a data set's images.

    Args:
        manifest: The data set; its own split does not matter.
        folder: Made new.
        fold: Which fold is validated on.
        folds: How many there are.
    """
    fold_of = assign_folds(((e.sha256, e.label) for e in manifest.entries), folds=folds)
    for entry in manifest.entries:
        split = "val" if fold_of[entry.sha256] == fold else "train"
        target = folder / split / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(manifest.path_of(entry), target)
        except OSError:  # another file system
            shutil.copyfile(manifest.path_of(entry), target)
