"""Who may write a run folder, what a killed process left in it, and how far its run is."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from mnv2tl import checkpoint, store
from mnv2tl.config import TrainConfig
from mnv2tl.errors import ExistsError, InterruptError, show
from mnv2tl.phase import is_over, list_phases
from mnv2tl.state import StateStore


@contextlib.contextmanager
def hold_folder(out: Path, *, resume: bool, force: bool) -> Iterator[None]:
    """Hold a run folder while the block writes it.

    Args:
        out: The run folder; made if it is missing.
        resume: It may hold a run.
        force: A run in it is replaced: kept as `<out>.replaced` until the block has succeeded.

    Raises:
        ExistsError: It holds something that must not be written over (E504).
        BusyError: Another process holds it (E701).
    """
    if out.exists() and not out.is_dir():
        raise ExistsError("E504", "exists and is no folder", path=out, fix="choose another --out")
    is_empty = not out.exists() or all(file.name == ".lock" for file in out.iterdir())
    if is_empty or (resume and (out / "run.json").is_file()):
        with store.lock_folder(out):
            _remove_leftovers(out)
            yield
        return
    if not force:
        fix = "choose another --out, or --resume it, or replace it with --force"
        raise ExistsError("E504", "the folder exists and is not empty", path=out, fix=fix)
    if not (out / "run.json").is_file():
        message = "not a run folder, so --force does not replace it"
        raise ExistsError("E504", message, path=out, fix="choose another --out")
    former = out.with_name(f"{out.name}.replaced")
    if former.exists():
        raise ExistsError("E504", "left by a --force that failed", path=former, fix="remove it")
    out.rename(former)
    with store.lock_folder(out):
        yield
    shutil.rmtree(former)


def _remove_leftovers(out: Path) -> None:
    """Remove what a killed process was about to write."""
    for folder in (out, out / "state"):
        store.remove_stale_parts(folder)
    for folder in out.glob(f"{checkpoint.SAVE_PREFIX}*"):
        shutil.rmtree(folder)


def is_complete(config: TrainConfig) -> bool:
    """Tell whether all epochs that the settings ask for are committed."""
    commit = StateStore(config.out / "state").load()
    return all(is_over(commit, phase, config) for phase in list_phases(config))


def explain_interrupt(config: TrainConfig, signal_number: int) -> InterruptError:
    """Return the error that says what is saved, and how to go on."""
    commit = StateStore(config.out / "state").load()
    done = len(commit.history) if commit else 0
    return InterruptError(
        signal_number,
        f"{done} of {config.all_epochs} epochs are saved in {show(config.out)}",
        fix=f"to go on: mnv2tl train {show(config.data)} --out {show(config.out)} --resume",
    )
