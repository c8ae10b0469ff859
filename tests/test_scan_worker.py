"""Fault row 43: a decoder that ends or hangs costs its file, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnv2tl.data import scan_worker, worker_pool
from mnv2tl.data.scan import ScanConfig, inspect
from mnv2tl.data.stat_index import INDEX_NAME, Record
from mnv2tl.data.worker_pool import read_files
from mnv2tl.errors import MachineError

_BROKEN_DECODER = """
import os, re, signal, sys
from PIL import PngImagePlugin

class Broken(PngImagePlugin.PngImageFile):
    def load(self):
        size = self.size
        if size == (31, 1):
            os.kill(os.getpid(), signal.SIGSEGV)
        if size == (32, 1):  # in C, with the interpreter's lock held
            re.match("(a+)+$", "a" * 60 + "b")
        if size == (33, 1):
            sys.stdout.write("not JSON"); os.write(1, b"[]"); os._exit(7)
        if size == (34, 1):
            bytearray(2**33)
        if size == (35, 1):
            os.write(os.open(os.environ["PYTHON_BROKEN"], os.O_WRONLY | os.O_CREAT), b"taken over")
        return super().load()

from PIL import Image
Image.preinit()
Image.register_open("PNG", Broken, PngImagePlugin._accept)
"""
_OPTIONS = {"max_pixels": 10_000, "hash": False}


@pytest.fixture
def broken_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every Python that starts a PNG decoder which fails by the size of a picture."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_BROKEN_DECODER)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("PYTHON_BROKEN", str(tmp_path / "written"))
    return tmp_path / "written"


def _draw(folder: Path, sizes: list[tuple[int, int]]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, size in enumerate(sizes):
        path = folder / f"{number:03}.png"
        levels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(levels).save(path)
        files.append(os.fspath(path))
    return files


def _read(files: list[str], *, seconds: float = 20.0, **values: Any) -> list[Record]:
    return list(read_files(files, _OPTIONS, seconds=seconds, **values))


def _children() -> set[int]:
    """Return the processes that this one has started and that are there still."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    if not path.exists():
        pytest.skip("the system does not list the children of a process")
    return {int(word) for word in path.read_text().split()}


@pytest.mark.parametrize(
    ("size", "code", "reason"),
    [
        ((31, 1), "decoder-died", "decoding it ended the process with SIGSEGV, twice"),
        ((32, 1), "decoder-timeout", "decoding it took more than 0.5 s, twice"),
        ((33, 1), "decoder-died", "decoding it ended the process with status 7, twice"),
        ((34, 1), "out-of-memory", "decoding it needs more than 512 MiB of memory"),
    ],
)
def test_row_43_a_file_that_breaks_its_decoder_is_left_out(
    broken_decoder: Path, tmp_path: Path, size: tuple[int, int], code: str, reason: str
) -> None:
    """The files before and after it in the same list are decoded, and in order."""
    widths = [*range(9, 14), size[0], *range(14, 20)]
    files = _draw(tmp_path / "data", [(width, 1 if width > 30 else 9) for width in widths])

    records = _read(files, seconds=0.5 if code == "decoder-timeout" else 20.0)

    assert [each.width for each in records] == [0 if width > 30 else width for width in widths]
    assert (records[5].code, records[5].reason) == (code, reason)
    assert not any(each.code for each in records[:5] + records[6:])


def test_row_43_the_scan_goes_on_without_the_file(broken_decoder: Path, tmp_path: Path) -> None:
    """It counts as a bad image, and the next scan tries it again: the fault may not be its own."""
    _draw(tmp_path / "data" / "cats", [(12, 12)] * 4 + [(31, 1)])
    _draw(tmp_path / "data" / "dogs", [(13, 13)] * 4)
    time.sleep(0.3)  # the index does not take files that are younger than a tick of the clock
    config = ScanConfig(index=tmp_path / INDEX_NAME)

    first, second = (inspect(tmp_path / "data", config) for _ in range(2))

    left_out = [(each.path, each.code) for each in first.manifest.left_out]
    assert left_out == [("cats/004.png", "decoder-died")]
    assert (first.files_read, second.files_read) == (9, 1)
    assert second.manifest == first.manifest


