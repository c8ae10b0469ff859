"""One line for each kind of thing that a user should know of a data folder, with its count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mnv2tl.data.folder import Listing
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.records import Kind
from mnv2tl.data.split import SPLITS
from mnv2tl.errors import show

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
}
"""Suffix -> the format that a file of this name should hold."""

_LISTED = 10


def count_warnings(
    listing: Listing, kinds: Sequence[Kind], manifest: Manifest, *, leaks: int
) -> tuple[str, ...]:
    """Return a line per kind of finding, none for what does not occur.

    Args:
        listing: What the folders hold.
        kinds: What was read of each entry of the manifest, in its order.
        manifest: Entries, left-out files, duplicates and near duplicates.
        leaks: Contents that lie in more than one split.
    """
    return (
        *_ignored(listing),
        *_left_out(manifest),
        *_of_images(kinds, manifest.entries.paths()),
        *_of_duplicates(manifest),
        *_of_splits(listing, manifest, leaks),
    )


def _ignored(listing: Listing) -> Iterable[str]:
    counts = [f"{kind} {count}" for kind, count in sorted(listing.ignored.items()) if count]
    if counts:
        yield f"ignored: {', '.join(counts)}"


def _left_out(manifest: Manifest) -> Iterable[str]:
    codes = Counter(each.code for each in manifest.left_out)
    if codes:
        counts = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
        yield f"left out: {counts}"


def _of_images(kinds: Sequence[Kind], paths: Iterable[str]) -> Iterable[str]:
    suffixes = (path.rpartition(".")[2] for path in paths)
    named = Counter(zip(suffixes, kinds, strict=True))
    misnamed = sum(
        count
        for (suffix, kind), count in named.items()
        if FORMAT_OF_SUFFIX.get(f".{suffix.lower()}") != kind.format
    )
    if misnamed:
        yield f"extension mismatch: {misnamed}, used by their content"
    notes: Counter[str] = Counter()
    for (_, kind), count in named.items():
        notes.update(dict.fromkeys(kind.notes, count))
    yield from (f"{note}: {count}" for note, count in sorted(notes.items()))


def _of_duplicates(manifest: Manifest) -> Iterable[str]:
    if manifest.duplicates:
        files = sum(len(group) for group in manifest.duplicates)
        yield f"duplicates: {len(manifest.duplicates)} images lie in {files} files of equal bytes"
    near = manifest.near_duplicates
    if near and near["pairs"]:
        least = "" if near["complete"] else "at least "
        pairs, across = near["pairs"], near["across_splits"]
        count = f"{pairs} pair that looks" if pairs == 1 else f"{pairs} pairs that look"
        yield f"near duplicates: {least}{count} the same, {across} across splits"


def _of_splits(listing: Listing, manifest: Manifest, leaks: int) -> Iterable[str]:
    if leaks:
        yield f"leak: {leaks} images lie in two splits with equal bytes"
    if "test" in listing.folders and manifest.split_rule["test_fraction"]:
        yield "test_fraction has no effect: the test folder is the test split"
    counts = manifest.counts() if listing.folders else []
    for split in (split for split in SPLITS if split in listing.folders):
        without = [
            show(name)
            for name, count in zip(manifest.class_names, counts, strict=True)
            if not count[split]
        ]
        if without:
            more = ", ..." if len(without) > _LISTED else ""
            names = ", ".join(without[:_LISTED])
            yield f"no {split} image in {len(without)} classes: {names}{more}"
