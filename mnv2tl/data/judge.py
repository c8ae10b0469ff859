"""From what was read of each file to the manifest, or to the error that stops the scan."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from mnv2tl.data import near_duplicates
from mnv2tl.data.collector import pause_collector
from mnv2tl.data.folder import Found, Listing
from mnv2tl.data.manifest import Entry, LeftOut, Manifest
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.data.scan_warnings import FORMAT_OF_SUFFIX, count_warnings
from mnv2tl.data.split import Split, assign
from mnv2tl.data.stat_index import Record
from mnv2tl.errors import DataError, show
from mnv2tl.progress import show_step

Item = tuple[Found, Record]

_FOREIGN_SUFFIXES = {
    *(".avif", ".eps", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".ppm", ".psd", ".svg", ".tga"),
    *(".tif", ".tiff"),
}
_NO_IMAGE = {"not-an-image", "empty-file", "too-large"}
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
def judge(listing: Listing, records: Sequence[Record], root: Path, config: ScanConfig) -> Manifest:
    """Sort the files into used and left out, split the used ones, and gather the warnings.

    Args:
        listing: What the folders hold.
        records: What was read of each file of `listing.found`, in the same order.
        root: The folder as the user named it, for messages.
        config: The settings.

    Raises:
        DataError: Equal bytes in two classes (E306), a class without images (E301), one class
            only (E302), or a class that cannot be split (E303).
    """
    judged = _Judged()
    judged.left_out.extend(listing.left_out)
    for found, record in zip(listing.found, records, strict=True):
        if record.code:
            judged.left_out.append(_left_out(found, record))
        else:
            judged.items.append((found, record))
    _resolve_conflicts(judged, root, config)
    _resolve_empty(judged, listing, root, config)
    splits = _split(judged, listing, root, config)
    class_names = tuple(sorted({found.class_name for found, _ in judged.items}))
    entries = _entries(judged.items, splits, class_names)
    near = _near_duplicates(judged.items, splits) if config.near_duplicates else {}
    manifest = Manifest(
        root=listing.root,
        class_names=class_names,
        entries=entries,
        left_out=tuple(sorted(judged.left_out, key=lambda each: each.path)),
        duplicates=_duplicates(entries),
        near_duplicates=near,
        split_rule={
            "rule": config.split_rule,
            "seed": config.split_seed,
            "val_fraction": config.val_fraction,
            "test_fraction": config.test_fraction,
            "folders": sorted(listing.folders),
        },
    )
    facts = count_warnings(listing, [record for _, record in judged.items], manifest)
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
    items: list[Item] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _entries(
    items: Sequence[Item], splits: Sequence[Split], class_names: Sequence[str]
) -> tuple[Entry, ...]:
    labels = {name: label for label, name in enumerate(class_names)}
    return tuple(
        Entry(
            path=found.path,
            label=labels[found.class_name],
            split=split,
            sha256=record.sha256,
            bytes=found.stat.st_size,
            width=record.width,
            height=record.height,
        )
        for (found, record), split in zip(items, splits, strict=True)
    )


def _left_out(found: Found, record: Record) -> LeftOut:
    suffix = os.path.splitext(found.path)[1].lower()
    is_named_image = suffix in FORMAT_OF_SUFFIX or suffix in _FOREIGN_SUFFIXES
    is_other = record.code in _NO_IMAGE and not is_named_image
    code = "other-file" if is_other else record.code
    return LeftOut(path=found.path, code=code, reason=record.reason)


def _resolve_conflicts(judged: _Judged, root: Path, config: ScanConfig) -> None:
    class_of: dict[str, str] = {}
    hashes = {
        record.sha256
        for found, record in judged.items
        if class_of.setdefault(record.sha256, found.class_name) != found.class_name
    }
    by_hash: dict[str, dict[str, Found]] = defaultdict(dict)
    for found, record in judged.items if hashes else ():
        if record.sha256 in hashes:
            by_hash[record.sha256].setdefault(found.class_name, found)
    pairs = {sha256: list(classes.values())[:2] for sha256, classes in by_hash.items()}
    if not pairs:
        return
    if config.on_conflict == "stop":
        named = [f"{show(a.path)} = {show(b.path)}" for a, b in list(pairs.values())[:_LISTED]]
        message = f"{len(pairs)} images lie in two classes with equal bytes: {', '.join(named)}"
        more = len(pairs) - len(named)
        message += f", {more} more" if more else ""
        raise DataError("E306", message, path=root, fix="remove one or use --on-conflict drop")
    reason = "the same bytes lie in another class"
    conflicts = [found for found, record in judged.items if record.sha256 in pairs]
    judged.left_out.extend(
        LeftOut(path=found.path, code="same-image-two-classes", reason=reason)
        for found in conflicts
    )
    judged.items = [item for item in judged.items if item[1].sha256 not in pairs]
    judged.warnings.append(f"dropped: {len(conflicts)} files that lie in two classes")


def _resolve_empty(judged: _Judged, listing: Listing, root: Path, config: ScanConfig) -> None:
    if not config.skip_empty_classes:
        _check_empty(listing, judged.left_out, root)
        return
    kept = {found.class_name for found, _ in judged.items if _is_for_training(found)}
    empty = sorted(set(listing.class_names) - kept)
    if empty:
        names = ", ".join(show(name) for name in empty)
        judged.warnings.append(f"empty classes left out: {names}")
        reason = "its class has no image to train on"
        judged.left_out.extend(
            LeftOut(path=found.path, code="empty-class", reason=reason)
            for found, _ in judged.items
            if found.class_name not in kept
        )
        judged.items = [item for item in judged.items if item[0].class_name in kept]
    _check_class_count(sorted(kept), root)


def _is_for_training(found: Found) -> bool:
    return found.split in (None, "train")


def _check_class_count(class_names: Sequence[str], root: Path) -> None:
    if len(class_names) < 2:
        names = f": {', '.join(show(name)[1:-1] for name in class_names)}" if class_names else ""
        message = f"needs >= 2 classes, found {len(class_names)}{names}"
        raise DataError("E302", message, path=root, fix="give each class a sub-folder")


def _check_empty(listing: Listing, left_out: Iterable[LeftOut], root: Path) -> None:
    reasons = {each.path: each.reason for each in left_out}
    files: dict[str, list[str]] = {name: [] for name in listing.class_names}
    for found in listing.found:
        if _is_for_training(found):
            files[found.class_name].append(found.path)
    empty = [name for name, paths in files.items() if all(path in reasons for path in paths)]
    if not empty:
        return
    paths = files[empty[0]]
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


def _class_folder(root: Path, listing: Listing, class_name: str) -> str:
    parts = ["train"] if "train" in listing.folders else []
    return os.path.join(root, *parts, class_name)


def _split(judged: _Judged, listing: Listing, root: Path, config: ScanConfig) -> list[Split]:
    val_fraction = 0.0 if "val" in listing.folders else config.val_fraction
    test_fraction = 0.0 if "test" in listing.folders else config.test_fraction
    hashes: dict[str, set[str]] = defaultdict(set)
    for found, record in judged.items:
        if _is_for_training(found):
            hashes[found.class_name].add(record.sha256)
    tiny = sorted(name for name, each in hashes.items() if len(each) < 2)
    if tiny and val_fraction > 0:
        _refuse_or_warn_tiny(tiny, judged, listing, root, config)
    by_rule = {
        name: assign(
            each,
            rule=config.split_rule,
            seed=config.split_seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
        )
        for name, each in hashes.items()
    }
    return [
        by_rule[found.class_name][record.sha256] if found.split in (None, "train") else found.split
        for found, record in judged.items
    ]


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


def _duplicates(entries: Iterable[Entry]) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        groups[entry.sha256].append(entry.path)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _near_duplicates(items: Sequence[Item], splits: Sequence[Split]) -> dict[str, object]:
    seen: dict[str, tuple[str, int, Split]] = {}
    for (found, record), split in zip(items, splits, strict=True):
        if record.dhash is not None:
            seen.setdefault(record.sha256, (found.path, record.dhash, split))
    if not seen:
        return near_duplicates.summarise([], [], [])
    paths, hashes, names = zip(*seen.values(), strict=True)
    with show_step("looking for near duplicates"):
        return near_duplicates.summarise(paths, hashes, names)