def test_many_files_that_end_workers_do_not_end_the_scan(
    broken_decoder: Path, tmp_path: Path
) -> None:
    """Each gets its own verdict, and no worker is left."""
    before = _children()
    files = _draw(tmp_path / "data", [(31, 1), (9, 9)] * 3)

    records = _read(files, workers=2)

    assert [each.code for each in records] == ["decoder-died", ""] * 3
    assert _children() == before


def test_who_shares_a_question_with_files_that_end_a_worker_is_not_left_out(
    broken_decoder: Path, tmp_path: Path
) -> None:
    """Each file of such a question is tried once more, alone: so only the guilty are named."""
    guilty = (1, 3, 10)
    sizes = [(31, 1) if number in guilty else (9 + number, 9) for number in range(64)]

    records = _read(_draw(tmp_path / "data", sizes), workers=1)

    assert [number for number, each in enumerate(records) if each.code] == list(guilty)


@pytest.mark.skipif(os.name == "nt", reason="needs limits on files")
def test_a_worker_cannot_write_a_file(broken_decoder: Path, tmp_path: Path) -> None:
    """Code that a hostile picture brings can make no file that holds something."""
    files = _draw(tmp_path / "data", [(35, 1)])

    (record,) = _read(files)

    assert record.code != ""
    assert broken_decoder.read_bytes() == b""


def test_records_are_those_of_this_process(tmp_path: Path) -> None:
    """What comes through the pipe is what `describe_file` says, whatever the file."""
    files = _draw(tmp_path, [(9, 9), (5, 300), (40, 20), (7, 8)])
    (tmp_path / "text.png").write_bytes(b"text")
    (tmp_path / "big.png").write_bytes(Path(files[0]).read_bytes())
    Image.new("RGB", (200, 200)).save(tmp_path / "big.png")
    files += [os.fspath(tmp_path / name) for name in ("text.png", "big.png", "gone.png")]

    records = list(read_files(files, {"max_pixels": 10_000, "hash": True}, seconds=20))

    for file, record in zip(files, records, strict=True):
        value = scan_worker.describe_file(file, max_pixels=10_000, needs_dhash=True)
        assert record == Record(**value | {"notes": tuple(value.get("notes", ()))})
    assert [each.code for each in records[-3:]] == ["not-an-image", "too-many-pixels", "vanished"]


@pytest.mark.parametrize("count", [0, 1, 33, 200])
def test_any_number_of_files_is_read_in_order(tmp_path: Path, count: int) -> None:
    """Also none, for which no process starts."""
    files = _draw(tmp_path, [(9, 9), (10, 9), (11, 9)]) * 67

    records = _read(files[:count], workers=3)

    assert [each.width for each in records] == ([9, 10, 11] * 67)[:count]


_SIDE = 3000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return pictures whose modes take two copies of four bytes a pixel, turned by EXIF."""
    rng, side, folder = np.random.default_rng(0), _SIDE, tmp_path_factory.mktemp("large")
    files = []
    for mode, name in (("RGBA", "a.png"), ("CMYK", "b.jpg"), ("RGBA", "c.webp"), ("LA", "d.png")):
        coarse = rng.integers(0, 256, (30, 30, len(Image.new(mode, (1, 1)).getbands())), np.uint8)
        image = Image.fromarray(coarse, mode).resize((side, side), Image.Resampling.NEAREST)
        exif = Image.Exif()
        exif[274] = 6
        image.save(folder / name, exif=exif)
        files.append(os.fspath(folder / name))
    return files


def test_the_largest_picture_fits_the_memory_limit(large: list[str]) -> None:
    """At the pixel limit, in the process that decodes."""
    records = list(read_files(large, {"max_pixels": _SIDE**2, "hash": True}, seconds=60))

    assert [(each.code, each.width) for each in records] == [("", _SIDE)] * 4


_TIGHT = """
import resource, sys
from pathlib import Path
from PIL import Image
from mnv2tl.data import scan_worker

def describe(file):
    return scan_worker.describe_file(file, max_pixels=pixels, needs_dhash=True).get("code", "fits")

