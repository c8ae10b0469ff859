"""The one way in which the project writes files: whole or not at all.

A file is written under a temporary name in its own folder, flushed to the disk, renamed, and the
folder is flushed too: without the last step ext4 may lose the rename in a power cut.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mnv2tl.errors import ArtifactError, BusyError, ExistsError, MachineError, show
from mnv2tl.json_rows import iter_json

try:
    import fcntl
except ImportError:  # Windows has no flock; the README lists this guarantee as Linux only.
    fcntl = None  # type: ignore[assignment]

CONTENT_HASH = "content_sha256"
"""Key of a JSON file that holds the SHA-256 of all its other keys."""

_SPACE = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
# linux/fs.h and fcntl.h
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def machine_error(error: OSError, path: Path, *, need_bytes: int | None = None) -> MachineError:
    """Return the error that tells a user why a file could not be written.

    Args:
        error: What the system said.
        path: The file or folder.
        need_bytes: Size of the file, if that is known.
    """
    if error.errno in _SPACE:
        message = f"no space left: {error.strerror}; {_describe_space(path, need_bytes)}"
        return MachineError("E501", message, path=path, fix="free space")
    if error.errno in _READ_ONLY:
        return MachineError("E503", f"not writable: {error.strerror}", path=path)
    return MachineError("E502", f"input or output failed: {error.strerror}", path=path)


def _describe_space(path: Path, need_bytes: int | None) -> str:
    """Return what is needed and what is free where a file was to be written."""
    needed = "" if need_bytes is None else f"{need_bytes / 1e6:.1f} MB are needed, "
    folder = next((each for each in path.parents if each.is_dir()), Path())
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB"
        if hasattr(os, "statvfs") and os.statvfs(folder).f_files:
            free += f" and {os.statvfs(folder).f_favail:,} files"
    except OSError as error:
        return f"{needed}how much is free is not known: {error.strerror}"
    return f"{needed}{free} are free in {show(folder)}"


@contextlib.contextmanager
def explain_errors(path: Path) -> Iterator[None]:
    """Turn an error of the system in the block into one that tells the user why.

    Raises:
        MachineError: As `machine_error` has it.
    """
    try:
        yield
    except OSError as error:
        raise machine_error(error, path) from error


def write_file(
    path: Path,
    fill: Callable[[IO[bytes]], object],
    *,
    durable: bool = True,
    need_bytes: Callable[[], int] | None = None,
) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: Where the file goes; its folder is made if it is missing.
        fill: Called with the open binary file.
        durable: Flush to the disk, so that the file outlives a power cut. False for caches.
        need_bytes: Returns the size of the file, for the message on a full disk.

    Raises:
        MachineError: The disk is full (E501), fails (E502) or is read-only (E503). The former
            file is whole and the temporary one is gone.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with part.open("xb") as file:
                fill(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        size = need_bytes() if need_bytes else None
        raise machine_error(error, path, need_bytes=size) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write bytes whole or not at all; see `write_file`."""
    write_file(
        path, lambda file: file.write(content), durable=durable, need_bytes=lambda: len(content)
    )


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write JSON in ASCII with sorted keys, so that equal values give equal files."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode("ascii"), durable=durable)


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON with a hash of its content in it, which `read_sealed_json` checks.

    Args:
        path: Where the file goes.
        value: Its keys, and those within, are texts; a long list of its values may be `Rows`.
    """
    content = {name: each for name, each in value.items() if name != CONTENT_HASH}
    digest = hashlib.sha256()
    for piece in iter_json(content):
        digest.update(piece.encode("ascii"))
    content[CONTENT_HASH] = digest.hexdigest()

    def list_lines() -> Iterator[bytes]:
        for piece in itertools.chain(iter_json(content, indent=1), "\n"):
            yield piece.encode("ascii")

    write_file(
        path,
        lambda file: file.writelines(list_lines()),
        need_bytes=lambda: sum(map(len, list_lines())),
    )


def read_sealed_json(path: Path) -> Any:
    """Return what a JSON file holds, without the hash of its content.

    A file without one passes: it was written by hand, or by a former version.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON; RecursionError if it is nested too deeply.
        ArtifactError: It has changed since it was written (E413).
    """
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict) or CONTENT_HASH not in value:
        return value
    expected, found = value.pop(CONTENT_HASH), sha256_json(value)
    if found != expected:
        message = f"its content gives the hash {found[:12]}, it names {ascii(expected)[1:13]}"
        fix = f"restore it; after a change by hand, remove the key {CONTENT_HASH}"
        raise ArtifactError("E413", message, path=path, fix=fix)
    return value


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a value's JSON with sorted keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, allow_nan=False).encode("ascii"))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_stale_parts(folder: Path) -> None:
    """Remove temporary files that a killed process left; call it with the folder locked."""
    for part in folder.glob("*.tmp-*-*"):
        part.unlink(missing_ok=True)


def is_part(path: Path) -> bool:
    """Tell whether a file has the name of a temporary file of `write_file`."""
    return path.match("*.tmp-*-*")


def replace_folder(new: Path, out: Path, *, former: Path) -> Path:
    """Put a folder in the place of another one; return where the other one lies now.

    Linux exchanges both in one step, so that there is a folder in the place at any time, and the
    other one is then `new`. Where that is not possible it is moved to `former` first; a process
    that is killed in between leaves it there, and nothing in its place.

    Raises:
        OSError: That failed; both are where they were.
    """
    if _exchange(new, out):
        return new
    out.rename(former)
    try:
        new.rename(out)
    except OSError:
        former.rename(out)
        raise
    return former


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; tell whether the system can do that."""
    rename = None
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    paths = (os.fsencode(first), os.fsencode(second))
    if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), os.fspath(second))


def refuse_current(folder: Path) -> None:
    """Refuse to put another folder into the place of the current one, or of one above it.

    The shell would stand in a folder that is gone.

    Raises:
        ExistsError: It is one of them (E504).
    """
    if Path(os.path.realpath(os.curdir)).is_relative_to(os.path.realpath(folder)):
        fix = "give the command from a folder above it, or name a folder below"
        raise ExistsError("E504", "the current folder is not replaced", path=folder, fix=fix)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the kernel lets it go when the process dies.

    Raises:
        BusyError: Another process holds it (E701).
        MachineError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise machine_error(error, folder) from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read(100).strip() or "another process"
                message = f"locked by {ascii(holder)[1:-1]}"
                raise BusyError("E701", message, path=folder, fix="wait for it to end") from error
        host = os.uname().nodename if os.name != "nt" else "this host"
        try:
            # Past the buffer of `file`, which would try again when it is closed.
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"pid {os.getpid()} on {host}".encode("ascii", "replace"))
        except OSError as error:
            raise machine_error(error, folder) from error
        yield
