"""The images that a scan uses, as columns, while it is judged which of them stay."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mnv2tl.data.folder import Group, Listing
from mnv2tl.data.index_part import sizes_of
from mnv2tl.data.manifest import LeftOut
from mnv2tl.data.packed import SHA256_BYTES, Texts
from mnv2tl.data.records import Columns, Record
from mnv2tl.data.scan_warnings import FORMAT_OF_SUFFIX
from mnv2tl.data.split import Split

_FOREIGN_SUFFIXES = {
    *(".avif", ".eps", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".ppm", ".psd", ".svg", ".tga"),
    *(".tif", ".tiff"),
}
_NO_IMAGE = {"not-an-image", "empty-file", "too-large"}


@dataclass(slots=True, kw_only=True)
class UsedImages:
    """One entry per image in each column, sorted by path."""

    paths: Texts
    """From the root, with forward slashes."""
    class_names: list[str]
    splits: list[Split | None]
    """Where a split is taken as found; None where the rule decides."""
    sizes: Sequence[int]
    """In bytes."""
    records: Columns

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def take(self, rows: Sequence[int]) -> UsedImages:
        """Return some of the images, in the order of `rows`."""
        return UsedImages(
            paths=self.paths.take(rows),
            class_names=[self.class_names[row] for row in rows],
            splits=[self.splits[row] for row in rows],
            sizes=array("Q", [self.sizes[row] for row in rows]),
            records=self.records.take(rows),
        )

    def find_repeated(self) -> dict[bytes, list[int]]:
        """Return SHA-256 -> numbers of the images, of every content that more than one holds."""
        sha256 = self.records.sha256
        # A set of all of them would take three times their memory.
        starts = np.frombuffer(sha256.content, np.uint64)[:: SHA256_BYTES // 8]
        order = np.argsort(starts)
        ordered = starts[order]
        is_next_equal = ordered[1:] == ordered[:-1]
        is_repeated = np.append(is_next_equal, False) | np.insert(is_next_equal, 0, False)
        rows: dict[bytes, list[int]] = {}
        for row in sorted(order[is_repeated[: len(order)]].tolist()):
            rows.setdefault(sha256[row], []).append(row)
        return {digest: each for digest, each in rows.items() if len(each) > 1}

    def drop(self, is_dropped: Callable[[int], bool], code: str, reason: str) -> list[LeftOut]:
        """Forget some images; return them as left out for one reason.

        Args:
            is_dropped: Of the number of an image.
            code: Why they are left out.
            reason: The same as one sentence.
        """
        dropped = {row for row in range(len(self)) if is_dropped(row)}
        left_out = [
            LeftOut(path=self.paths[row], code=code, reason=reason) for row in sorted(dropped)
        ]
        kept = self.take([row for row in range(len(self)) if row not in dropped])
        self.paths, self.class_names, self.splits = kept.paths, kept.class_names, kept.splits
        self.sizes, self.records = kept.sizes, kept.records
        return left_out


def choose_images(listing: Listing, records: list[Columns]) -> tuple[UsedImages, list[LeftOut]]:
    """Return the files that hold a readable image, and the others.

    Args:
        listing: What the folders hold.
        records: What was read of the files of each group of `listing.groups`; emptied on the way,
            for the sake of memory.

    Raises:
        ValueError: They are not equally many.
    """
    if len(records) != len(listing.groups):
        raise ValueError(f"{len(listing.groups)} groups must have records, got {len(records)}")
    used = UsedImages(
        paths=Texts(), class_names=[], splits=[], sizes=array("Q"), records=Columns.make_blank(0)
    )
    sizes = array("Q")
    left_out: list[LeftOut] = []
    is_sorted, last = True, ""
    records.reverse()
    for group in listing.groups:
        columns = records.pop()
        names, own_sizes = group.names, sizes_of(group.stats)
        bad = [row for row, kind in enumerate(columns.kinds) if kind.code]
        if bad:
            left_out.extend(_leave_out(group, row, columns[row]) for row in bad)
            unread = set(bad)
            good = [row for row in range(len(columns)) if row not in unread]
            names = names.take(good)
            own_sizes = array("Q", [own_sizes[row] for row in good])
            columns = columns.take(good)
        prefix = group.prefix
        if not names:
            continue
        is_sorted = is_sorted and last < prefix + names[0]
        last = prefix + names[-1]
        used.paths.extend(names, prefix=prefix)
        used.class_names += [group.class_name] * len(names)
        used.splits += [group.split] * len(names)
        sizes.extend(own_sizes)
        used.records.extend(columns)
    used.sizes = sizes
    if not is_sorted:
        used = used.take(sorted(range(len(used)), key=used.paths.__getitem__))
    return used, left_out


def _leave_out(group: Group, row: int, record: Record) -> LeftOut:
    path = group.path(row)
    suffix = os.path.splitext(path)[1].lower()
    is_named_image = suffix in FORMAT_OF_SUFFIX or suffix in _FOREIGN_SUFFIXES
    is_other = record.code in _NO_IMAGE and not is_named_image
    return LeftOut(path=path, code="other-file" if is_other else record.code, reason=record.reason)
