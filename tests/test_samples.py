from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mnv2tl import sample_patches, sample_stamps, samples
from mnv2tl.cli import main
from mnv2tl.errors import ArtifactError, ExistsError, MachineError


def _hash_files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.*")
    }


def _read_header(path: Path) -> tuple[tuple[int, int], str]:
    with Image.open(path) as picture:
        return picture.size, picture.mode


def test_patches_are_500_unlike_crops_of_10_photographs(tmp_path: Path) -> None:
    """Each class has 40 crops for training and 10 for validation, 64 to 96 px."""
    pytest.importorskip("skimage")

    info = samples.fetch("patches", tmp_path / "patches")

    folder = tmp_path / "patches"
    assert (info.images, len(info.classes), info.left_out) == (500, 10, ())
    for split, count in (("train", 40), ("val", 10)):
        assert sorted(path.name for path in (folder / split).iterdir()) == list(info.classes)
        for class_folder in (folder / split).iterdir():
            assert len(list(class_folder.glob("*.png"))) == count
    hashes = _hash_files(folder)
    assert len(set(hashes.values())) == len(hashes) == 500
    headers = {_read_header(folder / path) for path in hashes}
    assert headers == {((side, side), "RGB") for side in (64, 80, 96)}
    assert [path.name for path in tmp_path.iterdir()] == ["patches"]


def test_patches_are_the_same_each_time(tmp_path: Path) -> None:
    """Two fetches give the same bytes; an empty folder is as good as none."""
    pytest.importorskip("skimage")
    (tmp_path / "b").mkdir()

    for name in ("a", "b"):
        samples.fetch("patches", tmp_path / name)

    assert _hash_files(tmp_path / "a") == _hash_files(tmp_path / "b")


def test_patches_fill_the_current_folder_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename would leave the shell in a folder that is gone."""
    pytest.importorskip("skimage")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = (tmp_path / "here").stat().st_ino

    samples.fetch("patches", Path())

    assert (tmp_path / "here").stat().st_ino == before
    assert sorted(each.name for each in Path().iterdir()) == ["train", "val"]
    assert len(_hash_files(Path())) == 500
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_an_empty_folder_gets_all_classes_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename that fails takes those before it back."""
    pytest.importorskip("skimage")
    folder = tmp_path / "here"
    folder.mkdir()
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if Path(target) == folder / "val":
            raise OSError(errno.EIO, "broken")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)

    with pytest.raises(MachineError):
        samples.fetch("patches", folder)

    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("shape", [(400, 600, 3), (660, 550, 3), (512, 512, 3)])
def test_patches_of_the_two_splits_share_no_pixel(shape: tuple[int, int, int]) -> None:
    """A picture whose pixels count upwards shows where each region lies."""
    pixels = np.arange(np.prod(shape)).reshape(shape)

    train, val = sample_patches.divide(pixels)  # type: ignore[arg-type]

    shown = [set(np.concatenate([part.ravel() for part in parts])) for parts in (train, val)]
    assert shown[0].isdisjoint(shown[1])
    assert len(shown[0] | shown[1]) == pixels.size
    assert len(shown[1]) == pytest.approx(pixels.size / 4, rel=0.02)


def test_stamp_lists_share_no_picture_and_hold_no_mirrored_one() -> None:
    """The two sets are different data, with the classes and limits that the README names."""
    stamps, objects = (sample_stamps.read_list(name) for name in ("stamps", "stamps-objects"))

    names = "alphabet bird building flower fruit insect mammal money vegetable vehicle"
    assert sorted(stamps) == names.split()
    assert len(objects) == 11
    assert (sample_stamps.count("stamps"), sample_stamps.count("stamps-objects")) == (434, 182)
    assert max(map(len, stamps.values())) == 80
    assert min(map(len, objects.values())) == 12
    classes = [*stamps.values(), *objects.values()]
    paths = [path for paths in classes for path in paths]
    hashes = [sha256 for paths in classes for sha256 in paths.values()]
    assert len(set(paths)) == len(set(hashes)) == 434 + 182
    assert not any("mirror" in path or not path.endswith(".png") for path in paths)


@pytest.mark.slow
def test_stamps_from_a_debian_archive_are_the_same_each_time(tmp_path: Path) -> None:
    """The real package: by apt-get, then the same from the package as a file."""
    package_folder = tmp_path / "package"
    package_folder.mkdir()
    try:
        info = samples.fetch("stamps", tmp_path / "a")
        subprocess.run(
            ["apt-get", "download", "tuxpaint-stamps-default"], cwd=package_folder, check=True
        )
    except MachineError as error:
        if error.code not in ("E416", "E508"):
            raise
        pytest.skip(f"no Debian archive can be reached: {error.message}")

    samples.fetch("stamps", tmp_path / "b", package=next(package_folder.iterdir()))

    assert (info.images, len(info.classes), info.left_out) == (434, 10, ())
    assert _hash_files(tmp_path / "a") == _hash_files(tmp_path / "b")
    headers = [_read_header(path) for path in (tmp_path / "a").rglob("*.png")]
    assert max(max(size) for size, _ in headers) == 640
    assert {mode for _, mode in headers} == {"RGB"}


