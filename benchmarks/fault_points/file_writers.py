"""The writers of single files and of caches: manifest, run.json, features, index of images."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import (
    BrokenError,
    Say,
    Writer,
    check_empty_of_parts,
    check_tidy,
)
from benchmarks.parts.index_reader import read_index, tell_index
from mnv2tl import checkpoint, store
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.stat_index import Record, StatIndex
from mnv2tl.feature_cache import FeatureSpace, make_room

OLD, NEW = b"old" * 5000, b"new" * 90_000
_PIECES = ("old", "new")


def list_file_writers() -> list[Writer]:
    """Return the writers of one file each, over a former file and over none."""
    rows = [{"epoch": n, "loss": 1 / n} for n in (1, 2, 3)]
    texts: dict[str, Callable[[Path, str], object]] = {
        "file": lambda path, piece: store.write_bytes(path, OLD if piece == "old" else NEW),
        "cache file": lambda path, piece: store.write_bytes(
            path, OLD if piece == "old" else NEW, durable=False
        ),
        "manifest": lambda path, piece: make_manifest(piece).save(path),
        "history": lambda path, piece: checkpoint.write_history(
            path, rows[: 1 + len(piece) % 2 + (piece == "new")]
        ),
        "run.json": lambda path, piece: store.write_sealed_json(
            path, {"piece": piece, "rows": rows}
        ),
    }
    return [
        _file_writer(f"{name}{', first' if is_first else ''}", fill, is_first=is_first)
        for name, fill in texts.items()
        for is_first in (False, True)
    ]


def _file_writer(name: str, fill: Callable[[Path, str], object], *, is_first: bool) -> Writer:
    def prepare(folder: Path) -> None:
        if not is_first:
            fill(folder / "deep" / "file", "old")

    def write(folder: Path, say: Say) -> None:
        fill(folder / "deep" / "file", "new")
        say("new")

    def check(folder: Path, outcome: Outcome) -> None:
        path, other = folder / "deep" / "file", folder / "other"
        allowed = {}
        for piece in _PIECES:
            fill(other / piece, piece)
            allowed[piece] = (other / piece).read_bytes()
        shutil.rmtree(other)
        if path.exists():
            found = next((k for k, each in allowed.items() if each == path.read_bytes()), None)
            if found is None:
                raise BrokenError("corrupt", "neither the old file nor the new one")
        elif not is_first or outcome.said:
            raise BrokenError("lost", "no file")
        if outcome.said and path.read_bytes() != allowed["new"]:
            raise BrokenError("lost", "the old file, after the new one was promised")
        check_tidy(folder, outcome)
        write(folder, lambda _: None)
        if path.parent.is_dir():
            store.remove_stale_parts(path.parent)
        if path.read_bytes() != allowed["new"]:
            raise BrokenError("inconsistent", "another file than without a fault")
        check_empty_of_parts(folder)

    return Writer(name=name, prepare=prepare, write=write, check=check)


def make_manifest(piece: str) -> Manifest:
    """Return a small manifest; another piece gives another one."""
    entries = Entries(
        Entry(
            path=f"{name}/{number}.png",
            label=label,
            split="val" if number % 4 == 0 else "train",
            sha256=store.sha256_bytes(f"{piece}{name}{number}".encode()),
            bytes=1000 + number,
            width=64,
            height=48,
        )
        for label, name in enumerate(("cat", "dog"))
        for number in range(12)
    )
    return Manifest(
        root=Path("/data"),
        class_names=("cat", "dog"),
        entries=entries,
        warnings=("1 file is hidden",),
        split_rule={"rule": "hash", "seed": 7, "val_fraction": 0.25, "test_fraction": 0.0},
    )


def feature_writer() -> Writer:
    """Return the writer of cached features."""
    shape, keys = (3, 5), [f"key-{n}" for n in range(12)]
    features = np.arange(12 * 15, dtype=np.float16).reshape(12, *shape)

    def open_space(folder: Path) -> FeatureSpace:
        return FeatureSpace.open(
            folder, {"trunk": 1}, shape=shape, dtype=np.dtype(np.float16), wanted=keys
        )

    def prepare(folder: Path) -> None:
        open_space(folder).add(keys[:4], features[:4])

    def write(folder: Path, say: Say) -> None:
        space = open_space(folder)
        for first in (4, 8):
            todo = [n for n in range(first, first + 4) if keys[n] not in space.rows]
            if todo:
                make_room(folder, need_bytes=100, limit_bytes=10_000, keep=space.index_paths)
                space.add([keys[n] for n in todo], features[todo])
            say(keys[first])

    def check(folder: Path, outcome: Outcome) -> None:
        space = open_space(folder)
        for number, key in enumerate(keys):
            if key in space.rows and not np.array_equal(space.read([key])[0], features[number]):
                raise BrokenError("corrupt", f"{key} has other values")
        if not set(keys[:4]) <= space.rows.keys():
            raise BrokenError("lost", "features of before")
        write(folder, lambda _: None)
        if not np.array_equal(open_space(folder).read(keys), features):
            raise BrokenError("inconsistent", "other features than without a fault")
        for path in folder.glob("*/*"):  # an hour later
            if path.suffix != ".json" and not path.with_suffix(".json").exists():
                os.utime(path, (time.time() - 3600,) * 2)
        make_room(folder, need_bytes=0, limit_bytes=0, keep=())
        if any(folder.glob("*/*")):
            raise BrokenError("left over", "what is in no pack is not removed for room")

    return Writer(name="feature cache", prepare=prepare, write=write, check=check)


def draw_files(outside: Path) -> list[Path]:
    """Write the files that the index of images is about."""
    files = [outside / f"{number}.png" for number in range(12)]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * (number + 1))
    time.sleep(0.3)  # the index does not take files that are younger than a tick of the clock
    return files


def index_writer(files: list[Path]) -> Writer:
    """Return the writer of the index of images."""

    def record(file: Path) -> Record:
        return Record(sha256=store.sha256_bytes(file.read_bytes()), width=3, height=4, dhash=9)

    def fill(folder: Path, wanted: list[Path]) -> StatIndex:
        index = StatIndex(folder / "images.sqlite", rule="rule")
        index.load([str(files[0].parent)])
        for file, known in zip(wanted, read_index(index, wanted), strict=True):
            if known is None:
                tell_index(index, file, file.stat(), record(file))
        index.flush(prune=True)
        return index

    def prepare(folder: Path) -> None:
        fill(folder, files[:4])

    def write(folder: Path, say: Say) -> None:
        fill(folder, files)

    def check(folder: Path, outcome: Outcome) -> None:
        index = StatIndex(folder / "images.sqlite", rule="rule")
        index.load([str(files[0].parent)])
        known = read_index(index, files)
        if any(each not in (None, record(file)) for each, file in zip(known, files, strict=True)):
            raise BrokenError("corrupt", "a record is another one")
        if index.warnings:
            raise BrokenError("corrupt", index.warnings[0])
        if None in known[:4]:
            raise BrokenError("lost", "records of before")
        fill(folder, files)
        again = StatIndex(folder / "images.sqlite", rule="rule")
        again.load([str(files[0].parent)])
        if read_index(again, files) != [record(file) for file in files]:
            raise BrokenError("inconsistent", "not all records are there after the next run")
        check_empty_of_parts(folder)

    return Writer(name="stat index", prepare=prepare, write=write, check=check, may_cope=True)