small, pixels, per_pixel, *files = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]
Image.preinit()
describe(small)  # what is imported late is there
held = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
limit = held + int(per_pixel * pixels)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(*(describe(file) for file in files))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory")
def test_the_memory_limit_leaves_each_pixel_what_it_needs_and_hardly_more(
    large: list[str], tmp_path: Path
) -> None:
    """Without what is allowed for the interpreter and the file, half of it would be too little."""
    small = _draw(tmp_path, [(9, 9)])

    def decode(per_pixel: float, *files: str) -> list[str]:
        words = [sys.executable, "-c", _TIGHT, *small, str(_SIDE**2), str(per_pixel), *files]
        root = Path(__file__).parents[1]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert decode(scan_worker.BYTES_PER_PIXEL, *large) == ["fits"] * 4
    # WebP's decoder does not say what it lacks.
    assert decode(scan_worker.BYTES_PER_PIXEL / 2, large[2]) != ["fits"]


def test_worker_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No picture is to blame, so none is left out for it."""
    (tmp_path / "sitecustomize.py").write_text("import os, sys; print('no luck', file=sys.stderr)")
    with (tmp_path / "sitecustomize.py").open("a") as file:
        file.write("\nsys.stderr.flush(); os._exit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(MachineError, match=r"E509 worker-failed.*did not start: no luck"):
        _read(_draw(tmp_path / "data", [(9, 9)]))


def test_reading_that_is_left_early_ends_its_workers(tmp_path: Path) -> None:
    """As by Ctrl-C, which arrives while an answer is waited for."""
    before = _children()
    records = read_files(_draw(tmp_path, [(9, 9)]) * 100, _OPTIONS, seconds=20, workers=2)
    next(records)
    assert len(_children() - before) == 2

    records.close()

    assert _children() == before


@contextlib.contextmanager
def _hanging_scan(
    folder: Path, *, seconds: float = 1.0
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a process whose only worker hangs in a decoder; give both."""
    files = _draw(folder / "data", [(32, 1)])
    script = "import signal, sys; from mnv2tl.data.worker_pool import read_files; "
    # What starts in the background of a shell ignores Ctrl-C.
    script += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += f"list(read_files(sys.argv[1:], {_OPTIONS}, seconds={seconds}))"
    command = [sys.executable, "-c", script, *files]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.parent.exists():
            process.kill()
            pytest.skip("the system does not list the children of a process")
        try:
            while not (found := children.read_text().split()):
                time.sleep(0.01)
            yield process, int(found[0])
        finally:
            process.kill()


def test_ctrl_c_ends_a_scan_and_its_workers_at_once(broken_decoder: Path, tmp_path: Path) -> None:
    """Even one that is deep inside a decoder, whose time is not over for long."""
    with _hanging_scan(tmp_path, seconds=3600.0) as (process, worker):
        time.sleep(0.4)
        process.send_signal(signal.SIGINT)
        process.wait(60)

        assert not Path(f"/proc/{worker}").exists()


def test_a_worker_ends_by_itself_if_who_asked_is_killed(
    broken_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock is one of the system: no Python code runs while a decoder hangs."""
    with _hanging_scan(tmp_path) as (process, worker):
        time.sleep(0.4)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 1.0 + scan_worker.GRACE_SECONDS + 2.0
        while _is_running(worker) and time.monotonic() < deadline:
            time.sleep(0.05)

        assert not _is_running(worker)


def _is_running(process: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    "answer",
    [
        *("1", "{}", '"ready"', "[[]]", '[{"width": "9"}]', '[{"width": -1}]', '[{"other": 1}]'),
        *('[{"notes": [1]}]', '[{"dhash": 18446744073709551616}]', "[{}, {}]", "[" * 9999, "x"),
        *("[{}]", '[{"sha256": "\\u00e9", "width": 9, "height": 9}]'),
        r'[{"code": "damaged", "reason": "\u001b]0;title"}]',
    ],
)
def test_an_answer_that_is_none_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """A worker that a hostile picture has taken over can say nothing but a record."""
    script = f"import sys; print('\"ready\"', flush=True); sys.stdin.readline(); print({answer!r})"
    monkeypatch.setattr(worker_pool, "_START", (script + "; sys.stdout.flush(); input()",))

    (record,) = _read(["file"])

    assert record.code == "decoder-died"
