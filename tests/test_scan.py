"""The fault table's rows 1 to 25, each through the command line; the numbers are the rows'."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

from mnv2tl.cli import main
from mnv2tl.data.folder import list_folder, would_list
from mnv2tl.data.judge import judge
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.scan import ScanConfig, read_records, scan
from mnv2tl.errors import DataError

REPOSITORY = Path(__file__).parents[1]


def pixels(seed: int, height: int = 12, width: int = 16) -> NDArray[np.uint8]:
    """Return noise of shape (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_bytes(seed: int, format: str = "PNG", **values: Any) -> bytes:
    """Return a file's content; `values` go to Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, format, **values)
    return buffer.getvalue()


def draw(root: Path, count: int = 4, classes: tuple[str, ...] = ("cats", "dogs")) -> Path:
    """Write `count` unlike images into each class."""
    for label, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.png").write_bytes(image_bytes(1000 * label + number))
    return root


def audit(root: Path, *options: str) -> Result:
    """Run the command in this process, reading every file."""
    arguments = ["audit", os.fspath(root), "--no-index", "--quiet", *options]
    return CliRunner().invoke(main, arguments)


def audit_json(root: Path, *options: str) -> dict[str, Any]:
    """Return what the command prints with `--json`; it must succeed."""
    result = audit(root, "--json", *options)
    assert result.exit_code == 0, result.stderr
    value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return value


def assert_refused(result: Result, start: str) -> None:
    """Exit 3, and one line that starts with this code and text."""
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error[{start}"), result.stderr


def left_out(value: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return path -> (code, reason)."""
    return {each["path"]: (each["code"], each["reason"]) for each in value["left_out"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four images."""
    return draw(tmp_path / "data")


@pytest.fixture
def closed(root: Path) -> Iterator[Path]:
    """A folder that a test may close; it is opened again after, for root's own tools too."""
    yield root
    for each in [root, *root.iterdir()]:
        each.chmod(0o700)


def audit_by_permissions(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process whom permissions hold back; they do not hold back root."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root ignores permissions, and setpriv is not installed")
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            pytest.skip("root ignores permissions, and may not give that up here")
    program = [sys.executable, "-c", "from mnv2tl.cli import main; main()"]
    return subprocess.run(
        [*prefix, *program, "audit", os.fspath(root), "--no-index", "--quiet", *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_row_01_missing_root_names_the_nearest_parent(tmp_path: Path) -> None:
    """A mistyped path is seen at once by what does exist."""
    result = audit(tmp_path / "no" / "such")

    assert_refused(result, f'E300 no-folder] "{tmp_path}/no/such": no such folder; the nearest')
    assert f'existing parent is "{tmp_path}"' in result.stderr


def test_row_01_root_is_a_file(tmp_path: Path) -> None:
    """A picture is no data set."""
    path = tmp_path / "1.png"
    path.write_bytes(image_bytes(1))

    assert_refused(audit(path), f'E300 no-folder] "{path}": not a folder')


def test_row_02_empty_class(root: Path) -> None:
    """Keras makes a class of it; here it stops the run, with both ways out."""
    (root / "birds").mkdir()

    result = audit(root)

    assert_refused(result, f'E301 empty-class] "{root}/birds": 0 readable images of 0 files. Fix:')
    assert "add images or --skip-empty-classes" in result.stderr


def test_row_02_class_of_unreadable_files(root: Path) -> None:
    """The first reason is named: a folder of HEIC files is not empty to its owner."""
    (root / "birds").mkdir()
    (root / "birds" / "1.png").write_bytes(b"text")
    (root / "birds" / "2.png").write_bytes(b"")

    assert_refused(
        audit(root),
        f'E301 empty-class] "{root}/birds": 0 readable images of 2 files; first: '
        '"birds/1.png" not an image by its content. Fix',
    )


def test_row_02_empty_class_skipped(root: Path) -> None:
    """The class is gone, and said so."""
    (root / "birds").mkdir()

    value = audit_json(root, "--skip-empty-classes")

    assert [each["class_name"] for each in value["classes"]] == ["cats", "dogs"]
    assert 'empty classes left out: "birds"' in value["warnings"]


def test_row_03_one_class(tmp_path: Path) -> None:
    """Nothing can be told apart."""
    draw(tmp_path / "data", classes=("cats",))

    result = audit(tmp_path / "data")

    assert_refused(result, "E302 one-class]")
    assert "needs >= 2 classes, found 1: cats" in result.stderr


def test_row_03_one_class_after_skipping(tmp_path: Path) -> None:
    """Leaving out classes can leave one."""
    draw(tmp_path / "data", classes=("cats",))
    (tmp_path / "data" / "dogs").mkdir()

    assert_refused(audit(tmp_path / "data", "--skip-empty-classes"), "E302 one-class]")


def test_row_03_no_class(tmp_path: Path) -> None:
    """Images without class folders are no data set."""
    (tmp_path / "1.png").write_bytes(image_bytes(1))

    result = audit(tmp_path)

    assert_refused(result, "E302 one-class]")
    assert "needs >= 2 classes, found 0" in result.stderr


def test_row_04_tiny_class(root: Path) -> None:
    """Two files of equal bytes are one image."""
    (root / "birds").mkdir()
    for name in ("1.png", "2.png"):
        (root / "birds" / name).write_bytes(image_bytes(7))

    assert_refused(
        audit(root),
        f'E303 tiny-class] "{root}/birds": 1 distinct image, cannot be split. Fix: add images, '
        "or --allow-tiny",
    )


def test_row_04_tiny_class_allowed(root: Path) -> None:
    """It is trained on, and never measured."""
    (root / "birds").mkdir()
    (root / "birds" / "1.png").write_bytes(image_bytes(7))

    value = audit_json(root, "--allow-tiny")

    birds = value["classes"][0]
    assert (birds["train"], birds["val"]) == (1, 0)
    assert 'tiny classes, in train only: "birds"' in value["warnings"]


def test_row_05_what_is_no_file_of_a_class_is_counted(root: Path) -> None:
    """One line; no hidden or nested folder becomes a class."""
    (root / "loose.png").write_bytes(image_bytes(50))
    (root / ".git").mkdir()
    (root / "cats" / "Thumbs.db").write_bytes(b"x")
    (root / "cats" / "._1.png").write_bytes(b"x")
    (root / "cats" / "more").mkdir()
    (root / "cats" / "more" / "1.png").write_bytes(image_bytes(51))

    value = audit_json(root)

    assert value["images"] == 8
    assert value["left_out"] == []
    assert value["warnings"][0] == (
        "ignored: files outside the class folders 1, hidden or system files 3, nested sub-folders 1"
    )


def test_row_06_truncated_image(root: Path) -> None:
    """One bad image of nine is within the share, which is rounded up."""
    (root / "cats" / "cut.jpg").write_bytes(image_bytes(60, "JPEG")[:-200])
    value = audit_json(root)

    assert left_out(value)["cats/cut.jpg"][0] == "truncated"
    assert value["images"] == 8


def test_row_06_too_many_bad_images(root: Path) -> None:
    """Two of ten are above 1 %, rounded up to one; both are named."""
    for number in (1, 2):
        (root / "cats" / f"cut{number}.jpg").write_bytes(image_bytes(60, "JPEG")[:-200])

    result = audit(root)

    assert_refused(result, f'E308 too-many-bad-images] "{root}": 2 of 10 images cannot be used')
    assert 'allowed 1: "cats/cut1.jpg" truncated' in result.stderr
    assert '"cats/cut2.jpg" truncated' in result.stderr
    assert "left out: cats/cut1.jpg: truncated" in result.stdout
    assert audit_json(root, "--max-bad", "0.2")["images"] == 8


def test_row_06_no_bad_image_allowed(root: Path) -> None:
    """A share of 0 allows none, and `scan` refuses as the command does."""
    (root / "cats" / "cut.jpg").write_bytes(image_bytes(60, "JPEG")[:-200])

    with pytest.raises(DataError, match="1 of 9 images cannot be used, allowed 0"):
        scan(root, ScanConfig(max_bad=0.0))


def test_row_06_class_must_keep_two_images(root: Path) -> None:
    """What is left of a class after skipping must still be split."""
    for number in range(3):
        (root / "cats" / f"{number}.png").write_bytes(b"text")

    assert_refused(audit(root, "--max-bad", "1"), "E303 tiny-class]")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"hello", "not-an-image"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not-an-image"),
    ],
)
def test_row_07_no_image_under_an_image_name(root: Path, content: bytes, code: str) -> None:
    """The content decides, and the file counts as bad."""
    (root / "cats" / "x.png").write_bytes(content)

    assert left_out(audit_json(root))["cats/x.png"][0] == code
    assert_refused(audit(root, "--max-bad", "0"), "E308")


def test_row_07_other_files_are_no_bad_images(root: Path) -> None:
    """Notes beside the pictures stop nothing."""
    for number in range(5):
        (root / "cats" / f"{number}.txt").write_text("notes")

    value = audit_json(root, "--max-bad", "0")

    assert left_out(value)["cats/0.txt"][0] == "other-file"
    assert "left out: other-file 5" in value["warnings"]


def test_row_08_extension_mismatch(root: Path) -> None:
    """A PNG named .jpg, and one without a suffix, are used by their content."""
    (root / "cats" / "x.jpg").write_bytes(image_bytes(80))
    (root / "cats" / "y").write_bytes(image_bytes(81))

    value = audit_json(root)

    assert value["images"] == 10
    assert "extension mismatch: 2, used by their content" in value["warnings"]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_row_09_animation_is_counted(root: Path, format: str) -> None:
    """The first frame stands for it."""
    frames = [Image.fromarray(pixels(seed)) for seed in (90, 91)]
    frames[0].save(
        root / "cats" / f"x.{format.lower()}",
        format,
        save_all=True,
        append_images=frames[1:],
        duration=100,
    )

    value = audit_json(root)

    assert value["images"] == 9
    assert "animated, only the first frame is used: 1" in value["warnings"]


def test_row_12_malformed_exif_is_counted(root: Path) -> None:
    """The image is used as it lies."""
    (root / "cats" / "x.jpg").write_bytes(
        image_bytes(92, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    )

    value = audit_json(root)

    assert value["images"] == 9
    assert "malformed EXIF, no rotation is applied: 1" in value["warnings"]


def test_row_12_sizes_are_upright(root: Path) -> None:
    """A picture on its side has its sides exchanged in the manifest."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "cats" / "x.jpg").write_bytes(image_bytes(93, "JPEG", exif=exif))

    entries = {each.path: each for each in scan(root, ScanConfig()).entries}

    assert (entries["cats/x.jpg"].width, entries["cats/x.jpg"].height) == (12, 16)
    assert (entries["cats/0.png"].width, entries["cats/0.png"].height) == (16, 12)


def test_row_13_odd_shapes(root: Path) -> None:
    """One pixel is used with a warning; a line is left out."""
    Image.new("RGB", (1, 1)).save(root / "cats" / "dot.png")
    Image.new("RGB", (65535, 1)).save(root / "cats" / "line.png")

    value = audit_json(root)

    assert value["images"] == 9
    assert "a side below 8 pixels: 1" in value["warnings"]
    assert left_out(value)["cats/line.png"] == ("aspect", "aspect of 65535 x 1 > 50:1")


def test_row_14_too_many_pixels(root: Path) -> None:
    """The limit is an option, and the message holds both numbers."""
    Image.new("RGB", (40, 30)).save(root / "cats" / "large.png")

    value = audit_json(root, "--max-pixels", "1000")

    expected = ("too-many-pixels", "1,200 pixels > limit 1,000")
    assert left_out(value)["cats/large.png"] == expected


def test_row_15_too_large_file(root: Path) -> None:
    """65 MiB are not read."""
    path = root / "cats" / "large.png"
    path.write_bytes(image_bytes(95))
    os.truncate(path, 65 * 2**20)

    assert left_out(audit_json(root))["cats/large.png"][0] == "too-large"


@pytest.mark.parametrize("name", ["x.heic", "x.jpg"])
def test_row_16_format_that_is_not_supported(root: Path, name: str) -> None:
    """A telephone's picture counts as bad under any name: its owner meant it to be used."""
    (root / "cats" / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))

    code, reason = left_out(audit_json(root))[f"cats/{name}"]

    assert (code, reason) == ("format-not-supported", "format HEIC not supported; convert to JPEG")
    assert_refused(audit(root, "--max-bad", "0"), "E308")


def test_row_17_name_that_is_not_utf8(root: Path, tmp_path: Path) -> None:
    """The image is used, and its path survives JSON and a table."""
    (root / "cats" / "caf\udce9.png").write_bytes(image_bytes(97))
    (root / "cats" / "bad\udce9.png").write_bytes(b"text")

    result = audit(root, "--out", os.fspath(tmp_path / "manifest.json"))
    saved = Manifest.load(tmp_path / "manifest.json")

    assert result.exit_code == 0
    assert r"left out: cats/bad\udce9.png" in result.stdout
    assert (saved.root / "cats" / "caf\udce9.png") in [
        saved.path_of(each) for each in saved.entries
    ]
    assert audit_json(root)["left_out"][0]["path"] == "cats/bad\udce9.png"


def test_row_17_class_name_that_is_not_utf8(tmp_path: Path) -> None:
    """A class name goes into files that hold UTF-8 only."""
    draw(tmp_path / "data", classes=("cats", "caf\udce9"))

    result = audit(tmp_path / "data")

    assert_refused(result, "E304 class-name]")
    assert r"""the class name "caf\udce9" is not UTF-8""" in result.stderr


def test_row_18_hostile_names(root: Path) -> None:
    """Line ends, markup and marks of writing direction are used, and never reach the terminal."""
    names = ["a\nb", "a\tb", "<script>", "=1+1", "-rf", "n" * 251, "\u202egnp", "[red]", "\x1b[31m"]
    for seed, name in enumerate(names):
        (root / "cats" / f"{name}.png").write_bytes(image_bytes(200 + seed))
        (root / "dogs" / f"{name}.png").write_bytes(b"text")

    result = audit(root, "--max-bad", "1")

    assert result.exit_code == 0
    assert r"left out: dogs/a\nb.png" in result.stdout
    assert "left out: dogs/[red].png" in result.stdout
    assert not {"\x1b", "\u202e", "\t"} & set(result.stdout)
    assert audit_json(root, "--max-bad", "1")["images"] == 8 + len(names)


@pytest.mark.parametrize("other", ["Cats", "caf\u00e9"])
def test_row_19_class_names_equal_but_for_form(tmp_path: Path, other: str) -> None:
    """Letter case and Unicode form differ between machines; both names are shown."""
    first = "cats" if other == "Cats" else "cafe\u0301"
    draw(tmp_path / "data", classes=(first, other))

    result = audit(tmp_path / "data")

    assert_refused(result, "E305 equal-class-names]")
    assert ascii(first)[1:-1] in result.stderr
    assert ascii(other)[1:-1] in result.stderr


def test_row_20_links_are_counted(root: Path, tmp_path: Path) -> None:
    """Neither a link out of the folder nor a loop is followed; a hard link is a file."""
    draw(tmp_path / "elsewhere")
    (root / "wolves").symlink_to(tmp_path / "elsewhere" / "cats")
    (root / "loop").symlink_to(root)
    (root / "cats" / "passwd.png").symlink_to("/etc/passwd")
    (root / "cats" / "hard.png").hardlink_to(root / "cats" / "0.png")

    value = audit_json(root)

    assert value["images"] == 9
    assert "ignored: links that are not followed 3" in value["warnings"]
    assert audit_json(root, "--follow-links")["warnings"] == value["warnings"]


def test_row_20_links_inside_are_followed_on_request(root: Path) -> None:
    """A followed link stands for its target; twice the same target is one image."""
    store = root / ".store"
    draw(store, count=3, classes=("x",))
    for number in range(3):
        (store / "x" / f"{number}.png").write_bytes(image_bytes(300 + number))
    (root / "wolves").symlink_to(store / "x")
    (root / "cats" / "more.png").symlink_to("0.png")
    (root / "cats" / "broken.png").symlink_to("none.png")

    manifest = scan(root, ScanConfig(follow_links=True))

    assert manifest.class_names == ("cats", "dogs", "wolves")
    assert len(manifest.entries) == 11
    assert ".store/x/0.png" in [each.path for each in manifest.entries]
    assert "ignored: hidden or system files 1, links that are not followed 1" in manifest.warnings


def test_row_21_pipes_and_sockets_do_not_block(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras hangs on a pipe; here it is left out, and is not a bad image."""
    monkeypatch.chdir(root / "cats")
    os.mkfifo("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")  # relative, for a socket's path has 107 bytes at most

        value = audit_json(root, "--max-bad", "0")

    assert left_out(value) == {
        "cats/pipe.jpg": ("not-a-regular-file", "not a regular file"),
        "cats/socket.jpg": ("not-a-regular-file", "not a regular file"),
    }


def test_row_22_same_bytes_in_two_classes(root: Path) -> None:
    """Ten pairs are listed."""
    for number in range(12):
        for name in ("cats", "dogs"):
            (root / name / f"same{number:02}.png").write_bytes(image_bytes(400 + number))

    result = audit(root)

    assert_refused(result, f'E306 same-image-two-classes] "{root}": 12 images lie in two classes')
    assert '"cats/same00.png" = "dogs/same00.png"' in result.stderr
    assert result.stderr.count(" = ") == 10
    assert ", 2 more" in result.stderr


def test_row_22_conflicts_are_dropped_on_request(root: Path) -> None:
    """Nobody knows which class is right, so all copies go."""
    shutil.copy(root / "cats" / "0.png", root / "dogs" / "same.png")
    shutil.copy(root / "cats" / "0.png", root / "cats" / "same.png")

    value = audit_json(root, "--on-conflict", "drop", "--max-bad", "0")

    assert value["images"] == 7
    assert set(left_out(value)) == {"cats/0.png", "cats/same.png", "dogs/same.png"}
    assert "dropped: 3 files that lie in two classes" in value["warnings"]


@pytest.mark.parametrize("rule", ["threshold", "exact"])
def test_row_23_equal_bytes_land_together(root: Path, rule: str) -> None:
    """Every image has a twin, and none is across the splits."""
    for number in range(4):
        shutil.copy(root / "cats" / f"{number}.png", root / "cats" / f"twin{number}.png")

    manifest = scan(root, ScanConfig(split_rule=rule))  # type: ignore[arg-type]

    splits = {each.path: each.split for each in manifest.entries}
    assert all(splits[a] == splits[b] for a, b in manifest.duplicates)
    assert manifest.duplicates[0] == ("cats/0.png", "cats/twin0.png")
    assert "duplicates: 4 images lie in 8 files of equal bytes" in manifest.warnings


def test_row_23_near_duplicates_are_counted(root: Path) -> None:
    """The same picture at another quality has other bytes and the same look."""
    smooth = Image.fromarray(pixels(23)).resize((64, 48), Image.Resampling.BICUBIC)
    for quality in (95, 85):
        smooth.save(root / "cats" / f"q{quality}.jpg", quality=quality)

    value = audit_json(root)

    assert value["near_duplicates"]["pairs"] == 1
    assert value["near_duplicates"]["examples"][0][:2] == ["cats/q85.jpg", "cats/q95.jpg"]
    assert any(each.startswith("near duplicates: 1 pair that looks") for each in value["warnings"])
    assert audit_json(root, "--no-near-duplicates")["near_duplicates"] == {}


def test_row_24_unreadable_file(closed: Path) -> None:
    """A file that may not be read is a bad image."""
    (closed / "cats" / "0.png").chmod(0o000)

    result = audit_by_permissions(closed, "--json")

    assert result.returncode == 0, result.stderr
    value = json.loads(result.stdout.splitlines()[-1])
    assert left_out(value) == {"cats/0.png": ("permission-denied", "permission denied")}


@pytest.mark.parametrize("name", ["", "cats"])
def test_row_24_unreadable_folder(closed: Path, name: str) -> None:
    """A folder that may not be read could hold anything."""
    (closed / name).chmod(0o000)

    result = audit_by_permissions(closed)

    assert result.returncode == 3
    expected = f'error[E307 permission-denied] "{closed / name}": permission denied\n'
    assert result.stderr == expected


def test_row_25_file_that_vanishes(root: Path) -> None:
    """It went between the listing and the reading."""
    config = ScanConfig()
    listing = list_folder(root)
    (root / "cats" / "0.png").unlink()

    records, _, _ = read_records(listing, config)
    manifest = judge(listing, records, root, config)

    assert [(each.path, each.code) for each in manifest.left_out] == [("cats/0.png", "vanished")]


def test_train_and_val_folders_are_taken_as_found(tmp_path: Path) -> None:
    """Class names come from inside; each name for val is known."""
    for name in ("val", "valid", "validation"):
        root = tmp_path / name
        draw(root / "train", count=3)
        draw(root / name, count=2)
        for path in (root / name).rglob("*.png"):
            path.write_bytes(path.read_bytes() + b"\0")  # other bytes than in train

        manifest = scan(root, ScanConfig(near_duplicates=False))

        assert manifest.class_names == ("cats", "dogs")
        assert manifest.counts() == [{"train": 3, "val": 2, "test": 0}] * 2
        assert manifest.split_rule["folders"] == ["train", "val"]
        assert manifest.warnings == ()


def test_val_is_split_off_train_where_it_has_no_folder(tmp_path: Path) -> None:
    """With train/ and test/ only, the rule divides train."""
    draw(tmp_path / "train", count=10)
    draw(tmp_path / "test", count=2)

    manifest = scan(tmp_path, ScanConfig(split_rule="exact", near_duplicates=False))

    assert manifest.counts() == [{"train": 8, "val": 2, "test": 2}] * 2
    assert "leak: 4 images lie in two splits with equal bytes" in manifest.warnings


def test_class_may_be_called_train(tmp_path: Path) -> None:
    """Beside a bus, a train is a vehicle."""
    draw(tmp_path, classes=("bus", "train"))

    assert scan(tmp_path, ScanConfig()).class_names == ("bus", "train")


@pytest.mark.parametrize(
    "layout",
    [
        ["cats", "dogs"],
        ["train/cats", "train/dogs"],
        ["train/cats", "train/dogs", "val/cats", "val/dogs"],
        ["bus", "train"],
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        *("run", ".runs/first", "cats/run", "train/run", "train/cats/run", "val/run", "test/run"),
        *("new/run", "../beside"),
    ],
)
def test_would_list_foresees_what_a_scan_will_find(
    tmp_path: Path, layout: list[str], name: str
) -> None:
    """A folder that is made within a data folder adds a class to it, or it does not."""
    root = tmp_path / "data"
    for each in layout:
        (root / each).mkdir(parents=True)
    before = list_folder(root).class_names

    foreseen = would_list(root, root / name)

    (root / name).mkdir(parents=True)
    assert foreseen == (list_folder(root).class_names != before)


def test_would_list_takes_folders_that_do_not_exist(tmp_path: Path) -> None:
    """That the data are missing is told by the scan."""
    assert would_list(tmp_path / "no", tmp_path / "no" / "run")
    assert not would_list(tmp_path / "no", tmp_path / "run")


def test_split_folders_may_lack_a_class(tmp_path: Path) -> None:
    """Without train images it is an error; without val images it is said."""
    draw(tmp_path / "train", count=3, classes=("cats", "dogs"))
    draw(tmp_path / "val", count=2, classes=("cats",))

    warnings = scan(tmp_path, ScanConfig(near_duplicates=False)).warnings

    assert 'no val image in 1 classes: "dogs"' in warnings
    draw(tmp_path / "test", count=2, classes=("wolves",))
    assert_refused(audit(tmp_path), f'E301 empty-class] "{tmp_path}/train/wolves": 0 readable')


def test_test_folder_apart(root: Path, tmp_path: Path) -> None:
    """It gives the test split, and its paths start from the root all the same."""
    other = draw(tmp_path / "other", count=2)
    for number, path in enumerate(sorted(other.rglob("*.png"))):
        path.write_bytes(image_bytes(600 + number))

    manifest = scan(root, ScanConfig(test_dir=other))

    tests = manifest.of_split("test")
    assert tests[0].path == "../other/cats/0.png"
    assert manifest.path_of(tests[0]).read_bytes() == image_bytes(600)
    assert {each["test"] for each in manifest.counts()} == {2}


def test_test_folder_with_an_unknown_class(root: Path, tmp_path: Path) -> None:
    """It could not be given a label."""
    draw(tmp_path / "other", classes=("cats", "wolves"))

    result = audit(root, "--test-dir", os.fspath(tmp_path / "other"))

    assert_refused(result, f'E310 unknown-class] "{tmp_path}/other": no such class')
    assert '"wolves"' in result.stderr


def test_scan_is_the_same_with_any_number_of_workers(root: Path) -> None:
    """Order and split come from names and bytes, not from who is first."""
    assert scan(root, ScanConfig(workers=1)) == scan(root, ScanConfig(workers=7))
    paths = [each.path for each in scan(root, ScanConfig()).entries]
    assert paths == sorted(paths)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"val_fraction": 0.0}, "val_fraction must be above 0"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "below 1 together"),
        ({"test_fraction": 0.1, "test_dir": Path("x")}, "test_dir or test_fraction, not both"),
        ({"split_rule": "random"}, "split_rule must be one of"),
        ({"on_conflict": "keep"}, "on_conflict must be one of"),
        ({"max_bad": 1.5}, "max_bad must be from 0 to 1"),
        ({"max_pixels": 0}, "max_pixels must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"decode_seconds": 0.0}, "decode_seconds must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    """Each message names the setting."""
    with pytest.raises(ValueError, match=message):
        ScanConfig(**values)
