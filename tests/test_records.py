"""Tests of the columns of records, and of the parts of the index that hold them."""

from __future__ import annotations

import pytest

from mnv2tl.data.index_part import Part, Status, merge, pack, pack_status, sizes_of, unpack
from mnv2tl.data.packed import Texts
from mnv2tl.data.records import Columns, Record

_RECORDS = [
    Record("ab" * 32, 3, 4, "PNG", ("a", "b"), 2**64 - 1),
    Record(code="vanished", reason="the file is not there"),
    Record("01" * 32, 2**31 - 1, 1, "JPEG", (), None),
    Record("cd" * 32, code="damaged", reason="damaged PNG: \u2026"),
    Record("ef" * 32, 5, 6, "JPEG", (), 0),
]


def _part(names: list[str], sizes: list[int], records: list[Record]) -> Part:
    columns = Columns.make_blank(0)
    for record in records:
        columns.append(record)
    stats = [pack_status(Status(size, -1, 2**62, 2**64 + 9)) for size in sizes]
    return Part(names=Texts(names), stats=b"".join(stats), columns=columns)


def test_columns_give_records_back() -> None:
    """Also those that have no hash, no dHash, or a dHash of zero."""
    columns = _part(list("abcde"), [1] * 5, _RECORDS).columns

    assert [columns[row] for row in range(5)] == _RECORDS
    assert [columns.take([4, 0])[row] for row in range(2)] == [_RECORDS[4], _RECORDS[0]]
    assert columns.find_lacking_dhash() == [2]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_part_survives_as_bytes(count: int) -> None:
    """Names of any bytes, inodes of more than 64 bits, hashes that begin with zeros."""
    names = ["a", "caf\udce9", "na\u00efve", "x y", "z\n"][:count]
    part = _part(names, list(range(count)), _RECORDS[:count])

    found, rule = unpack(pack(part, "a rule"))

    assert (found, rule) == (part, "a rule")
    assert list(sizes_of(bytes(found.stats))) == list(range(count))


def test_of_equal_names_the_last_counts() -> None:
    """Parts are merged from the oldest to the newest, and come out sorted."""
    first = _part(["b", "d"], [1, 2], _RECORDS[:2])
    second = _part(["a", "d"], [3, 4], _RECORDS[2:4])

    whole = merge([first, second])

    assert list(whole.names) == ["a", "b", "d"]
    assert list(sizes_of(bytes(whole.stats))) == [3, 1, 4]
    assert [whole.columns[row] for row in range(3)] == [_RECORDS[2], _RECORDS[0], _RECORDS[3]]


def test_parts_that_follow_each_other_are_joined() -> None:
    """As a large folder is kept."""
    whole = merge([_part(["a"], [1], _RECORDS[:1]), _part(["b"], [2], _RECORDS[4:])])

    assert whole == _part(["a", "b"], [1, 2], [_RECORDS[0], _RECORDS[4]])


def test_a_time_that_no_number_holds_becomes_the_latest() -> None:
    """File systems know times after the year 2262; a status with one is a status still."""
    late = pack_status(Status(1, 2**70, 2**63, 7))
    early = pack_status(Status(1, -(2**70), -(2**70), 2**64 + 7))

    assert late == pack_status(Status(1, 2**63 - 1, 2**63 - 1, 7))
    assert early == pack_status(Status(1, 1 - 2**63, 1 - 2**63, 7))
