"""Fault rows 28, 29 and 33 on real file systems: full, without inodes, read-only, not permitted.

`test_faults` lets single system calls fail; here the system itself refuses, and goes on refusing.
Each writer is that of the crash sweep, and so is the look at what it leaves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("keras")
pytest.importorskip("onnx")

from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import Writer
from benchmarks.fault_points.writers import list_writers
from mnv2tl import store
from mnv2tl.errors import MachineError, Mnv2tlError

NAMES = (
    *("file", "file, first", "cache file", "cache file, first", "manifest", "manifest, first"),
    *("history", "history, first", "run.json", "run.json, first", "feature cache", "stat index"),
    *("training state", "bundle", "bundle --force", "run folder", "run folder --force"),
    *("report", "weights", "weights, first"),
)
_SILENT = {"stat index"}
"""A cache that is done without, with a warning."""

Mount = Callable[..., None]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs mounts of Linux")


@pytest.fixture(scope="module")
def outside() -> Iterator[Path]:
    """A folder for what the writers read, where any user may look."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def writers(outside: Path) -> dict[str, Writer]:
    """All writers of the crash sweep, by name."""
    return {writer.name: writer for writer in list_writers(outside)}


@pytest.fixture
def writer(
    request: pytest.FixtureRequest, outside: Path, writers: dict[str, Writer]
) -> Iterator[Writer]:
    """One of all writers, by its name."""
    name = request.param
    if name in writers:
        yield writers[name]
        return
    pytest.importorskip("h5py")
    pytest.importorskip("jinja2")
    from tests import disk_writers

    if name == "report":
        yield disk_writers.report_writer(request.getfixturevalue("trained_run"), outside)
        return
    with disk_writers.serve(outside) as url:
        yield disk_writers.weight_writer(outside, url, is_first=name.endswith("first"))


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder on a path that any user may go."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "disk"
        folder.mkdir()
        yield folder
        while os.path.ismount(folder):
            subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def mount(place: Path) -> Mount:
    """Mount something at the place; skip the test where that is not allowed."""

    def run(*words: str) -> None:
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root may mount a disk")
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no mounts here: {done.stderr.strip()}")

    return run


def _try(writer: Writer, folder: Path) -> Outcome:
    """Let a writer write, and say how it ended."""
    said: list[str] = []
    code, exit_code, text = "", 0, ""
    try:
        writer.write(folder, said.append)
    except Mnv2tlError as error:
        code, exit_code, text = error.code, error.exit_code, error.line()
    return Outcome(
        calls=0, struck="write", code=code, exit_code=exit_code, text=text, said=tuple(said)
    )


def _content(folder: Path) -> dict[str, bytes]:
    """Return path -> bytes of every file, but for locks, which hold the last owner's number."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def _fill_space(place: Path, left_bytes: int) -> None:
    """Leave so many bytes, a multiple of a page."""
    status = os.statvfs(place)
    ballast = status.f_bavail * status.f_bsize - left_bytes
    (place / "ballast").write_bytes(bytes(ballast))


def _fill_inodes(place: Path, left: int) -> None:
    folder = place / "ballast"
    folder.mkdir()
    for number in range(os.statvfs(place).f_favail - left):
        (folder / str(number)).touch()


def _clear(ballast: Path) -> None:
    if ballast.is_dir():
        shutil.rmtree(ballast)
    else:
        ballast.unlink()


_FILLS = (
    *((_fill_space, left) for left in (0, 4096, 32_768, 131_072)),
    *((_fill_inodes, left) for left in (0, 1, 3)),
)


@pytest.mark.parametrize(
    ("writer", "fill", "left"),
    [
        (name, fill, left)
        for fill, left in _FILLS
        for name in NAMES
        # It takes seconds, and is one file.
        if name != "report" or left in (0, 4096)
    ],
    indirect=["writer"],
)
def test_rows_28_and_29_a_full_disk_costs_nothing_that_was_there(
    writer: Writer,
    place: Path,
    mount: Mount,
    fill: Callable[[Path, int], None],
    left: int,
) -> None:
    """The error names the disk's state and the file; with room the work is done as ever."""
    mount("-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "tmpfs", str(place))
    folder = place / "work"
    folder.mkdir()
    writer.prepare(folder)
    fill(place, left)

    outcome = _try(writer, folder)

    _clear(place / "ballast")
    if outcome.code:
        assert (outcome.code, outcome.exit_code) == ("E501", 5)
        assert f'error[E501 no-space] "{folder}' in outcome.text
        assert f'are free in "{place}' in outcome.text
        assert "Fix: free space" in outcome.text
    else:
        assert writer.name in _SILENT or left > 0
    writer.check(folder, outcome)


@pytest.mark.parametrize("writer", NAMES, indirect=True)
def test_row_33_a_read_only_disk_stays_as_it_is(writer: Writer, place: Path, mount: Mount) -> None:
    """As a network share may turn in the middle of a run."""
    writer.prepare(place)
    before = _content(place)
    mount("--bind", str(place), str(place))
    mount("-o", "remount,bind,ro", str(place))

    outcome = _try(writer, place)

    assert (outcome.code, outcome.exit_code) == (("", 0) if writer.name in _SILENT else ("E503", 5))
    assert writer.name in _SILENT or "not writable: Read-only file system" in outcome.text
    assert _content(place) == before
    subprocess.run(["umount", place], check=True)
    writer.check(place, outcome)


@pytest.mark.parametrize("writer", NAMES, indirect=True)
def test_row_33_a_folder_of_another_user_stays_as_it_is(writer: Writer, place: Path) -> None:
    """Root may write everywhere, so this process is nobody for a while."""
    writer.prepare(place)
    before = _content(place)
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            outcome = _try(writer, place)
        finally:
            os.seteuid(0)
    else:
        folders = [place, *(each for each in place.rglob("*") if each.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        try:
            outcome = _try(writer, place)
        finally:
            for folder in folders:
                folder.chmod(0o755)

    assert (outcome.code, outcome.exit_code) == (("", 0) if writer.name in _SILENT else ("E503", 5))
    assert writer.name in _SILENT or "not writable: Permission denied" in outcome.text
    assert _content(place) == before
    writer.check(place, outcome)


def test_the_error_of_a_full_disk_says_how_much_is_missing(place: Path, mount: Mount) -> None:
    """In the units in which a user frees space; the folder itself is one of the files."""
    mount("-t", "tmpfs", "-o", "size=1m,nr_inodes=1234", "tmpfs", str(place))

    with pytest.raises(MachineError) as caught:
        store.write_bytes(place / "big", bytes(3_000_000))

    assert caught.value.message == (
        "no space left: No space left on device; 3.0 MB are needed, "
        f'1.0 MB and 1,233 files are free in "{place}"'
    )
    assert list(place.iterdir()) == []
