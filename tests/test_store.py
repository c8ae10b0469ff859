from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from mnv2tl import store
from mnv2tl.errors import BusyError, MachineError
from mnv2tl.json_rows import Rows, iter_json

ROOT = Path(__file__).resolve().parent.parent

_HOLD = """
import sys, time
from pathlib import Path
from mnv2tl.store import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def tiny_disk() -> Iterator[Path]:
    """Return a file system of 64 kB; mounting one needs root."""
    with tempfile.TemporaryDirectory() as name:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", name]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("cannot mount a tiny file system")
        yield Path(name)
        subprocess.run(["umount", name], check=True)


@pytest.fixture
def stranger() -> Iterator[Path]:
    """Return a folder that this process, as an ordinary user, may read but not write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "read-only"
        folder.mkdir()
        (folder / "known").write_bytes(b"old")
        Path(name).chmod(0o755)
        folder.chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        yield folder
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_write_file_replaces_the_file_and_makes_its_folder(tmp_path: Path, durable: bool) -> None:
    """The second write takes the place of the first; nothing else is left in the folder."""
    path = tmp_path / "a" / "b" / "file.bin"

    store.write_bytes(path, b"first", durable=durable)
    store.write_bytes(path, b"second", durable=durable)

    assert path.read_bytes() == b"second"
    assert _names(path.parent) == ["file.bin"]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_write_file_leaves_the_old_file_when_filling_fails(
    tmp_path: Path, error: BaseException
) -> None:
    """A bug or Ctrl-C in the middle costs neither the old file nor disk space."""
    path = tmp_path / "file"
    store.write_bytes(path, b"old")

    def fill(file: IO[bytes]) -> None:
        file.write(b"half")
        file.flush()
        raise error

    with pytest.raises(type(error)):
        store.write_file(path, fill)

    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["file"]


def test_write_file_shows_no_part_to_a_reader(tmp_path: Path) -> None:
    """While it is filled the path has the old content, then at once the new one."""
    path = tmp_path / "file"
    store.write_bytes(path, b"old")
    seen = []

    def fill(file: IO[bytes]) -> None:
        file.write(b"n" * 100_000)
        file.flush()
        seen.append(path.read_bytes())

    store.write_file(path, fill)

    assert seen == [b"old"]
    assert path.read_bytes() == b"n" * 100_000


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    """What it leaves besides is removed by the next one that holds the folder."""
    path = tmp_path / "file"
    store.write_bytes(path, b"old")
    code = f"""
import os, signal
from pathlib import Path
from mnv2tl.store import write_file
def fill(file):
    file.write(b"half" * 10_000)
    os.kill(os.getpid(), signal.SIGKILL)
write_file(Path({str(path)!r}), fill)
"""

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)

    assert result.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(_names(tmp_path)) == 2
    store.remove_stale_parts(tmp_path)
    assert _names(tmp_path) == ["file"]


def test_remove_stale_parts_keeps_what_is_no_part(tmp_path: Path) -> None:
    """Only names that `write_file` makes are touched."""
    kept = ["a.tmp", "tmp-1", "run.json", "notes.tmp-old"]
    for name in [*kept, "run.json.tmp-12-0a1b2c3d"]:
        (tmp_path / name).write_bytes(b"")

    store.remove_stale_parts(tmp_path)

    assert _names(tmp_path) == sorted(kept)


def test_a_full_disk_is_named_and_the_old_file_stays(tiny_disk: Path) -> None:
    """E501; the part that did not fit is gone."""
    path = tiny_disk / "file"
    store.write_bytes(path, b"old")

    with pytest.raises(MachineError) as caught:
        store.write_bytes(path, b"n" * 1_000_000)

    assert caught.value.code == "E501"
    assert "no space left" in caught.value.message
    assert caught.value.path == str(path)
    assert path.read_bytes() == b"old"
    assert _names(tiny_disk) == ["file"]


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_full_disk_is_told_how_much_was_to_be_written(tiny_disk: Path, is_sealed: bool) -> None:
    """In one text or in pieces."""
    value = {"text": "n" * 1_000_000}

    with pytest.raises(MachineError, match=r"1\.0 MB are needed, .* are free in"):
        (store.write_sealed_json if is_sealed else store.write_json)(tiny_disk / "file", value)

    assert _names(tiny_disk) == []


def test_a_folder_on_a_full_disk_cannot_be_locked(tiny_disk: Path) -> None:
    """The lock holds a few bytes; without room for them the error is expected too."""
    with (tiny_disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"b" * 4096)

    with pytest.raises(MachineError) as caught, store.lock_folder(tiny_disk):
        pass

    assert caught.value.code == "E501"


