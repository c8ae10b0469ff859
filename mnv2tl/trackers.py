"""Tell other programs of a training: settings, every epoch, the result.

A tracker is opened at the first epoch, and its package is imported only then. Whatever goes wrong
in it is a warning: the training goes on without it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mnv2tl import store
from mnv2tl.config import TrainConfig
from mnv2tl.errors import InterruptError, MachineError, install_extra
from mnv2tl.progress import say, show_step
from mnv2tl.state import StateStore

NOTES = "trackers.json"
"""File of the run that remembers the id of each tracker's run, and the last epoch it was told."""

_ADAPTERS = {
    "tensorboard": "mnv2tl.tensorboard:TensorboardTracker",
    "mlflow": "mnv2tl.trackers_mlflow:MlflowTracker",
    "wandb": "mnv2tl.trackers_wandb:WandbTracker",
}
_NEEDS = {
    "tensorboard": ("tensorboardX",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}
_FILES = ("curves.png", "run.json")
_REASON_LENGTH = 200


class Tracker(Protocol):
    """One program's run."""

    id: str
    """Finds it again."""
    place: str
    """Where it is, for people."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row of the history."""

    def write_end(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write the figures of the finished run, and keep a copy of its files."""

    def close(self, status: str) -> None:
        """Say how it ended: finished, stopped or failed."""


def require_trackers(names: Sequence[str]) -> None:
    """Raise `MachineError` (E508) if the package of one of them is not installed."""
    for name in names:
        for package in _NEEDS[name]:
            if importlib.util.find_spec(package) is None:
                fix = install_extra(name)
                raise MachineError("E508", f"{package} is not installed", fix=fix)


class Trackers:
    """The trackers that a training tells.

    Args:
        config: Of the training.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self._open: dict[str, Tracker] = {}
        self._is_started = False
        self._notes: dict[str, dict[str, Any]] = {}

    def write(self, row: Mapping[str, Any]) -> None:
        """Tell of an epoch that is committed, and of those before that were not told."""
        self._start()
        for name in tuple(self._open):
            self._try(name, functools.partial(self._write_missing, name, row))

    def close(self, status: str) -> None:
        """Tell of the end: finished, with the figures of `run.json`, or stopped, or failed."""
        if status == "finished":
            self._start()
            for name in tuple(self._open):
                self._try(name, functools.partial(self._write_end, name))
        for name in tuple(self._open):
            self._try(name, lambda tracker: tracker.close(status))

    def _start(self) -> None:
        # Not before the first epoch: until then a killed training leaves no run behind.
        if self._is_started:
            return
        self._is_started = True
        self._notes = _read_notes(self.config.out / NOTES)
        for name in self.config.trackers:
            self._try(name, functools.partial(self._open_one, name))

    def _open_one(self, name: str, nothing: None) -> None:
        module, _, kind = _ADAPTERS[name].partition(":")
        make: Callable[..., Tracker] = getattr(importlib.import_module(module), kind)
        known = self._notes.get(name, {}).get("id")
        # A run that will take the place of another one is written beside it.
        title = self.config.out.resolve().name.removesuffix(".new")
        with show_step(f"opening {name}"):
            tracker = make(self.config.out, name=title, settings=self.config.to_json(), known=known)
        self._open[name] = tracker
        if tracker.id != known:
            self._note(name, tracker.id, epoch=0)
        say(f"{name}: {tracker.place}", event="tracker", tracker=name, id=tracker.id)

    def _write_end(self, name: str, tracker: Tracker) -> None:
        info = store.read_sealed_json(self.config.out / "run.json")
        # A kill may have come between the last epoch's commit and here.
        for row in info["history"]:
            if row["epoch"] > self._notes[name]["epoch"]:
                tracker.write(row)
                self._note(name, tracker.id, epoch=row["epoch"])
        tracker.write_end(list_figures(info), [self.config.out / name for name in _FILES])

    def _write_missing(self, name: str, row: Mapping[str, Any], tracker: Tracker) -> None:
        told = self._notes[name]["epoch"]
        rows: list[Mapping[str, Any]] = [row]
        if told + 1 < row["epoch"]:
            commit = StateStore(self.config.out / "state").load()
            rows = [each for each in commit.history if each["epoch"] > told] if commit else rows
        for each in rows:
            tracker.write(each)
        self._note(name, tracker.id, epoch=row["epoch"])

    def _note(self, name: str, run_id: str, *, epoch: int) -> None:
        self._notes[name] = {"id": run_id, "epoch": epoch}
        store.write_json(self.config.out / NOTES, self._notes, durable=False)

    def _try(self, name: str, action: Callable[[Any], object]) -> None:
        """Do something with a tracker; one that failed is left alone from then on."""
        try:
            action(self._open.get(name))
        except InterruptError:
            raise
        # Packages that talk to servers and databases raise anything.
        except Exception as error:
            failed = self._open.pop(name, None)
            if failed is not None:
                with contextlib.suppress(Exception):
                    failed.close("failed")
            lines = str(error).strip().splitlines() or [""]
            reason = ascii(f"{type(error).__name__}: {lines[0][:_REASON_LENGTH]}")[1:-1]
            say(f"warning: {name} failed, and the training goes on without it: {reason}")


@contextlib.contextmanager
def open_trackers(config: TrainConfig) -> Iterator[Trackers]:
    """Give the trackers of a training, and close them when the block ends."""
    trackers = Trackers(config)
    try:
        yield trackers
    except (InterruptError, KeyboardInterrupt):
        trackers.close("stopped")
        raise
    except BaseException:
        trackers.close("failed")
        raise
    trackers.close("finished")


def list_figures(info: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a finished run by names that no row of the history has."""
    return {
        "best_epoch": info["best_epoch"],
        "final_val_accuracy": info["val_accuracy"],
        "final_val_loss": info["val_loss"],
        "temperature": info["temperature"],
        **{f"ece_{when}": value for when, value in info["ece"].items()},
        **{f"seconds_{stage}": value for stage, value in info["seconds"].items()},
    }


def _read_notes(path: Path) -> dict[str, dict[str, Any]]:
    """Return what was noted; what cannot be read counts as nothing."""
    try:
        notes = json.loads(path.read_bytes())
        return {
            name: {"id": str(each["id"]), "epoch": int(each["epoch"])}
            for name, each in notes.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
