"""Texts and hashes in one block of memory come back as they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mnv2tl.data.packed import NO_SHA256, Digests, Texts

NAMES = [
    "",
    "a.png",
    "caf\u00e9/\U0001f600.jpg",
    "not utf-8 \udce9.gif",
    "half a pair \ud800",
    "\udcc3\udca9",
    "z" * 300,
]


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
    with pytest.raises(IndexError):
        texts.take([len(NAMES)])


def test_texts_are_one_by_one_what_they_are_at_once() -> None:
    """However they came in, equal texts are equal."""
    grown, moved = Texts(), Texts(["x"])
    for name in NAMES:
        grown.append(name)
    moved.extend(Texts(NAMES), prefix="dogs/")

    assert grown == Texts(NAMES) == Texts.from_joined(grown.joined())
    assert list(moved) == ["x", *(f"dogs/{name}" for name in NAMES)]
    moved.extend(Texts())
    grown.extend(grown)
    assert list(grown) == [*NAMES, *NAMES]
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
