"""Which images of a folder are used, as columns, and which of them hold the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnv2tl.data.folder import Group, Listing
from mnv2tl.data.index_part import Status, pack_status
from mnv2tl.data.packed import Texts
from mnv2tl.data.records import Columns, Record
from mnv2tl.data.scan import ScanConfig, scan
from mnv2tl.data.used_images import choose_images


def _group(prefix: str, names: list[str]) -> Group:
    stats = [pack_status(Status(len(prefix + name), 0, 0, 0)) for name in names]
    return Group(
        folder=f"/data/{prefix}",
        prefix=prefix,
        class_name=prefix[:1],
        split=None,
        names=Texts(names),
        stats=b"".join(stats),
    )


def _listing(*groups: Group) -> Listing:
    return Listing(
        root=Path("/data"),
        class_names=("a", "b"),
        groups=groups,
        left_out=(),
        ignored=Counter(),
        folders=frozenset(),
    )


def _records(*hashes: str) -> Columns:
    columns = Columns.make_blank(0)
    for sha256 in hashes:
        columns.append(Record(sha256, len(columns) + 1, 1, "PNG"))
    return columns


def test_images_are_sorted_by_path() -> None:
    """Folder by folder they need not be: a link may lead into a folder of a class's folder."""
    listing = _listing(_group("a/", ["1.png", "z.png"]), _group("a/b/", ["2.png"]))
    records = [_records("01" * 32, "02" * 32), _records("03" * 32)]

    used, left_out = choose_images(listing, records)

    assert list(used.paths) == ["a/1.png", "a/b/2.png", "a/z.png"]
    assert used.records.sha256.hex_of(range(3)) == ["01" * 32, "03" * 32, "02" * 32]
    assert list(used.sizes) == [len(path) for path in used.paths]
    assert list(used.records.widths) == [1, 1, 2]
    assert (left_out, records) == ([], [])


def test_only_whole_hashes_are_equal() -> None:
    """Some that begin alike are looked at to the end."""
    alike, other, last = "11" * 8 + "00" * 24, "11" * 8 + "22" * 24, "33" * 32
    listing = _listing(_group("a/", ["1", "2", "3"]), _group("b/", ["1", "2", "3"]))
    used, _ = choose_images(listing, [_records(last, other, alike), _records(alike, last, last)])

    assert used.find_repeated() == {
        bytes.fromhex(last): [0, 4, 5],
        bytes.fromhex(alike): [2, 3],
    }
    used.drop(lambda row: row in (0, 4, 5, 3), "x", "y")
    assert used.find_repeated() == {}
    used.drop(lambda row: True, "x", "y")
    assert used.find_repeated() == {}


def test_every_group_must_have_its_records() -> None:
    """Else the images of one would get those of another."""
    listing = _listing(_group("a/", ["1"]), _group("b/", ["1"]))

    with pytest.raises(ValueError, match="2 groups must have records, got 1"):
        choose_images(listing, [_records("01" * 32)])


def test_near_duplicates_are_named_by_their_paths(tmp_path: Path) -> None:
    """Of equal files the first one stands for all, and what stands before moves no name."""
    rng = np.random.default_rng(3)
    for number, name in enumerate(("a/3.png", "b/1.png")):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        picture = coarse.resize((120, 90), Image.Resampling.BICUBIC)
        path = tmp_path / name
        path.parent.mkdir()
        picture.save(path)
        picture.save(path.with_name(f"{8 - number}.jpg"), quality=95)
    for name in ("a/2.png", "a/4.png"):
        (tmp_path / name).write_bytes((tmp_path / "a/3.png").read_bytes())

    manifest = scan(tmp_path, ScanConfig(index=None, workers=1))

    assert manifest.duplicates == (("a/2.png", "a/3.png", "a/4.png"),)
    pairs = {(first, second) for first, second, _ in manifest.near_duplicates["examples"]}
    assert pairs == {("a/2.png", "a/8.jpg"), ("b/1.png", "b/7.jpg")}
