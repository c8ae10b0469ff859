"""The writers of a training: its state, and a run folder from the first file to the last."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.fault_points.file_writers import make_manifest
from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import (
    BrokenError,
    Say,
    Writer,
    check_empty_of_parts,
    check_tidy,
    left_over,
)
from mnv2tl import checkpoint, store
from mnv2tl.errors import ExistsError
from mnv2tl.state import Best, Commit, StateStore

EPOCHS = 3
_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds")


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


def state_writer() -> Writer:
    """Return the writer of a training's state."""

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
    info: dict[str, Any] = {"schema": 1, "finished": False, "config": {"seed": seed}}
    return info | {"class_names": []} | dict.fromkeys(("created", "backend", "weights"), "")


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


def run_writer(name: str) -> Writer:
    """Return the writer of a run folder."""
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


def forced_run_writer(name: str, *, has_exchange: bool = True) -> Writer:
    """Return the writer of a run folder in the place of another."""
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
