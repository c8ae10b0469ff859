"""The writers of the project, from one file to a whole run folder, without a Keras backend."""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import BrokenError, Say, Writer, left_over, sweep_all
from mnv2tl import checkpoint, store
from mnv2tl.errors import ExistsError
from mnv2tl.feature_cache import FeatureSpace, make_room
from mnv2tl.manifest import Entry, Manifest
from mnv2tl.stat_index import Record, StatIndex
from mnv2tl.state import Best, Commit, StateStore
from mnv2tl_export.bundle import new_bundle, seal

EPOCHS = 3
_OLD, _NEW = b"old" * 5000, b"new" * 90_000
_PIECES = ("old", "new")
_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")


def run(place: Path, **options: Any) -> dict[str, Any]:
    """Sweep the writers; the options are those of `sweep_all`."""
    outside = place / "outside"
    outside.mkdir()
    return sweep_all(list_writers(outside), place, **options)


def list_writers(outside: Path) -> list[Writer]:
    """Return the writers.

    Args:
        outside: An empty folder for what they read.
    """
    files = _draw_files(outside)
    return [
        *_file_writers(),
        _feature_writer(),
        _index_writer(files),
        _state_writer(),
        _bundle_writer("bundle", is_old_there=False),
        _bundle_writer("bundle --force", is_old_there=True),
        _bundle_writer("bundle --force, no exchange", is_old_there=True, has_exchange=False),
        _run_writer("run folder"),
        _forced_run_writer("run folder --force"),
        _forced_run_writer("run folder --force, no exchange", has_exchange=False),
    ]


