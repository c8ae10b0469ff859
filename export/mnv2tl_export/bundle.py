"""The bundle: a folder that is published whole, or not at all.

It is filled under a temporary name beside its place, sealed with bundle.json, which holds the
SHA-256 of every file, and renamed. A reader sees no bundle, the former one or the new one.

bundle/
├── model.onnx      takes pixels, gives probabilities; model-fp16.onnx and model-int8.onnx too
├── saved_model/    the same for TensorFlow
├── README.md       for whoever deploys it
├── MODEL_CARD.md   what it is for, of what it was made, how good it is, as model hubs read it
├── split.json      hash of every image's file, with its split and label
├── parity.json     what the gate measured
└── bundle.json     hashes of the files, where they come from, when they were made
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mnv2tl import store
from mnv2tl.errors import ArtifactError, BusyError, ExistsError

SCHEMA = 1
SEAL = "bundle.json"
_LOCK = ".lock"
_FORMER = ".former"


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
    out = out.absolute()
    part = out.with_name(f"{out.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        _remove_stale_parts(out)
        check_place(out, force=force)
        with contextlib.ExitStack() as held:
            held.enter_context(store.lock_folder(part))
            yield part
            if os.name == "nt":
                held.close()  # Windows moves no folder that holds an open file
            _publish(part, out, force=force)
            # Not before: a part without it is taken for one of a killed export.
            with contextlib.suppress(OSError):
                (out / _LOCK).unlink()
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
    store.refuse_current(out)
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
    store.write_sealed_json(folder / SEAL, value)
    return value


def read_seal(folder: Path) -> dict[str, Any]:
    """Return what bundle.json holds.

    Raises:
        ArtifactError: There is none (E410), it is none of ours (E412), of a newer schema (E404),
            or it has changed since it was written (E413).
    """
    path = folder / SEAL
    try:
        value = store.read_sealed_json(path)
        schema, files = int(value.get("schema", SCHEMA)), dict(value["files"])
    except OSError as error:
        fix = "give a folder that mnv2tl export wrote"
        raise ArtifactError("E410", "not a bundle", path=folder, fix=fix) from error
    except (
        AttributeError,
        ArithmeticError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ArtifactError("E412", "not a bundle.json of mnv2tl", path=path) from error
    if schema > SCHEMA:
        message = f"schema {schema}, this version reads <= {SCHEMA}"
        raise ArtifactError("E404", message, path=path, fix="update mnv2tl")
    return {**value, "files": files}


def check_content(path: Path, content: bytes) -> None:
    """Refuse a file of a bundle that is not the one that bundle.json beside it names.

    A file that lies beside no bundle.json passes.

    Raises:
        ArtifactError: It is another one, or is not named there (E413), or bundle.json has changed
            since it was written (E413) or is of a newer schema (E404).
    """
    if not (path.parent / SEAL).is_file():
        return
    try:
        expected = read_seal(path.parent)["files"][path.name]["sha256"]
    except (KeyError, TypeError, ArtifactError) as error:
        if isinstance(error, ArtifactError) and error.code != "E412":
            raise
        message = f"it does not name {path.name!a}, which lies beside it"
        raise ArtifactError("E413", message, path=path.parent / SEAL) from error
    found = store.sha256_bytes(content)
    if found != expected:
        message = f"expected SHA-256 {ascii(expected)[1:13]}, found {found[:12]}"
        raise ArtifactError("E413", message, path=path)


def _publish(part: Path, out: Path, *, force: bool) -> None:
    check_place(out, force=force)  # it may have appeared since
    if out.exists() and any(out.iterdir()):
        former = store.replace_folder(part, out, former=part.with_name(part.name + _FORMER))
        store.sync_folder(out.parent)
        shutil.rmtree(former, ignore_errors=True)
        return
    if out.exists() and os.name == "nt":
        out.rmdir()
    part.rename(out)
    store.sync_folder(out.parent)


def _remove_stale_parts(out: Path) -> None:
    """Remove what killed exports to the same place left; a living one holds its lock.

    If one of them was killed while it replaced the bundle in two steps, that is put back.
    """
    if os.name == "nt":
        return  # there are no locks to tell the dead from the living
    found = out.parent.glob(f"{glob.escape(out.name)}.tmp-*-*")
    for part in {path.with_name(path.name.removesuffix(_FORMER)) for path in found}:
        former = part.with_name(part.name + _FORMER)
        with contextlib.suppress(BusyError), store.lock_folder(part):
            if former.exists() and not out.exists():
                former.rename(out)
            for left in (former, part):
                shutil.rmtree(left, ignore_errors=True)
