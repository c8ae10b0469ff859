"""The bundle: a folder that is published whole, or not at all.

It is filled under a temporary name beside its place, sealed with bundle.json, which holds the
SHA-256 of every file, and renamed. A reader sees no bundle, the former one or the new one.

bundle/
├── model.onnx      takes pixels, gives probabilities
├── split.json      hash of every image's file, with its split and label
├── parity.json     what the gate measured
└── bundle.json     hashes of the files, where they come from, when they were made
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mnv2tl import store
from mnv2tl.errors import BusyError, ExistsError

SCHEMA = 1
SEAL = "bundle.json"
_LOCK = ".lock"
# linux/fs.h and fcntl.h
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@contextlib.contextmanager
def new_bundle(out: Path, *, force: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; publish it as `out` when the block ends without an error.

    The block must call `seal` at its end. After an error nothing is left, and `out` is as before.

    Args:
        out: Where the bundle goes.
        force: Replace a bundle that is there.

    Raises:
        ExistsError: Something is there already (E504).
        MachineError: The disk is full, fails or is read-only.
    """
    check_place(out, force=force)
    out = out.absolute()
    part = out.with_name(f"{out.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        _remove_stale_parts(out)
        with contextlib.ExitStack() as held:
            held.enter_context(store.lock_folder(part))
            yield part
            if os.name == "nt":
                held.close()  # Windows moves no folder that holds an open file
            (part / _LOCK).unlink()
            _publish(part, out, force=force)
    except OSError as error:
        raise store.machine_error(error, out) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_place(out: Path, *, force: bool) -> None:
    """Refuse a place that holds something, before work is done for it.

    Raises:
        ExistsError: It is a file, another folder, or a bundle without `force` (E504).
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise ExistsError("E504", "exists and is no folder", path=out, fix="choose another --out")
    if not any(out.iterdir()):
        return
    if not (out / SEAL).is_file():
        fix = "choose another --out"
        raise ExistsError("E504", "the folder exists and is no bundle", path=out, fix=fix)
    if not force:
        fix = "choose another --out, or replace it with --force"
        raise ExistsError("E504", "the bundle exists", path=out, fix=fix)


def seal(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write bundle.json over all files of a folder, and return what it holds.

    Args:
        folder: What `new_bundle` gave, filled and flushed to the disk.
        content: Further keys, JSON.
    """
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": store.sha256_file(path),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (_LOCK, SEAL)
    }
    value = {
        **content,
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
    }
    store.write_json(folder / SEAL, value)
    return value


def _publish(part: Path, out: Path, *, force: bool) -> None:
    check_place(out, force=force)  # it may have appeared since
    if out.exists() and any(out.iterdir()):
        _exchange(part, out)
    elif out.exists() and os.name == "nt":
        out.rmdir()
        part.rename(out)
    else:
        part.rename(out)
    store.sync_folder(out.parent)


def _exchange(part: Path, out: Path) -> None:
    """Exchange two folders in one step where the system can, else in two."""
    rename = None
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        paths = (os.fsencode(part), os.fsencode(out))
        if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise OSError(number, os.strerror(number), os.fspath(out))
    former = part.with_name(f"{part.name}.former")
    out.rename(former)
    part.rename(out)
    shutil.rmtree(former)


def _remove_stale_parts(out: Path) -> None:
    """Remove what killed exports to the same place left; a living one holds its lock."""
    if os.name == "nt":
        return  # there are no locks to tell the dead from the living
    for part in out.parent.glob(f"{glob.escape(out.name)}.tmp-*-*"):
        with contextlib.suppress(BusyError):
            with store.lock_folder(part):
                pass
            shutil.rmtree(part, ignore_errors=True)
