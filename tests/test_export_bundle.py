from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mnv2tl import store
from mnv2tl.errors import ExistsError, MachineError
from mnv2tl_export.bundle import new_bundle, seal


def _publish(out: Path, text: str, *, force: bool = False) -> None:
    with new_bundle(out, force=force) as folder:
        store.write_bytes(folder / "deep" / "file", text.encode())
        seal(folder, {"key": "value"})


def test_bundle_is_published_whole(tmp_path: Path) -> None:
    """Until the block ends there is nothing under its name; then all files are, with hashes."""
    out = tmp_path / "new" / "bundle"

    with new_bundle(out) as folder:
        assert not out.exists()
        assert folder.parent == out.parent
        store.write_bytes(folder / "deep" / "file", b"text")
        seal(folder, {"key": "value"})

    value = json.loads((out / "bundle.json").read_bytes())
    digest = store.sha256_bytes(b"text")
    assert value["files"] == {"deep/file": {"sha256": digest, "bytes": 4}}
    assert value["key"] == "value"
    assert {each.name for each in out.parent.iterdir()} == {"bundle"}
    assert {each.name for each in out.iterdir()} == {"deep", "bundle.json"}


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    """The former bundle stays as it is."""
    out = tmp_path / "bundle"
    _publish(out, "first")

    with pytest.raises(TypeError), new_bundle(out, force=True) as folder:
        seal(folder, {"not JSON": object()})

    assert (out / "deep" / "file").read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_force_exchanges_bundles(tmp_path: Path) -> None:
    """The former one is gone, with all its files."""
    out = tmp_path / "bundle"
    _publish(out, "first")
    (out / "more").write_text("of the former")

    _publish(out, "second", force=True)

    assert (out / "deep" / "file").read_text() == "second"
    assert {each.name for each in out.iterdir()} == {"deep", "bundle.json"}
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_exchange_works_without_the_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MacOS and older file systems get two renames."""
    out = tmp_path / "bundle"
    _publish(out, "first")
    monkeypatch.setattr(sys, "platform", "darwin")

    _publish(out, "second", force=True)

    assert (out / "deep" / "file").read_text() == "second"
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_row_33_only_a_bundle_is_replaced(tmp_path: Path) -> None:
    """A file, a link, another folder, and a bundle without --force are refused at once."""
    file, folder, bundle, link = (tmp_path / name for name in ("file", "folder", "bundle", "link"))
    file.write_text("x")
    folder.mkdir()
    (folder / "x").write_text("x")
    _publish(bundle, "first")
    link.symlink_to(bundle)

    for out, force in ((file, True), (folder, True), (link, True), (bundle, False)):
        with pytest.raises(ExistsError) as caught, new_bundle(out, force=force):
            pytest.fail("the block must not begin")
        assert caught.value.code == "E504"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """As mkdir or a mount leaves it."""
    _publish(tmp_path, "first")

    assert (tmp_path / "deep" / "file").read_text() == "first"


def test_what_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    """The place is looked at again before the rename."""
    out = tmp_path / "bundle"

    with pytest.raises(ExistsError), new_bundle(out):
        store.write_bytes(out / "other", b"x")

    assert (out / "other").read_text() == "x"
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_what_killed_exports_left_is_removed(tmp_path: Path) -> None:
    """A folder that is still locked belongs to a living export; other names are not ours."""
    out = tmp_path / "bundle[1]"
    dead, living, other = (
        tmp_path / name for name in ("bundle[1].tmp-1-a", "bundle[1].tmp-2-b", "bundle1.tmp-3-c")
    )
    for folder in (dead, other):
        folder.mkdir()
        (folder / "file").write_text("x")

    with store.lock_folder(living):
        _publish(out, "first")

        assert {each.name for each in tmp_path.iterdir()} == {out.name, living.name, other.name}


def test_row_33_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where a folder must be made is an error of the machine, not a bug."""
    (tmp_path / "file").write_text("x")

    with pytest.raises(MachineError) as caught, new_bundle(tmp_path / "file" / "bundle"):
        pytest.fail("the block must not begin")

    assert caught.value.code in ("E502", "E503")
