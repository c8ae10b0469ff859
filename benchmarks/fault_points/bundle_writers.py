"""The writer of bundles, new and in the place of another."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.fault_points.file_writers import NEW, OLD
from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import (
    BrokenError,
    Say,
    Writer,
    check_empty_of_parts,
    check_tidy,
)
from mnv2tl import store
from mnv2tl_export.bundle import new_bundle, seal


def bundle_writer(name: str, *, is_old_there: bool, has_exchange: bool = True) -> Writer:
    """Return the writer of a bundle, with or without another one in its place."""

    def publish(folder: Path, piece: str, *, force: bool) -> None:
        with new_bundle(folder / "bundle", force=force) as part:
            content = (OLD if piece == "old" else NEW) * 3
            store.write_bytes(part / "model.onnx", content)
            for paper in ("parity.json", "split.json"):
                store.write_json(part / paper, {"paper": paper, "piece": piece})
            store.write_bytes(part / "README.md", piece.encode())
            seal(part, {"piece": piece})

    def prepare(folder: Path) -> None:
        if is_old_there:
            publish(folder, "old", force=False)

    def write(folder: Path, say: Say) -> None:
        publish(folder, "new", force=is_old_there)
        say("published")

    def check(folder: Path, outcome: Outcome) -> None:
        out = folder / "bundle"
        if out.exists():
            piece = check_bundle(out)
            if outcome.said and piece != "new":
                raise BrokenError("lost", "the old bundle, after the new one was promised")
        elif outcome.said or (is_old_there and has_exchange):
            raise BrokenError("lost", "no bundle")
        if has_exchange:
            check_tidy(folder, outcome)
        # Who finds the new bundle there, though the process was killed, need not export again.
        publish(folder, "new", force=True)
        if check_bundle(out) != "new":
            raise BrokenError("inconsistent", "another bundle than without a fault")
        check_empty_of_parts(folder)

    return Writer(name=name, prepare=prepare, write=write, check=check, has_exchange=has_exchange)


def check_bundle(folder: Path) -> str:
    """Return which bundle this is; `BrokenError` unless it holds what it says, and no more."""
    try:
        value = json.loads((folder / "bundle.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BrokenError("corrupt", f"bundle.json: {error}") from error
    found = {
        path.name: {"sha256": store.sha256_file(path), "bytes": path.stat().st_size}
        for path in folder.iterdir()
        if path.name not in ("bundle.json", ".lock")
    }
    if found != value["files"]:
        raise BrokenError("corrupt", "its files are not those of bundle.json")
    return str(value["piece"])
