"""Who may write a run folder, what a killed process left in it, and how far its run is."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from mnv2tl import checkpoint, store
from mnv2tl.config import TrainConfig
from mnv2tl.data.folder import would_list
from mnv2tl.errors import ExistsError, InterruptError, MachineError, show
from mnv2tl.phase import is_over, list_phases
from mnv2tl.state import StateStore

_MARK = ".replaces"
"""A file in a run that is to take the place of another one, until that one is gone."""
_NOT_EMPTY = "the folder exists and is not empty"


@contextlib.contextmanager
def hold_folder(out: Path, *, resume: bool, force: bool) -> Iterator[Path]:
    """Hold a run folder while the block writes a run, and give the folder to write.

    Args:
        out: The run folder; made if it is missing.
        resume: It may hold a run.
        force: A run in it is replaced: the new one is written to `<out>.new`, and takes its place
            when the block has succeeded. Until then the former one stays as it is.

    Raises:
        ExistsError: It holds something that must not be written over (E504).
        BusyError: Another process holds it (E701).
        MachineError: The disk is full, fails or is read-only.
    """
    if out.exists() and not out.is_dir():
        raise ExistsError("E504", "exists and is no folder", path=out, fix="choose another --out")
    with store.explain_errors(out):
        _put_back(out)
        is_run = (out / "run.json").is_file()
        is_free = _is_unused(out) or (resume and is_run)
    if is_free:
        with store.lock_folder(out):
            with store.explain_errors(out):
                _remove_replaced(out)
                _remove_leftovers(out, is_run=is_run)
            yield out
    elif force and is_run:
        with store.lock_folder(out):
            with store.explain_errors(out):
                _remove_replaced(out)
            yield from _replace(out)
    elif is_run:
        with contextlib.suppress(MachineError), store.lock_folder(out):
            pass  # else it is busy, which is told first
        fix = "choose another --out, or --resume it, or replace it with --force"
        raise ExistsError("E504", _NOT_EMPTY, path=out, fix=fix)
    else:
        fix = "choose another --out; only a run folder is resumed or replaced"
        raise ExistsError("E504", _NOT_EMPTY, path=out, fix=fix)


def check_place(config: TrainConfig) -> None:
    """Refuse a new run folder that the next scan would take for a class.

    Raises:
        ExistsError: It lies in a folder of images (E504).
    """
    with store.explain_errors(config.out):
        if (config.out / "run.json").is_file():
            return
        for folder in (config.data, config.scan.test_dir):
            if folder is not None and would_list(folder, config.out):
                message = "lies among the images, where a scan would take it for a class"
                fix = f"choose an --out outside of {show(folder)}"
                raise ExistsError("E504", message, path=config.out, fix=fix)


def _is_unused(out: Path) -> bool:
    """Tell whether a folder holds nothing, or only what a kill before the first epoch left."""
    if not out.exists():
        return True
    return all(
        file.name in (".lock", _MARK, "manifest.json") or store.is_part(file)
        for file in out.iterdir()
    )


def _replace(out: Path) -> Iterator[Path]:
    store.refuse_current(out)
    new, former = _beside(out)
    for left in (new, former):
        if left.exists() and not (left == new and _is_unused(new)):
            fix = f"finish it with --out {show(new)} --resume, or remove it"
            raise ExistsError("E504", "left by a --force that was stopped", path=left, fix=fix)
    with store.lock_folder(new):
        store.write_bytes(new / _MARK, b"")
        yield new
    with store.explain_errors(out):
        store.replace_folder(new, out, former=former)
        store.sync_folder(out.parent)
    with contextlib.suppress(OSError):  # the next one that holds the folder tries again
        _remove_replaced(out)


def _beside(out: Path) -> tuple[Path, Path]:
    """Return where a new run is written, and where the former one goes on its way out."""
    if out.name in ("", ".."):  # such as ".", which has no name of its own
        out = Path(os.path.realpath(out))
    if not out.name:
        raise ExistsError("E504", "no run is written there", path=out, fix="choose another --out")
    return out.with_name(f"{out.name}.new"), out.with_name(f"{out.name}.former")


def _put_back(out: Path) -> None:
    """Put a run back that was moved away by a process which was killed before the next step."""
    _, former = _beside(out)
    if former.is_dir() and not out.exists():
        former.rename(out)


def _remove_replaced(out: Path) -> None:
    """Remove the run whose place a run has taken; until it is gone the mark stays."""
    mark = out / _MARK
    if not mark.exists():
        return
    for left in _beside(out):
        if left.exists() and not (left / _MARK).exists():
            shutil.rmtree(left)
    mark.unlink()


def _remove_leftovers(out: Path, *, is_run: bool) -> None:
    """Remove what a killed process was about to write."""
    for folder in (out, out / "state"):
        store.remove_stale_parts(folder)
    for folder in out.glob(f"{checkpoint.SAVE_PREFIX}*"):
        shutil.rmtree(folder)
    if not is_run:
        (out / "manifest.json").unlink(missing_ok=True)


def is_complete(config: TrainConfig) -> bool:
    """Tell whether all epochs that the settings ask for are committed."""
    commit = StateStore(config.out / "state").load()
    return all(is_over(commit, phase, config) for phase in list_phases(config))


def explain_interrupt(config: TrainConfig, signal_number: int) -> InterruptError:
    """Return the error that says what is saved, and how to go on."""
    commit = StateStore(config.out / "state").load()
    done = len(commit.history) if commit else 0
    words = (str(config.data), "--out", str(config.out), "--resume")
    command = " ".join(shlex.quote(word) if word.isprintable() else show(word) for word in words)
    fix = f"to go on: mnv2tl train {command}"
    if not (config.out / "run.json").is_file():  # the settings are not saved yet either
        fix = "to go on: give the same command again; features in the cache are used"
    message = f"{done} of {config.all_epochs} epochs are saved in {show(config.out)}"
    return InterruptError(signal_number, message, fix=fix)
