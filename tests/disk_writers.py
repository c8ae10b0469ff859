"""Two writers that the crash sweep does not have: the report, and the cache of base weights."""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import pytest

from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import BrokenError, Say, Writer, check_empty_of_parts
from mnv2tl import weight_cache, weights
from mnv2tl.checkpoint import Run, load_run
from mnv2tl.report.write import write_report
from mnv2tl.store import sha256_bytes, write_json

_ALPHA, _PX = 0.35, 96


def report_writer(run: Run, outside: Path) -> Writer:
    """Return the writer of a report over a former one.

    Args:
        run: As the fixture `trained_run` gives it.
        outside: A folder that any user may read; gets a copy of the run and its images, once.
    """
    data = outside / "images"
    if not data.exists():
        shutil.copytree(run.folder, outside / "run")
        shutil.copytree(run.manifest.root, data)
        for path in (outside / "run", data, *outside.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        write_report(load_run(outside / "run"), data=data, out=outside / "report.html")
    copy = load_run(outside / "run")
    expected = (outside / "report.html").read_bytes()

    def prepare(folder: Path) -> None:
        (folder / "report.html").write_bytes(b"old")

    def write(folder: Path, say: Say) -> None:
        write_report(copy, data=data, out=folder / "report.html")
        say("new")

    def check(folder: Path, outcome: Outcome) -> None:
        _check_file(folder / "report.html", outcome, old=b"old", new=expected)
        write(folder, lambda _: None)
        _check_end(folder / "report.html", expected)

    return Writer(name="report", prepare=prepare, write=write, check=check)


def weight_writer(outside: Path, url: str, *, is_first: bool) -> Writer:
    """Return the writer of fetched base weights, over a damaged file or over none.

    Args:
        outside: A folder for the file that is fetched.
        url: Where that folder is served.
        is_first: Nothing was fetched before.
    """
    source = outside / weight_cache.cached_path("imagenet", alpha=_ALPHA, image_px=_PX).name
    with h5py.File(source, "w") as file:
        for key, array in weights.initial_arrays(_ALPHA, 0).items():
            layer, _, part = key.partition("/")
            file[f"{layer}/{layer}/{part}:0"] = array
    new = source.read_bytes()

    def place_in(folder: Path) -> Path:
        return folder / "weights" / source.name

    def prepare(folder: Path) -> None:
        if is_first:
            return
        place_in(folder).parent.mkdir()
        place_in(folder).write_bytes(b"damaged")
        record = place_in(folder).with_name(f"{source.name}.json")
        write_json(record, {"sha256": sha256_bytes(new)})

    def write(folder: Path, say: Say) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MNV2TL_CACHE", str(folder))
            patch.setattr(weight_cache, "IMAGENET_URL", f"{url}/")
            weight_cache.fetch_weights("imagenet", alpha=_ALPHA, image_px=_PX)
        say("new")

    def check(folder: Path, outcome: Outcome) -> None:
        path = place_in(folder)
        _check_file(path, outcome, old=None if is_first else b"damaged", new=new)
        write(folder, lambda _: None)
        _check_end(path, new)
        if any(path.parent.glob("fetch-*")):
            raise BrokenError("left over", "a folder of a fetch")

    name = f"weights{', first' if is_first else ''}"
    return Writer(name=name, prepare=prepare, write=write, check=check)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this host while the block runs; give its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _check_file(path: Path, outcome: Outcome, *, old: bytes | None, new: bytes) -> None:
    found = path.read_bytes() if path.exists() else None
    if found not in (old, new):
        raise BrokenError("corrupt", "neither the old file nor the new one")
    if outcome.said and found != new:
        raise BrokenError("lost", "the old file, after the new one was promised")


def _check_end(path: Path, new: bytes) -> None:
    if path.read_bytes() != new:
        raise BrokenError("inconsistent", "another file than without a fault")
    check_empty_of_parts(path.parent)