def test_a_read_only_folder_is_named(stranger: Path) -> None:
    """E503 for writing and for locking, and the file there stays."""
    with pytest.raises(MachineError) as written:
        store.write_bytes(stranger / "known", b"new")
    with pytest.raises(MachineError) as locked, store.lock_folder(stranger):
        pass

    assert (written.value.code, locked.value.code) == ("E503", "E503")
    assert (stranger / "known").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "E501"),
        (errno.EDQUOT, "E501"),
        (errno.EIO, "E502"),
        (errno.EMFILE, "E502"),
        (errno.EROFS, "E503"),
        (errno.EACCES, "E503"),
        (errno.EPERM, "E503"),
    ],
)
def test_machine_error_tells_kinds_apart(number: int, code: str) -> None:
    """The user can do something about each kind, but not the same."""
    error = store.machine_error(OSError(number, os.strerror(number)), Path("a/file"))

    assert error.code == code
    assert os.strerror(number) in error.message
    assert error.exit_code == 5


def test_a_file_in_place_of_the_folder_is_an_expected_error(tmp_path: Path) -> None:
    """Not a traceback."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(MachineError, match="E502"):
        store.write_bytes(tmp_path / "file" / "below", b"")


def test_write_json_gives_equal_files_for_equal_values(tmp_path: Path) -> None:
    """Sorted, ASCII, one line feed at the end; surrogates of odd file names survive."""
    first, second = tmp_path / "1", tmp_path / "2"

    store.write_json(first, {"b": [1, 2.5, None], "a": "caf\udce9 Ärger"})
    store.write_json(second, {"a": "caf\udce9 Ärger", "b": [1, 2.5, None]})

    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().isascii()
    assert first.read_bytes().endswith(b"}\n")
    assert json.loads(first.read_bytes()) == {"a": "caf\udce9 Ärger", "b": [1, 2.5, None]}


def test_write_json_refuses_what_other_readers_cannot_read(tmp_path: Path) -> None:
    """NaN is not JSON; nothing is written then."""
    with pytest.raises(ValueError, match="JSON"):
        store.write_json(tmp_path / "file", {"loss": float("nan")})

    assert _names(tmp_path) == []


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2000])
def test_json_in_pieces_is_the_whole_one(count: int, indent: int | None) -> None:
    """Long lists are made in parts; line breaks in texts, and what is nested, stay as they are."""
    rows = [{"path": f"{number}\n \udce9", "more": [1, {"x": []}]} for number in range(count)]
    value = {"rows": rows, "a\n": "b\n", "nested": {"c": [[], {}], "b": 0.5}, "none": None}

    pieces = list(iter_json(value | {"rows": Rows(lambda: iter(rows))}, indent=indent))

    assert "".join(pieces) == json.dumps(value, sort_keys=True, indent=indent)
    assert "".join(iter_json({}, indent=indent)) == "{}"
    if count == 2000:
        assert max(map(len, pieces)) < 0.6 * sum(map(len, pieces))


def test_sealed_json_is_that_of_write_json(tmp_path: Path) -> None:
    """In one text or in pieces; what is not finite is refused before anything is written."""
    value: dict[str, Any] = {"b": [{"x": 1}], "a": 0.5}
    store.write_sealed_json(tmp_path / "pieces", {"b": Rows(lambda: value["b"]), "a": 0.5})
    store.write_json(tmp_path / "whole", value | {store.CONTENT_HASH: store.sha256_json(value)})

    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    assert store.read_sealed_json(tmp_path / "pieces") == value
    with pytest.raises(ValueError, match="JSON"):
        store.write_sealed_json(tmp_path / "nan", {"a": float("nan")})
    assert _names(tmp_path) == ["pieces", "whole"]


def test_hashes_are_sha256(tmp_path: Path) -> None:
    """Bytes, file and JSON agree with hashlib; the order of keys does not count."""
    content = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(content)

    assert store.sha256_bytes(content) == hashlib.sha256(content).hexdigest()
    assert store.sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert store.sha256_json({"b": 1, "a": [2]}) == store.sha256_json({"a": [2], "b": 1})
    assert store.sha256_json({"b": 1}) != store.sha256_json({"b": "1"})


def test_a_locked_folder_is_busy_until_its_process_dies(tmp_path: Path) -> None:
    """E701 names the holder; a kill -9 is enough to set the folder free."""
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        with pytest.raises(BusyError) as caught, store.lock_folder(folder):
            pass

        assert caught.value.code == "E701"
        assert f"locked by pid {holder.pid} on " in caught.value.message
        assert caught.value.exit_code == 7
        holder.kill()
    with store.lock_folder(folder):
        assert str(os.getpid()) in (folder / ".lock").read_text()


def test_a_lock_is_let_go_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    """The same process can take it again."""
    with pytest.raises(KeyError), store.lock_folder(tmp_path):
        raise KeyError
    with store.lock_folder(tmp_path):
        pass
    with store.lock_folder(tmp_path):
        pass


def test_a_lock_shows_foreign_text_escaped(tmp_path: Path) -> None:
    """The lock file may hold anything; the message stays one line."""
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".lock").open("w+") as file:
        file.write("evil\n\x1b[31m" + "x" * 1000)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)

        with pytest.raises(BusyError) as caught, store.lock_folder(tmp_path):
            pass

    assert r"locked by evil\n\x1b[31mxxx" in caught.value.message
    assert len(caught.value.message) < 150
