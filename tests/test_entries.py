"""Entries give back what went in, in a fraction of the memory."""

from __future__ import annotations

import tracemalloc
from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.packed import Digests, Texts
from mnv2tl.data.split import SPLITS


def make_entries(count: int) -> Iterator[Entry]:
    """Yield entries that differ in every field."""
    for number in range(count):
        yield Entry(
            path=f"class-{number % 7:02}/{number:06}.jpg",
            label=number % 7,
            split=SPLITS[number % 3],
            sha256=f"{number + 1:064x}",
            bytes=2**40 + number,
            width=100 + number,
            height=2**32 - 1 - number,
        )


def test_entries_come_back_as_they_were() -> None:
    """By number, by slice, in another order, and those of a split."""
    made = list(make_entries(20))
    entries = Entries(made)

    assert list(entries) == made
    assert entries == made
    assert (entries[0], entries[-1], entries[7]) == (made[0], made[-1], made[7])
    assert entries[3:17:2] == made[3:17:2]
    assert entries[::-1][1:3] == made[::-1][1:3]
    assert entries.take([5, 5, 0]) == [made[5], made[5], made[0]]
    for split in SPLITS:
        of_split = [each for each in made if each.split == split]
        assert entries.of_split(split) == of_split
        assert entries[::-1].of_split(split) == of_split[::-1]
    with pytest.raises(IndexError):
        entries[20]


def test_columns_are_those_of_the_entries() -> None:
    """Of all, and of a selection."""
    entries = Entries(make_entries(20))

    for some in (entries, entries.take([9, 2, 3])):
        assert list(some.paths()) == [each.path for each in some]
        assert list(some.labels()) == [each.label for each in some]
        assert list(some.splits()) == [each.split for each in some]


def test_another_field_makes_another_entry() -> None:
    """Each counts, as do the number and the order."""
    made = list(make_entries(2))
    entries = Entries(made)
    changes = [
        *({"path": "x"}, {"label": 9}, {"split": "val"}, {"sha256": "ff" * 32}),
        *({"bytes": 1}, {"width": 1}, {"height": 1}),
    ]

    for change in changes:
        assert entries != Entries([replace(made[0], **change), made[1]])  # type: ignore[arg-type]
    assert entries != Entries(made[:1])
    assert entries != Entries(made[::-1])
    assert entries == Entries(made)


def test_an_entry_takes_its_path_and_sixty_bytes() -> None:
    """As objects it was 330 bytes, and of a selection as many again."""
    count = 20_000
    tracemalloc.start()
    entries = Entries(make_entries(count))
    whole, _ = tracemalloc.get_traced_memory()
    selection = entries.of_split("train")
    more = tracemalloc.get_traced_memory()[0] - whole
    tracemalloc.stop()

    path = len(entries[0].path)
    assert path + 50 < whole / count < 1.13 * (path + 62)  # a growing array has room for an eighth
    assert more / len(selection) < 10


def test_both_are_one_behind_the_other() -> None:
    """Selections of the same columns share them still; others are copied."""
    made = list(make_entries(6))
    entries = Entries(made)

    assert entries[4:] + entries[:2] == [*made[4:], *made[:2]]
    assert entries[4:] + Entries(made[:2]) == [*made[4:], *made[:2]]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"sha256": ""}, ValueError),
        ({"sha256": "AB" * 32}, ValueError),
        ({"path": "a\0b"}, ValueError),
        ({"split": "valid"}, KeyError),
        ({"label": -1}, OverflowError),
        ({"bytes": 2**64}, OverflowError),
        ({"width": 2**32}, OverflowError),
    ],
)
def test_what_would_come_back_changed_is_refused(
    change: dict[str, Any], error: type[Exception]
) -> None:
    """Nothing is rounded or cut to fit."""
    (entry,) = make_entries(1)

    with pytest.raises(error):
        Entries([replace(entry, **change)])


def test_columns_must_be_equally_long() -> None:
    """Else an entry would be made of two images."""
    with pytest.raises(ValueError, match=r"equally long, got \[1, 2\]"):
        Entries.from_columns(
            paths=Texts(["a", "b"]),
            labels=array("I", [0, 1]),
            splits=["train", "val"],
            sha256=Digests.blank(1),
            sizes=array("Q", [1, 1]),
            widths=array("I", [1, 1]),
            heights=array("I", [1, 1]),
        )
