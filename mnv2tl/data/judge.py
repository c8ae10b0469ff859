"""From what was read of each file to the manifest, or to the error that stops the scan."""

from __future__ import annotations

import itertools
import math
import os
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from mnv2tl.data import near_duplicates
from mnv2tl.data.entries import Entries
from mnv2tl.data.folder import Group, Listing
from mnv2tl.data.manifest import LeftOut, Manifest
from mnv2tl.data.records import Columns
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.data.scan_warnings import count_warnings
from mnv2tl.data.split import Split, assign
from mnv2tl.data.used_images import UsedImages, choose_images
from mnv2tl.errors import DataError, show
from mnv2tl.memory import pause_collector
from mnv2tl.progress import show_step

_FOR_TRAINING = (None, "train")
_NOT_BAD = {"other-file", "not-a-regular-file", "same-image-two-classes", "empty-class"}
_LISTED = 10


def check_listing(listing: Listing, root: Path, config: ScanConfig) -> None:
    """Stop before any file is read, where the folders alone show that it must end so.

    Raises:
        DataError: There are fewer than two classes (E302), or a class has no file (E301).
    """
    _check_class_count(listing.class_names, root)
    if not config.skip_empty_classes:
        _check_empty(listing, [], root)


@pause_collector()
def judge(listing: Listing, records: list[Columns], root: Path, config: ScanConfig) -> Manifest:
    """Sort the files into used and left out, split the used ones, and gather the warnings.

    Args:
        listing: What the folders hold.
        records: What was read of the files of each group of `listing.groups`; emptied.
        root: The folder as the user named it, for messages.
        config: The settings.

    Raises:
        DataError: Equal bytes in two classes (E306), a class without images (E301), one class
            only (E302), or a class that cannot be split (E303).
    """
    used, left_out = choose_images(listing, records)
    judged = _Judged(used=used, left_out=[*listing.left_out, *left_out])
    _resolve_conflicts(judged, root, config)
    _resolve_empty(judged, listing, root, config)
    splits = _split(judged, listing, root, config)
    class_names = tuple(sorted(set(used.class_names)))
    repeated = used.find_repeated()
    near = _near_duplicates(used, splits, repeated) if config.near_duplicates else {}
    manifest = Manifest(
        root=listing.root,
        class_names=class_names,
        entries=_entries(used, splits, class_names),
        left_out=tuple(sorted(judged.left_out, key=lambda each: each.path)),
        duplicates=_duplicates(used, repeated),
        near_duplicates=near,
        split_rule={
            "rule": config.split_rule,
            "seed": config.split_seed,
            "val_fraction": config.val_fraction,
            "test_fraction": config.test_fraction,
            "folders": sorted(listing.folders),
        },
    )
    leaks = sum(len({splits[row] for row in rows}) > 1 for rows in repeated.values())
    facts = count_warnings(listing, used.records.kinds, manifest, leaks=leaks)
    return replace(manifest, warnings=(*judged.warnings, *facts))


def check_share(manifest: Manifest, max_bad: float, root: Path) -> None:
    """Stop if more images are unreadable than `max_bad` of all, rounded up.

    Other files, pipes and images dropped by a rule do not count.

    Raises:
        DataError: Too many are bad (E308); the first few are named.
    """
    bad = [each for each in manifest.left_out if each.code not in _NOT_BAD]
    total = len(manifest.entries) + len(bad)
    # The decimal that the user wrote: 0.01 * 700 is a little above 7 in binary.
    allowed = math.ceil(Fraction(repr(max_bad)) * total)
    if len(bad) > allowed:
        first = "; ".join(f"{show(each.path)} {each.reason}" for each in bad[:5])
        more = f"; {len(bad) - 5} more" if len(bad) > 5 else ""
        message = f"{len(bad)} of {total} images cannot be used, allowed {allowed}: {first}{more}"
        raise DataError("E308", message, path=root, fix="repair or remove them, or raise --max-bad")


@dataclass(slots=True, kw_only=True)
class _Judged:
    used: UsedImages
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _entries(used: UsedImages, splits: Sequence[Split], class_names: Sequence[str]) -> Entries:
    labels = {name: label for label, name in enumerate(class_names)}
    return Entries.from_columns(
        paths=used.paths,
        labels=array("I", map(labels.__getitem__, used.class_names)),
        splits=splits,
        sha256=used.records.sha256,
        sizes=used.sizes,
        widths=used.records.widths,
        heights=used.records.heights,
    )


def _resolve_conflicts(judged: _Judged, root: Path, config: ScanConfig) -> None:
    used = judged.used
    pairs: dict[bytes, list[str]] = {}
    for sha256, rows in used.find_repeated().items():
        first: dict[str, str] = {}
        for row in rows:
            first.setdefault(used.class_names[row], used.paths[row])
        if len(first) > 1:
            pairs[sha256] = list(first.values())[:2]
    if not pairs:
        return
    if config.on_conflict == "stop":
        named = [f"{show(a)} = {show(b)}" for a, b in list(pairs.values())[:_LISTED]]
        message = f"{len(pairs)} images lie in two classes with equal bytes: {', '.join(named)}"
        more = len(pairs) - len(named)
        message += f", {more} more" if more else ""
        raise DataError("E306", message, path=root, fix="remove one or use --on-conflict drop")
    conflicts = used.drop(
        lambda row: used.records.sha256[row] in pairs,
        "same-image-two-classes",
        "the same bytes lie in another class",
    )
    judged.left_out.extend(conflicts)
    judged.warnings.append(f"dropped: {len(conflicts)} files that lie in two classes")


