"""Columns of texts, hashes and entries give back what went in, in a fraction of the memory."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.packed import NO_SHA256, Digests, Texts
from mnv2tl.data.split import SPLITS
from mnv2tl.feature_jobs import Jobs

NAMES = ["", "a.png", "caf\u00e9/\U0001f600.jpg", "not utf-8 \udce9.gif", "z" * 300]


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


def test_texts_come_back_in_order() -> None:
    """Also empty ones, and names that are not UTF-8; by number, by slice and one by one."""
    texts = Texts(NAMES)

    assert len(texts) == len(NAMES)
    assert list(texts) == [texts[row] for row in range(len(NAMES))] == NAMES
    assert texts[-1] == NAMES[-1]
    assert list(texts[1:4]) == NAMES[1:4]
    assert list(texts.take([3, 0, 3])) == [NAMES[3], NAMES[0], NAMES[3]]
    with pytest.raises(IndexError):
        texts[len(NAMES)]


def test_texts_are_one_by_one_what_they_are_at_once() -> None:
    """However they came in, equal texts are equal."""
    grown, moved = Texts(), Texts(["x"])
    for name in NAMES:
        grown.append(name)
    moved.extend(Texts(NAMES), prefix="dogs/")

    assert grown == Texts(NAMES) == Texts.from_joined(grown.joined())
    assert list(moved) == ["x", *(f"dogs/{name}" for name in NAMES)]
    moved.extend(Texts())
    moved.append("y")
    assert moved[-1] == "y"
    assert Texts(["a", "b"]) != Texts(["a\u00e9", "b"])


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
def test_many_texts_are_yielded_whole(count: int) -> None:
    """They are decoded a thousand at a time."""
    names = [f"{number}\u00e9" for number in range(count)]

    assert list(Texts(names)) == names


@pytest.mark.parametrize(
    "put",
    [
        lambda: Texts(["a\0b"]),
        lambda: Texts().append("\0"),
        lambda: Texts.from_joined(b"a\0b"),
        lambda: Digests.blank(1).put(0, "AB" * 32),
        lambda: Digests.blank(1).put(0, "ab " * 32),
        lambda: Digests().append("ab" * 31),
        lambda: Digests().append("xy" * 32),
    ],
)
def test_what_would_come_back_changed_is_refused(put: Callable[[], object]) -> None:
    """A character 0 parts texts; a SHA-256 has small letters and no blanks."""
    with pytest.raises(ValueError, match=r"text must|hexadecimal"):
        put()


@pytest.mark.skipif(sys.platform == "win32", reason="its names may hold half a pair")
def test_half_a_pair_is_no_name() -> None:
    """No file can have such a name; a manifest that was tampered with may name it."""
    with pytest.raises(ValueError, match="surrogates not allowed"):
        Texts(["\ud800"])


def test_digests_keep_their_places() -> None:
    """A file that was not read has none."""
    digests = Digests.blank(2)
    digests.append("ab" * 32)
    digests.put(-3, "cd" * 32)

    assert [digests.hex(row) for row in range(3)] == ["cd" * 32, "", "ab" * 32]
    assert list(digests) == [bytes.fromhex("cd" * 32), NO_SHA256, bytes.fromhex("ab" * 32)]
    assert digests.take([2, 0]) == Digests(digests[2] + digests[0]) == digests[2::-2]
    assert digests.hex_of([2, 0]) == ["ab" * 32, "cd" * 32]
    with pytest.raises(IndexError):
        digests[3]


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


def test_jobs_are_pairs_of_all_parts() -> None:
    """By number and one by one; a part may be empty."""
    entries = Entries(make_entries(5))
    jobs = Jobs((entries[:2], (0, 1)), (Entries(), (7,)), (entries[2:], (-1,)))
    pairs = [*((entry, (0, 1)) for entry in entries[:2]), *((each, (-1,)) for each in entries[2:])]

    assert list(jobs) == pairs
    assert [jobs[number] for number in range(len(jobs))] == pairs
    assert jobs[1:4] == pairs[1:4]
    assert jobs[-1] == pairs[-1]
    assert jobs.count_views() == 7
    assert Jobs().count_views() == len(Jobs()) == 0
