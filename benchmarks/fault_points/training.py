"""Whole trainings on JAX: a fault at some of their system calls, and kills at random moments.

The process that forks them has imported JAX and has not started it, so that it has one thread.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401  imported once, in the process that forks the others
import numpy as np
from PIL import Image

from benchmarks.fault_points import shim
from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import BrokenError, Say, Writer, left_over, sweep
from mnv2tl.cache_folder import VARIABLE
from mnv2tl.checkpoint import load_run
from mnv2tl.config import TrainConfig
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.state import StateStore
from mnv2tl.train import train
from mnv2tl.weights import hash_arrays

EPOCHS = 3
_IMAGES_PER_CLASS = 8
_SIDE_PX = 48


def draw_data(folder: Path) -> None:
    """Draw three classes of images that differ in colour."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(_IMAGES_PER_CLASS):
            pixels = rng.integers(0, 90, (_SIDE_PX, _SIDE_PX, 3), np.uint8)
            pixels[8:30, 8:30, channel] = 255
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def train_in(folder: Path, data: Path, say: Say) -> None:
    """Train, or go on, in a folder that holds the cache too; say which epochs are saved."""
    os.environ[VARIABLE] = str(folder / "cache")
    config = TrainConfig(
        data=data,
        out=folder / "run",
        alpha=0.35,
        image_px=96,
        weights="none",
        epochs=EPOCHS,
        batch_size=8,
        views=2,
        backend="jax",
        scan=ScanConfig(near_duplicates=False),
    )
    with contextlib.redirect_stderr(_Listener(say)):
        train(config, resume=True)
    say("finished")


class _Listener(io.StringIO):
    """Takes the lines of a training, and says which epochs it calls saved."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def write(self, text: str) -> int:
        """Take a piece of text."""
        if text.startswith("epoch "):
            self._say(text.split()[1].partition("/")[0])
        return super().write(text)


def describe(run: Path) -> dict[str, Any]:
    """Return what must be equal in two finished runs."""
    found = load_run(run)
    keys = ("epochs", "best_epoch", "temperature", "ece", "val_accuracy", "val_loss", "per_class")
    return {
        "weights": hash_arrays(found.read_arrays()),
        "history": [row | {"seconds": 0} for row in found.history],
        "manifest": found.manifest.sha256,
        "columns": (run / "history.csv").read_text().partition("\n")[0],
        **{key: found.info[key] for key in keys},
    }


def make_writer(data: Path, reference: dict[str, Any]) -> Writer:
    """Return a whole training as a writer."""

    def check(folder: Path, outcome: Outcome) -> None:
        check_promises(folder / "run", outcome.said)
        train_in(folder, data, lambda _: None)
        compare(folder / "run", reference)
        if left_over(folder / "run"):
            raise BrokenError("left over", ", ".join(left_over(folder / "run")))

    return Writer(
        name="training on JAX",
        prepare=lambda _: None,
        write=lambda folder, say: train_in(folder, data, say),
        check=check,
        may_cope=True,  # its caches do
    )


def check_promises(run: Path, said: tuple[str, ...]) -> None:
    """Raise `BrokenError` if an epoch is gone that was told to be saved."""
    epochs = [int(word) for word in said if word != "finished"]
    commit = StateStore(run / "state").load()
    if epochs and (commit is None or len(commit.history) < epochs[-1]):
        raise BrokenError("lost", f"epoch {epochs[-1]}")


def compare(run: Path, reference: dict[str, Any]) -> None:
    """Raise `BrokenError` if a run is another one than without a fault."""
    found = describe(run)
    other = [key for key in reference if found[key] != reference[key]]
    if other:
        raise BrokenError("inconsistent", f"other {', '.join(other)} than without a fault")


def make_reference(place: Path, data: Path) -> tuple[dict[str, Any], float]:
    """Train once; return what it gave, and how many seconds the second training took."""
    found: dict[str, Any] = {}
    for _ in range(2):  # the first one compiles
        start = time.perf_counter()
        _in_child(lambda _: train_in(place, data, lambda _: None), place)
        seconds = time.perf_counter() - start
        found = describe(place / "run")
        shutil.rmtree(place)
    return found, seconds


def sweep_training(place: Path, *, points: int) -> dict[str, Any]:
    """Try so many points of each fault, evenly spread over a training."""
    data = place / "data"
    draw_data(data)
    reference, _ = make_reference(place / "reference", data)
    return sweep(make_writer(data, reference), place / "sweep", points=points).to_json()


def kill_randomly(place: Path, *, runs: int, seed: int) -> dict[str, Any]:
    """Kill trainings at random moments, go on, and compare what they end with.

    Args:
        place: An empty folder.
        runs: Trainings that are killed; one that ended before its moment is not counted.
        seed: Draws the moments.
    """
    data = place / "data"
    draw_data(data)
    reference, seconds = make_reference(place / "reference", data)
    rng = np.random.default_rng(seed)
    figures: dict[str, Any] = {"killed": 0, "equal": 0, "saved_epochs": [0] * (EPOCHS + 1)}
    began = time.perf_counter()
    folder = place / "run"
    while figures["killed"] < runs:
        if _kill_after(rng.uniform(0, seconds), lambda: train_in(folder, data, lambda _: None)):
            figures["killed"] += 1
            commit = StateStore(folder / "run" / "state").load()
            figures["saved_epochs"][len(commit.history) if commit else 0] += 1
            try:
                _in_child(lambda _: train_in(folder, data, lambda _: None), folder)
                compare(folder / "run", reference)
                figures["equal"] += 1
            except BrokenError as error:
                figures.setdefault("examples", []).append(str(error)[-1000:])
        shutil.rmtree(folder, ignore_errors=True)
    figures["seconds"] = round(time.perf_counter() - began)
    return figures


def _kill_after(seconds: float, work: Callable[[], object]) -> bool:
    """Run something in a fork and kill it after some time; tell whether it was still at work."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _in_child(work: Callable[[Say], object], folder: Path) -> None:
    outcome = shim.run(work, folder)
    if outcome.code:
        raise BrokenError("wrong error", outcome.text)
