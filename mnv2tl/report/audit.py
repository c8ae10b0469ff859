"""The report's part on the data: what is there, what was left out, what is there twice."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.manifest import LeftOut, Manifest
from mnv2tl.data.split import SPLITS
from mnv2tl.report.answers import read_thumbnails
from mnv2tl.report.charts import draw_sizes
from mnv2tl.report.svg import Chart
from mnv2tl.report.thumbnails import Picture, embed
from mnv2tl.text import count_of, megabytes

CAP = 12
"""Groups of duplicates, and pairs of near duplicates, that are shown at most."""
LEFT_OUT_CAP = 50
"""Files left out that are named at most."""
SHEETS = 40
"""Classes that have a contact sheet at most."""
_PER_SHEET = 8
_PER_GROUP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture of the data set."""

    path: str
    """As in the manifest."""
    class_name: str
    """Of its class."""
    split: str
    """`train`, `val` or `test`."""
    picture: Picture | None
    """None if it cannot be read any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Pictures that are shown together."""

    title: str
    """What they have in common."""
    shots: tuple[Shot, ...]
    """Some of them."""
    total: int
    """How many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """How many images a class has."""

    name: str
    """Of the class."""
    counts: tuple[int, ...]
    """In train, val and test."""
    share: float
    """Of its images, in those of the largest class, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the report tells of a data set."""

    classes: tuple[ClassRow, ...]
    """In the order of the labels."""
    sizes: Chart
    """Width against height."""
    quantiles: tuple[tuple[str, ...], ...]
    """What is measured, and its least, middle and largest value."""
    left_out: tuple[LeftOut, ...]
    """At most `LEFT_OUT_CAP`."""
    left_out_counts: tuple[tuple[str, int], ...]
    """Code and number of files, the most frequent first."""
    duplicates: tuple[Group, ...]
    """Equal files, at most `CAP` groups."""
    duplicate_total: int
    """Number of groups."""
    near: tuple[Group, ...]
    """Pairs that look the same, at most `CAP`."""
    near_total: int | None
    """Number of pairs; None if they were not looked for."""
    near_is_complete: bool
    """False if there may be more than the numbers say."""
    near_across: int
    """How many of the pairs lie in two splits."""
    sheets: tuple[Group, ...]
    """A few pictures of each class, of at most `SHEETS` classes."""


def make_audit(manifest: Manifest, root: Path, *, image_px: int, max_pixels: int) -> Audit:
    """Look at a data set.

    Args:
        manifest: What a scan found, with at least one image.
        root: Folder that its paths start from.
        image_px: Side that the network sees.
        max_pixels: Largest image that is decoded.
    """
    by_path = _find_named(manifest)
    duplicates = [
        (f"{len(group)} equal files", [by_path[path] for path in group if path in by_path])
        for group in manifest.duplicates[:CAP]
    ]
    near = [
        (_name_pair(by_path[a], by_path[b], bits), [by_path[a], by_path[b]])
        for a, b, bits in manifest.near_duplicates.get("examples", ())[:CAP]
        if a in by_path and b in by_path
    ]
    sheets = _choose_sheets(manifest)
    wanted = {
        entry.path: entry
        for _, entries in (*duplicates, *near, *sheets)
        for entry in entries[:_PER_SHEET]
    }
    thumbnails = read_thumbnails(list(wanted.values()), root, max_pixels=max_pixels)

    def group(title: str, entries: Sequence[Entry], shown: int) -> Group:
        shots = tuple(_shoot(entry, manifest, thumbnails) for entry in entries[:shown])
        return Group(title=title, shots=shots, total=len(entries))

    codes = Counter(each.code for each in manifest.left_out)
    return Audit(
        classes=_count_classes(manifest),
        sizes=draw_sizes([(e.width, e.height) for e in manifest.entries], image_px=image_px),
        quantiles=_measure(manifest.entries),
        left_out=manifest.left_out[:LEFT_OUT_CAP],
        left_out_counts=tuple(codes.most_common()),
        duplicates=tuple(group(title, entries, _PER_GROUP) for title, entries in duplicates),
        duplicate_total=len(manifest.duplicates),
        near=tuple(group(title, entries, 2) for title, entries in near),
        near_total=manifest.near_duplicates.get("pairs"),
        near_is_complete=manifest.near_duplicates.get("complete", True),
        near_across=manifest.near_duplicates.get("across_splits", 0),
        sheets=tuple(group(title, entries, _PER_SHEET) for title, entries in sheets),
    )


def _find_named(manifest: Manifest) -> dict[str, Entry]:
    """Return path -> entry of the images that are shown as duplicates or near ones."""
    named = set(itertools.chain.from_iterable(manifest.duplicates[:CAP]))
    for a, b, _ in manifest.near_duplicates.get("examples", ())[:CAP]:
        named.update((a, b))
    numbers = [number for number, path in enumerate(manifest.entries.paths()) if path in named]
    return {entry.path: entry for entry in manifest.entries.take(numbers)}


def _choose_sheets(manifest: Manifest) -> list[tuple[str, Entries]]:
    """Return the first classes, each with its images in an order that their content decides."""
    hashes = list(manifest.entries.hashes())
    of_class: list[list[int]] = [[] for _ in manifest.class_names]
    for number, label in enumerate(manifest.entries.labels()):
        of_class[label].append(number)
    return [
        (name, manifest.entries.take(sorted(numbers, key=hashes.__getitem__)))
        for name, numbers in zip(manifest.class_names[:SHEETS], of_class, strict=False)
    ]


def _name_pair(first: Entry, second: Entry, bits: int) -> str:
    if first.split != second.split:
        return f"{count_of(bits, 'bit')} apart, in two splits: a leak"
    return f"{count_of(bits, 'bit')} apart, both in {first.split}"


def _shoot(entry: Entry, manifest: Manifest, thumbnails: dict[str, bytes | None]) -> Shot:
    small = thumbnails[entry.path]
    return Shot(
        path=entry.path,
        class_name=manifest.class_names[entry.label],
        split=entry.split,
        picture=None if small is None else embed(small),
    )


def _count_classes(manifest: Manifest) -> tuple[ClassRow, ...]:
    counts = [tuple(each[split] for split in SPLITS) for each in manifest.counts()]
    largest = max(sum(each) for each in counts)
    return tuple(
        ClassRow(name=name, counts=each, share=sum(each) / largest)
        for name, each in zip(manifest.class_names, counts, strict=True)
    )


def _measure(entries: Sequence[Entry]) -> tuple[tuple[str, ...], ...]:
    """Return name, least, middle and largest value of width, height and file size, as texts."""

    def spread(name: str, values: list[int], show: Callable[[int], str]) -> tuple[str, ...]:
        values.sort()
        return name, *(show(values[at]) for at in (0, len(values) // 2, -1))

    return (
        spread("width, pixels", [entry.width for entry in entries], str),
        spread("height, pixels", [entry.height for entry in entries], str),
        spread("file", [entry.bytes for entry in entries], megabytes),
    )