def _resolve_empty(judged: _Judged, listing: Listing, root: Path, config: ScanConfig) -> None:
    if not config.skip_empty_classes:
        _check_empty(listing, judged.left_out, root)
        return
    used = judged.used
    pairs = set(zip(used.class_names, used.splits, strict=True))
    kept = {class_name for class_name, split in pairs if split in _FOR_TRAINING}
    empty = sorted(set(listing.class_names) - kept)
    if empty:
        names = ", ".join(show(name) for name in empty)
        judged.warnings.append(f"empty classes left out: {names}")
        judged.left_out.extend(
            used.drop(
                lambda row: used.class_names[row] not in kept,
                "empty-class",
                "its class has no image to train on",
            )
        )
    _check_class_count(sorted(kept), root)


def _check_class_count(class_names: Sequence[str], root: Path) -> None:
    if len(class_names) < 2:
        names = f": {', '.join(show(name)[1:-1] for name in class_names)}" if class_names else ""
        message = f"needs >= 2 classes, found {len(class_names)}{names}"
        raise DataError("E302", message, path=root, fix="give each class a sub-folder")


def _check_empty(listing: Listing, left_out: Iterable[LeftOut], root: Path) -> None:
    reasons = {each.path: each.reason for each in left_out}
    groups: dict[str, list[Group]] = {name: [] for name in listing.class_names}
    for group in listing.groups:
        if group.split in _FOR_TRAINING:
            groups[group.class_name].append(group)
    empty = [
        name
        for name, each in groups.items()
        if not any(_has_image(group, reasons) for group in each)
    ]
    if not empty:
        return
    paths = sorted(group.path(row) for group in groups[empty[0]] for row in range(len(group.names)))
    message = f"0 readable images of {len(paths)} files"
    if paths:
        message += f"; first: {show(paths[0])} {reasons[paths[0]]}"
    if len(empty) > 1:
        message += f"; {len(empty)} classes are empty"
    if listing.ignored:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(listing.ignored.items()))
        message += f"; not looked at: {counts}"
    raise DataError(
        "E301",
        message,
        path=_class_folder(root, listing, empty[0]),
        fix="add images or --skip-empty-classes",
    )


def _has_image(group: Group, reasons: Mapping[str, str]) -> bool:
    return any(group.path(row) not in reasons for row in range(len(group.names)))


def _class_folder(root: Path, listing: Listing, class_name: str) -> str:
    parts = ["train"] if "train" in listing.folders else []
    return os.path.join(root, *parts, class_name)


def _split(judged: _Judged, listing: Listing, root: Path, config: ScanConfig) -> list[Split]:
    val_fraction = 0.0 if "val" in listing.folders else config.val_fraction
    test_fraction = 0.0 if "test" in listing.folders else config.test_fraction
    used, sha256 = judged.used, judged.used.records.sha256
    of_class: dict[str, array[int]] = defaultdict(lambda: array("Q"))
    for row, (class_name, found) in enumerate(zip(used.class_names, used.splits, strict=True)):
        if found in _FOR_TRAINING:
            of_class[class_name].append(row)
    splits: list[Split] = [found or "train" for found in used.splits]
    tiny = []
    for class_name, rows in of_class.items():  # one at a time, for the sake of memory
        hashes = sha256.hex_of(rows)
        by_rule = assign(
            hashes,
            rule=config.split_rule,
            seed=config.split_seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
        )
        if len(by_rule) < 2:
            tiny.append(class_name)
        for row, each in zip(rows, hashes, strict=True):
            splits[row] = by_rule[each]
    if tiny and val_fraction > 0:
        _refuse_or_warn_tiny(sorted(tiny), judged, listing, root, config)
    return splits


def _refuse_or_warn_tiny(
    tiny: list[str], judged: _Judged, listing: Listing, root: Path, config: ScanConfig
) -> None:
    if config.allow_tiny:
        names = ", ".join(show(name) for name in tiny)
        judged.warnings.append(f"tiny classes, in train only: {names}")
        return
    more = f"; {len(tiny)} classes are so small" if len(tiny) > 1 else ""
    raise DataError(
        "E303",
        f"1 distinct image, cannot be split{more}",
        path=_class_folder(root, listing, tiny[0]),
        fix="add images, or --allow-tiny to put it in train only",
    )


def _duplicates(
    used: UsedImages, repeated: Mapping[bytes, Sequence[int]]
) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(used.paths[row] for row in rows) for rows in repeated.values())


def _near_duplicates(
    used: UsedImages, splits: Sequence[Split], repeated: Mapping[bytes, Sequence[int]]
) -> dict[str, object]:
    """Look for near duplicates among the images of unlike bytes.

    Args:
        used: The images.
        splits: Of each.
        repeated: The numbers of those whose bytes another one has too, of one content together.
    """
    records = used.records
    is_compared = np.fromiter((kind.has_dhash for kind in records.kinds), np.bool_, len(used))
    is_compared[[row for rows in repeated.values() for row in rows[1:]]] = False
    rows = np.flatnonzero(is_compared)
    with show_step("looking for near duplicates"):
        found = near_duplicates.summarise(
            np.asarray(records.dhashes)[rows], list(itertools.compress(splits, is_compared))
        )
    found["examples"] = [
        [used.paths[rows[a]], used.paths[rows[b]], bits] for a, b, bits in found["examples"]
    ]
    return found