def _file_writers() -> list[Writer]:
    rows = [{"epoch": n, "loss": 1 / n} for n in (1, 2, 3)]
    texts: dict[str, Callable[[Path, str], object]] = {
        "file": lambda path, piece: store.write_bytes(path, _OLD if piece == "old" else _NEW),
        "cache file": lambda path, piece: store.write_bytes(
            path, _OLD if piece == "old" else _NEW, durable=False
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


def check_tidy(folder: Path, outcome: Outcome) -> None:
    """Raise `BrokenError` if a writer that could tidy up has left temporary files."""
    if outcome.code != "killed" and outcome.struck != "remove":
        check_empty_of_parts(folder)


def check_empty_of_parts(folder: Path) -> None:
    """Raise `BrokenError` if there are temporary files."""
    left = left_over(folder)
    if left:
        raise BrokenError("left over", ", ".join(left))


def make_manifest(piece: str) -> Manifest:
    """Return a small manifest; another piece gives another one."""
    entries = tuple(
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


def _feature_writer() -> Writer:
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


def _draw_files(outside: Path) -> list[Path]:
    files = [outside / f"{number}.png" for number in range(12)]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * (number + 1))
    time.sleep(0.3)  # the index does not take files that are younger than a tick of the clock
    return files


def _index_writer(files: list[Path]) -> Writer:
    def record(file: Path) -> Record:
        return Record(sha256=store.sha256_bytes(file.read_bytes()), width=3, height=4, dhash=9)

    def fill(folder: Path, wanted: list[Path]) -> StatIndex:
        index = StatIndex(folder / "images.sqlite", rule="rule")
        index.load([str(files[0].parent)])
        for file in wanted:
            if index.get(str(file), file.stat()) is None:
                index.put(str(file), file.stat(), record(file))
        index.flush(prune=True)
        return index

    def prepare(folder: Path) -> None:
        fill(folder, files[:4])

    def write(folder: Path, say: Say) -> None:
        fill(folder, files)

    def check(folder: Path, outcome: Outcome) -> None:
        index = StatIndex(folder / "images.sqlite", rule="rule")
        index.load([str(files[0].parent)])
        known = [index.get(str(file), file.stat()) for file in files]
        if any(each not in (None, record(file)) for each, file in zip(known, files, strict=True)):
            raise BrokenError("corrupt", "a record is another one")
        if index.warnings:
            raise BrokenError("corrupt", index.warnings[0])
        if None in known[:4]:
            raise BrokenError("lost", "records of before")
        fill(folder, files)
        again = StatIndex(folder / "images.sqlite", rule="rule")
        again.load([str(files[0].parent)])
        if any(again.get(str(file), file.stat()) != record(file) for file in files):
            raise BrokenError("inconsistent", "not all records are there after the next run")
        check_empty_of_parts(folder)

    return Writer(name="stat index", prepare=prepare, write=write, check=check, may_cope=True)


def _next_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return what an epoch makes of weights and optimizer; every bit of them counts."""
    weights, moment = arrays["dense/kernel"], arrays["optimizer/0000/moment"]
    moment = np.float32(0.9) * moment + np.sin(weights * 7)
    step = arrays["random/dropout"] + np.uint32(1)
    weights = weights - np.float32(0.1) * moment + np.float32(1e-3) * step
    values = {"dense/kernel": weights, "optimizer/0000/moment": moment, "random/dropout": step}
    return {name: np.asarray(value) for name, value in values.items()}


def _first_arrays(seed: int) -> dict[str, NDArray[Any]]:
    kernel = np.random.default_rng(seed).normal(size=(40, 30)).astype(np.float32)
    return {
        "dense/kernel": kernel,
        "optimizer/0000/moment": np.zeros_like(kernel),
        "random/dropout": np.array(0, np.uint32),
    }


def train_numbers(out: Path, say: Say, *, seed: int, force: bool = False) -> Path:
    """Go through what a training writes, in its order, with sums in place of epochs.

    Returns:
        The folder of the finished run.
    """
    from mnv2tl.run_guard import hold_folder  # noqa: PLC0415  it brings Keras, which forks slowly

    with hold_folder(out, resume=not force, force=force) as folder:
        if (folder / "run.json").is_file():
            info = dict(checkpoint.load_run(folder).info)
            if info["finished"]:
                return out
        state = StateStore(folder / "state")
        info = _describe(seed)
        make_manifest("old").save(folder / "manifest.json")
        store.write_sealed_json(folder / "run.json", info)
        commit = _go_through_epochs(state, seed, say)
        best = state.load_arrays(commit.best.file)
        digest = checkpoint.write_keras(_model(best["dense/kernel"]), folder / "best.keras")
        checkpoint.write_history(folder / "history.csv", commit.history)
        info |= _describe_end(commit, digest)
        store.write_sealed_json(folder / "run.json", info)
    say("finished")
    return out


def _go_through_epochs(state: StateStore, seed: int, say: Say) -> Commit:
    commit = state.load()
    state.prune()
    arrays = _first_arrays(seed) if commit is None else state.load_arrays(commit.file)
    for epoch in range(len(commit.history) + 1 if commit else 1, EPOCHS + 1):
        arrays = _next_arrays(arrays)
        commit = _commit(state, commit, arrays, epoch)
        say(str(epoch))
    if commit is None:
        raise BrokenError("lost", "no commit")
    return commit


def _state_writer() -> Writer:
    def write(folder: Path, say: Say) -> None:
        with store.lock_folder(folder / "state"):
            store.remove_stale_parts(folder / "state")
            _go_through_epochs(StateStore(folder / "state"), 1, say)

    def check(folder: Path, outcome: Outcome) -> None:
        _check_promises(folder, outcome)
        check_tidy(folder, outcome)
        write(folder, lambda _: None)
        arrays = _first_arrays(1)
        for _ in range(EPOCHS):
            arrays = _next_arrays(arrays)
        state = StateStore(folder / "state")
        commit = state.load()
        if commit is None or len(commit.history) != EPOCHS:
            raise BrokenError("inconsistent", "not as many epochs as without a fault")
        found = state.load_arrays(commit.file)
        if any(found[name].tobytes() != array.tobytes() for name, array in arrays.items()):
            raise BrokenError("inconsistent", "other weights than without a fault")
        named = {name for each in state.commits for name in (each.file, each.best.file)}
        if {file.name for file in state.folder.iterdir()} != {".lock", "state.json", *named}:
            raise BrokenError("left over", "files that no commit names")

    return Writer(name="training state", prepare=lambda _: None, write=write, check=check)


def _describe(seed: int) -> dict[str, Any]:
    keys = ("created", "backend", "class_names", "weights")
    return {"schema": 1, "finished": False, "config": {"seed": seed}} | dict.fromkeys(keys, "")


def _describe_end(commit: Commit, digest: str) -> dict[str, Any]:
    figures = dict.fromkeys(("temperature", "val_accuracy", "val_loss"), 1.0)
    return {
        "finished": True,
        "history": commit.history,
        "files": {"best.keras": digest},
        "best_epoch": commit.best.epoch,
        **figures,
    }


def _commit(
    state: StateStore, before: Commit | None, arrays: Mapping[str, NDArray[Any]], epoch: int
) -> Commit:
    value = float(np.abs(arrays["dense/kernel"]).mean()) * (1 + epoch % 2)
    best = before.best if before else None
    if best is None or value < best.value:
        weights = {name: each for name, each in arrays.items() if name.startswith("dense")}
        file = state.save_arrays(f"best-{epoch:04}", weights)
        best = Best(epoch=epoch, phase=0, value=value, file=file)
    file = state.save_arrays(f"epoch-{epoch:04}", arrays)
    row = {"epoch": epoch, "phase": 0} | dict.fromkeys(_FIGURES, value)
    history = (*before.history, row) if before else (row,)
    commit = Commit(phase=0, file=file, history=history, best=best)
    state.commit(commit)
    return commit


@functools.cache
def _layers() -> Any:
    import keras  # noqa: PLC0415  no other writer needs it

    return keras.Sequential([keras.layers.Input((40,)), keras.layers.Dense(30, name="dense")])


def _model(kernel: NDArray[Any]) -> Any:
    model = _layers()
    model.set_weights([kernel, np.zeros(30, np.float32)])
    return model


def describe_run(folder: Path) -> dict[str, Any]:
    """Return what must be equal in two finished runs; `BrokenError` if this is not one."""
    run = checkpoint.load_run(folder)
    content = run.best_path.read_bytes()
    if store.sha256_bytes(content) != run.info["files"]["best.keras"]:
        raise BrokenError("corrupt", "best.keras is not the file that run.json names")
    import keras  # noqa: PLC0415

    kernel = keras.saving.load_model(run.best_path).get_weights()[0]
    return {
        "kernel": store.sha256_bytes(kernel.tobytes()),
        "history": run.history,
        "csv": (folder / "history.csv").read_text(),
        "seed": run.info["config"]["seed"],
        "manifest": run.manifest.sha256,
    }


def _compare(folder: Path, reference: str) -> None:
    if json.dumps(describe_run(folder), sort_keys=True) != reference:
        raise BrokenError("inconsistent", "another run than without a fault")


def _run_writer(name: str) -> Writer:
    reference: list[str] = []

    def prepare(folder: Path) -> None:
        out = folder / "run"
        train_numbers(out, lambda _: None, seed=1)
        reference.append(json.dumps(describe_run(out), sort_keys=True))
        shutil.rmtree(out)

    def check(folder: Path, outcome: Outcome) -> None:
        out = folder / "run"
        _check_promises(out, outcome)
        check_tidy(folder, outcome)
        train_numbers(out, lambda _: None, seed=1)
        _compare(out, reference[0])
        check_empty_of_parts(folder)

    return Writer(
        name=name,
        prepare=prepare,
        write=lambda folder, say: train_numbers(folder / "run", say, seed=1),
        check=check,
    )


def _check_promises(out: Path, outcome: Outcome) -> None:
    """Raise `BrokenError` if an epoch is gone that was told to be saved."""
    epochs = [int(word) for word in outcome.said if word != "finished"]
    commit = StateStore(out / "state").load()
    if epochs and (commit is None or len(commit.history) < epochs[-1]):
        raise BrokenError("lost", f"epoch {epochs[-1]}")
    if "finished" in outcome.said and not checkpoint.load_run(out).is_finished:
        raise BrokenError("lost", "the finished run")


def _forced_run_writer(name: str, *, has_exchange: bool = True) -> Writer:
    references: dict[str, str] = {}

    def prepare(folder: Path) -> None:
        for word, seed in (("other", 2), ("run", 1)):
            train_numbers(folder / word, lambda _: None, seed=seed)
            references[word] = json.dumps(describe_run(folder / word), sort_keys=True)
        shutil.rmtree(folder / "other")

    def check(folder: Path, outcome: Outcome) -> None:
        out, new = folder / "run", folder / "run.new"
        if has_exchange or out.exists():
            if not out.exists():
                raise BrokenError("lost", "neither the former run nor the new one is in its place")
            if json.dumps(describe_run(out), sort_keys=True) not in references.values():
                raise BrokenError("inconsistent", "neither the former run nor the new one")
        if "finished" in outcome.said and outcome.code == "":
            _compare(out, references["other"])
        _go_on(out, new)
        _compare(out, references["other"])
        if left_over(folder):
            raise BrokenError("left over", ", ".join(left_over(folder)))

    return Writer(
        name=name,
        prepare=prepare,
        write=lambda folder, say: train_numbers(folder / "run", say, seed=2, force=True),
        check=check,
        has_exchange=has_exchange,
    )


def _go_on(out: Path, new: Path) -> None:
    """Do again what was stopped, as its error says: finish what is left, put it in its place."""
    try:
        train_numbers(out, lambda _: None, seed=2, force=True)
    except ExistsError as error:
        if error.path != str(new):
            raise
        train_numbers(new, lambda _: None, seed=2)
        shutil.rmtree(new)
        train_numbers(out, lambda _: None, seed=2, force=True)


def _bundle_writer(name: str, *, is_old_there: bool, has_exchange: bool = True) -> Writer:
    def publish(folder: Path, piece: str, *, force: bool) -> None:
        with new_bundle(folder / "bundle", force=force) as part:
            content = (_OLD if piece == "old" else _NEW) * 3
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