def _build_package(folder: Path) -> Path:
    """Build a real Debian package that holds a listed name with another picture."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = (
        "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
    )
    (root / "DEBIAN" / "control").write_text(control)
    picture = root / "usr/share/tuxpaint/stamps/food/fruit/apple.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (40, 40), "red").save(picture)
    path = folder / "tiny.deb"
    subprocess.run(["dpkg-deb", "--build", root, path], check=True, capture_output=True)
    return path


def test_stamps_leave_out_pictures_that_are_not_the_listed_ones(tmp_path: Path) -> None:
    """A package with other pictures gives nothing, and no folder appears."""
    package = _build_package(tmp_path)
    left_out: list[str] = []

    taken = list(sample_stamps.take_stamps("stamps", package, tmp_path / "part", left_out))
    with pytest.raises(ArtifactError, match=r"E412 .*the source holds no picture of stamps"):
        samples.fetch("stamps", tmp_path / "new", package=package)

    assert taken == []
    assert len(left_out) == 434
    assert "food/fruit/strawberry.png: not in the package" in left_out
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "tiny.deb"]


def test_stamps_refuse_a_file_that_is_no_package(tmp_path: Path) -> None:
    """A wrong file is E412 with exit 4."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    package = tmp_path / "wrong.deb"
    package.write_bytes(b"not a package" * 100)

    with pytest.raises(ArtifactError, match=r"E412 .*not a readable Debian package"):
        samples.fetch("stamps", tmp_path / "new", package=package)

    assert list(tmp_path.iterdir()) == [package]


def test_stamps_without_debian_tools_name_the_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other systems learn what is missing instead of seeing a traceback."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MachineError, match=r"E508 package-missing.*dpkg-deb is not installed"):
        samples.fetch("stamps", tmp_path / "new")


@pytest.mark.parametrize("name", ["stamps", "stamps-objects"])
def test_shrink_keeps_small_pictures_and_limits_large_ones(name: str, tmp_path: Path) -> None:
    """Transparent pixels become white; the longer side ends at 640 px."""
    for size, expected in (((100, 30), (30, 100, 3)), ((1280, 320), (160, 640, 3))):
        path = tmp_path / "a.png"
        Image.new("RGBA", size, (0, 0, 0, 0)).save(path)

        pixels = sample_stamps.shrink(path.read_bytes())

        assert pixels.shape == expected
        assert pixels.min() == 255


@pytest.mark.parametrize("kind", ["full folder", "file", "dangling link"])
def test_fetch_refuses_a_place_that_is_taken(tmp_path: Path, kind: str) -> None:
    """Nothing of the user's is overwritten."""
    target = tmp_path / "taken"
    if kind == "full folder":
        target.mkdir()
        (target / "mine.txt").touch()
    elif kind == "file":
        target.touch()
    else:
        target.symlink_to(tmp_path / "nowhere")

    with pytest.raises(ExistsError, match="E504 folder-exists"):
        samples.fetch("patches", target)

    assert os.path.lexists(target)


def test_fetch_refuses_unknown_names_and_packages_where_there_is_none(tmp_path: Path) -> None:
    """Both are usage errors that say what is allowed."""
    with pytest.raises(ValueError, match="must be one of flowers, patches, stamps, stamps-objects"):
        samples.fetch("stamp", tmp_path / "new")
    with pytest.raises(ValueError, match="patches takes no package"):
        samples.fetch("patches", tmp_path / "new", package=tmp_path / "a.deb")


def test_command_fetch_prints_images_and_class_names(tmp_path: Path) -> None:
    """The JSON tells a caller what lies where."""
    pytest.importorskip("skimage")
    folder = tmp_path / "patches"

    result = CliRunner().invoke(main, ["samples", "fetch", "patches", str(folder), "--json"])
    again = CliRunner().invoke(main, ["samples", "fetch", "patches", str(folder)])

    shown = json.loads(result.stdout)
    assert (shown["images"], shown["path"], shown["left_out"]) == (500, str(folder), [])
    assert shown["class_names"][:3] == ["astronaut", "brick", "cameraman"]
    assert again.exit_code == 2
    assert "the folder is not empty" in again.stderr


def test_command_list_names_all_sets_with_their_licences() -> None:
    """Each line ends with the licence."""
    shown = json.loads(CliRunner().invoke(main, ["samples", "list", "--json"]).stdout)
    text = CliRunner().invoke(main, ["samples", "list"]).stdout

    assert [row["name"] for row in shown["samples"]] == sorted(samples.SOURCES)
    assert all(line.endswith(")") for line in text.splitlines())
