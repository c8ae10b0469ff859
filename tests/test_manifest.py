from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.manifest import LeftOut, Manifest, changes
from mnv2tl.errors import ArtifactError, DataError
from mnv2tl.store import sha256_json


def entry(path: str, **values: Any) -> Entry:
    """Return an entry whose hash follows from the first letter of its path."""
    defaults: dict[str, Any] = {
        "label": 0,
        "split": "train",
        "sha256": path[0].encode().hex() * 32,
        "bytes": 10,
        "width": 4,
        "height": 3,
    }
    return Entry(path=path, **{**defaults, **values})


def manifest(**values: Any) -> Manifest:
    """Return a manifest with something in every field."""
    defaults: dict[str, Any] = {
        "root": Path("/data"),
        "class_names": ("cats", "dogs"),
        "entries": Entries(
            [entry("cats/caf\udce9.jpg"), entry("dogs/1.png", label=1, split="val")]
        ),
        "left_out": (LeftOut(path="cats/x.jpg", code="truncated", reason="ends early"),),
        "duplicates": (("cats/a.jpg", "cats/b.jpg"),),
        "near_duplicates": {"bits": 2, "pairs": 0, "examples": [["a", "b", 1]]},
        "warnings": ("left out: truncated 1",),
        "split_rule": {"rule": "threshold", "seed": 0, "val_fraction": 0.2, "test_fraction": 0.0},
    }
    return Manifest(**{**defaults, **values})


def test_json_gives_the_manifest_back(tmp_path: Path) -> None:
    """Every field survives, names that are not UTF-8 too, and the file is pure ASCII."""
    path = tmp_path / "manifest.json"

    manifest().save(path)

    assert Manifest.load(path) == manifest()
    assert path.read_bytes().isascii()


def test_hash_is_of_the_images_not_of_the_place() -> None:
    """Moving the folder keeps the hash; another split, byte or class name changes it."""
    here = manifest()
    first, second = here.entries

    assert replace(here, root=Path("/elsewhere")).sha256 == here.sha256
    for changed in (replace(second, split="train"), replace(second, sha256="0" * 64)):
        assert replace(here, entries=Entries([first, changed])).sha256 != here.sha256
    assert replace(here, class_names=("cats", "wolves")).sha256 != here.sha256


def test_entries_of_a_split_and_their_files() -> None:
    """A split is a selection, and a path starts from the root."""
    here = manifest()

    assert [each.path for each in here.of_split("val")] == ["dogs/1.png"]
    assert not here.of_split("test")
    assert here.path_of(here.entries[1]) == Path("/data/dogs/1.png")
    assert here.counts() == [{"train": 1, "val": 0, "test": 0}, {"train": 0, "val": 1, "test": 0}]
    with pytest.raises(ValueError, match="split must be one of"):
        here.of_split("valid")  # type: ignore[arg-type]


def test_row_39_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not guessed at."""
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**manifest().to_json(), "schema": 3}))

    with pytest.raises(ArtifactError) as caught:
        Manifest.load(path)

    assert caught.value.code == "E404"
    assert "schema 3, this version reads <= 1" in caught.value.line()
    assert str(path) in caught.value.line()


@pytest.mark.parametrize(
    "change",
    [
        {"entries": [{"path": "a"}]},
        {"entries": [1]},
        {"class_names": [1, 2]},
        {"schema": None},
        {"left_out": None},
        {"entries": [{**manifest().to_json()["entries"][0], "label": 2}]},
        {"entries": [{**manifest().to_json()["entries"][0], "label": True}]},
        {"entries": [{**manifest().to_json()["entries"][0], "split": "valid"}]},
        {"entries": [{**manifest().to_json()["entries"][0], "path": "/etc/passwd"}]},
        {"entries": [{**manifest().to_json()["entries"][0], "sha256": "12"}]},
        {"entries": [{**manifest().to_json()["entries"][0], "sha256": "AB" * 32}]},
        {"entries": [{**manifest().to_json()["entries"][0], "path": "a\0b"}]},
        *(
            {"entries": [{**manifest().to_json()["entries"][0], name: number}]}
            for name in ("label", "bytes", "width", "height")
            for number in (-1, 2**63)
        ),
        {"entries": [{**manifest().to_json()["entries"][0], "height": 2**31}]},
    ],
)
def test_what_is_no_manifest_is_refused(change: dict[str, Any]) -> None:
    """A wrong type or value ends as our error, whatever field it is in."""
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_json({**manifest().to_json(), **change})

    assert caught.value.code == "E406"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"[]", b"1"])
def test_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Neither text nor a deep nesting gets past the reader."""
    path = tmp_path / "manifest.json"
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match="E406"):
        Manifest.load(path)


def test_changed_entry_is_noticed() -> None:
    """The hash in the file holds the entries together."""
    value = manifest().to_json()
    value["entries"][0]["split"] = "val"

    with pytest.raises(ArtifactError, match="E413"):
        Manifest.from_json(value)


def test_missing_file_is_a_data_error(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(DataError, match="no manifest"):
        Manifest.load(tmp_path / "none.json")


def test_changes_are_counted_by_path() -> None:
    """Bytes, class and split of a path count; the index of its class does not."""
    old = manifest(
        class_names=("cats", "dogs"),
        entries=Entries(
            [
                entry("a/1"),
                entry("b/1"),
                entry("c/1"),
                entry("d/1", label=1),
                entry("e/1", label=1),
            ]
        ),
    )
    new = manifest(
        class_names=("ants", "cats", "dogs"),
        entries=Entries(
            [
                entry("a/1", label=1),
                entry("c/1", label=1, sha256="0" * 64),
                entry("d/1", label=2, split="val"),
                entry("e/1", label=1),
                entry("f/1"),
            ]
        ),
    )

    assert changes(old, new) == (("f/1",), ("b/1",), ("c/1", "d/1", "e/1"))
    assert changes(old, old) == ((), (), ())


@pytest.mark.parametrize("count", [0, 1, 1000, 2001])
def test_hash_is_that_of_the_whole_json(count: int) -> None:
    """It is taken in parts; manifests of former versions keep theirs."""
    entries = tuple(
        Entry(
            path=f"]}}/{number}.png",
            label=0,
            split="train",
            sha256="ab" * 32,
            bytes=number,
            width=1,
            height=1,
        )
        for number in range(count)
    )
    manifest = Manifest(root=Path("/data"), class_names=("]}", "\u00e9"), entries=Entries(entries))

    value = {"class_names": ["]}", "\u00e9"], "entries": [asdict(each) for each in entries]}
    assert manifest.sha256 == sha256_json(value)
