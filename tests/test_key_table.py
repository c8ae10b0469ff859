from __future__ import annotations

import secrets
import tracemalloc

import numpy as np
import pytest

from mnv2tl.key_table import KeyTable, encode_keys


def _table(expected: str = "", **numbers: int) -> KeyTable:
    """Return a table that expects keys of one letter, and has some numbers."""
    table = KeyTable(expected)
    table.fill(encode_keys(numbers), np.array(list(numbers.values()), np.int64))
    return table


@pytest.mark.parametrize("expected", ["", "ab", "abcxyz"])
def test_a_table_reads_like_a_dict(expected: str) -> None:
    """Whether its keys were expected or not."""
    table = _table(expected, c=7, a=0)

    assert table == {"a": 0, "c": 7}
    assert ("a" in table, "b" in table, "z" in table) == (True, False, False)
    with pytest.raises(KeyError, match="b"):
        table["b"]


def test_an_empty_table_has_nothing() -> None:
    """Nor does it fail where there is nothing to look into."""
    table = KeyTable()

    assert table == {}
    assert table.is_full
    assert "a" not in table
    assert table.find(encode_keys(["a", "b"])).tolist() == [-1, -1]
    assert table.find(encode_keys([])).tolist() == []


def test_numbers_come_in_the_order_of_the_keys() -> None:
    """Also for keys before the first and after the last one, and for those named twice."""
    table = _table("bdf", d=4, b=2)

    assert table.find(encode_keys("dabzfd")).tolist() == [4, -1, 2, -1, -1, 4]


def test_numbers_stay_when_keys_are_added() -> None:
    """A new key moves the others, not what belongs to them; a known one gets the new number."""
    table = _table("bd", b=1, d=2)

    table.fill(encode_keys("acd"), np.array([10, 11, 12]))

    assert table == {"a": 10, "b": 1, "c": 11, "d": 12}


def test_a_table_lacks_what_it_expects_and_nothing_else() -> None:
    """It is full when all of that has a number."""
    table = _table("abc", b=1)

    assert table.lacks(encode_keys("abcz")).tolist() == [True, False, True, False]
    assert not table.is_full
    table.fill(encode_keys("ac"), np.array([0, 2]))
    assert table.is_full


def test_the_first_unknown_key_counts_and_its_twins_do_not() -> None:
    """So that nothing is computed twice."""
    table = _table("abc", b=1)

    assert table.first_unknown(encode_keys("babcaz")).tolist() == [
        *(False, True, False, True, False, True),
    ]


@pytest.mark.parametrize("keys", [["\xe9"], [["a"]], [["a"], ["b", "c"]]])
def test_what_is_no_text_of_ascii_is_refused(keys: list[str]) -> None:
    """An index file that holds such keys is damaged."""
    with pytest.raises(ValueError):  # noqa: PT011 - the message is NumPy's
        encode_keys(keys)


def test_many_keys_give_what_a_dict_gives() -> None:
    """In parts of some hundred, half of them expected."""
    keys = [secrets.token_hex(16) for _ in range(3000)]
    table = KeyTable(keys[::2])
    for start in range(0, 3000, 400):
        part = keys[start : start + 400]
        table.fill(encode_keys(part), np.arange(start, start + len(part)))

    assert table == {key: number for number, key in enumerate(keys)}
    assert table.find(encode_keys(keys[::-7])).tolist() == list(range(3000))[::-7]


def test_a_table_takes_a_fifth_of_a_dict() -> None:
    """40 bytes a key; a million views must not fill the memory."""
    count = 5000
    tracemalloc.start()
    try:
        table = KeyTable(secrets.token_hex(16) for _ in range(count))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert not table
    assert taken < 45 * count
