"""A folder of features that are never computed twice, addressed by what decides them.

A *space* holds the features of one trunk and one preprocessing. In it, a *pack* is an array file
of several hundred features and an index file that names them and holds the array's SHA-256; the
index is written last, so that a killed process leaves no half of a pack. Two processes may fill
one space at a time: each writes packs of its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store
from mnv2tl.errors import MachineError, show
from mnv2tl.key_table import KeyTable, encode_keys
from mnv2tl.progress import say, track

Features = NDArray[np.generic]

_YOUNG_SECONDS = 600.0
_PACK_ROWS = 2**32
"""More than a pack can have."""


@dataclass(slots=True, kw_only=True)
class FeatureSpace:
    """The known features of one trunk and preprocessing."""

    folder: Path
    """Where its packs lie."""
    shape: tuple[int, ...]
    """Shape of one feature."""
    dtype: np.dtype[Any]
    """Type on the disk."""
    packs: list[Features] = field(default_factory=list)
    """Memory-mapped arrays, shape (n, *shape)."""
    rows: KeyTable = field(default_factory=KeyTable)
    """Key -> index into packs, times `_PACK_ROWS`, plus the row there."""
    index_paths: set[Path] = field(default_factory=set)
    """Index files of the packs in use."""

    @classmethod
    def open(
        cls,
        root: Path,
        identity: dict[str, Any],
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        wanted: Iterable[str],
    ) -> Self:
        """Open the space of an identity and find what is known of the wanted keys.

        Packs that hold none of them are not opened. A pack whose bytes do not give its hash is
        dropped with one warning, and its features are computed again.

        Args:
            root: The cache folder.
            identity: What decides the features, as JSON values.
            shape: Shape of one feature.
            dtype: Type on the disk.
            wanted: Keys that will be asked for.
        """
        name = store.sha256_json([identity, list(shape), dtype.str])[:24]
        space = cls(folder=root / name, shape=shape, dtype=dtype, rows=KeyTable(wanted))
        for index in sorted(space.folder.glob("*.json")):
            if not space.rows.is_full:
                space._open_pack(index)
        return space

    def add(self, keys: Sequence[str], *parts: Features) -> None:
        """Write features as one pack.

        Args:
            keys: One per row of all parts.
            parts: Shape (n, *shape), already of the space's type.
        """
        name = secrets.token_hex(12)
        array_path = self.folder / f"{name}.npy"
        store.write_file(array_path, lambda file: self._write_array(file, parts), durable=False)
        try:
            index = {"keys": list(keys), "sha256": store.sha256_file(array_path)}
            # Mapped first: once it has an index another process may make room of it.
            first = self._map(array_path, len(keys))
        except OSError as error:
            raise store.machine_error(error, array_path) from error
        self.rows.fill(encode_keys(keys), first + np.arange(len(keys)))
        store.write_json(self.folder / f"{name}.json", index, durable=False)

    def read(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return known features, shape (len(keys), *shape).

        Raises:
            KeyError: One of them is not known.
        """
        features = np.empty((len(keys), *self.shape), np.float32)
        places = self.rows.find(encode_keys(keys))
        if places.min(initial=0) < 0:
            raise KeyError(keys[int(places.argmin())])
        for row, place in enumerate(places.tolist()):
            pack, source = divmod(place, _PACK_ROWS)
            features[row] = self.packs[pack][source]
        return features

    def _write_array(self, file: IO[bytes], parts: Sequence[Features]) -> None:
        """Write what `np.save` writes of all parts together, which takes their memory once more."""
        shape = (sum(map(len, parts)), *self.shape)
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, self.dtype).data)

    def _map(self, array_path: Path, rows: int) -> int:
        """Open the array of a pack; return the place of its first row."""
        pack = np.load(array_path, mmap_mode="r", allow_pickle=False)
        if pack.shape != (rows, *self.shape) or pack.dtype != self.dtype:
            raise ValueError(f"a pack of shape {pack.shape} and type {pack.dtype}")
        self.packs.append(np.asarray(pack))  # a plain view: np.memmap takes rows slowly
        self.index_paths.add(array_path.with_suffix(".json"))
        return (len(self.packs) - 1) * _PACK_ROWS

    def _open_pack(self, index_path: Path) -> None:
        array_path = index_path.with_suffix(".npy")
        try:
            index = json.loads(index_path.read_bytes())
            keys = encode_keys(index["keys"])
            is_wanted = self.rows.lacks(keys)
            if is_wanted.any():
                if store.sha256_file(array_path) != index["sha256"]:
                    raise ValueError("its bytes do not give its hash")
                first = self._map(array_path, len(keys))
                self.rows.fill(keys[is_wanted], first + np.flatnonzero(is_wanted))
                with contextlib.suppress(OSError):  # a read-only cache is read all the same
                    os.utime(index_path)
        except FileNotFoundError:
            return  # another process made room
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                return  # too many files are open, which tells nothing of this one
            say(f"warning: dropped a damaged cache entry {show(array_path.name)}: {error}")
            _remove_pack(index_path)


def make_room(root: Path, *, need_bytes: int, limit_bytes: int, keep: Collection[Path]) -> bool:
    """Remove the packs that were not used for longest until new ones fit.

    Args:
        root: The cache folder.
        need_bytes: Size of what will be written.
        limit_bytes: Size that all packs may have together.
        keep: Index files of the packs in use; they stay.

    Returns:
        Whether there is room now, on the disk too.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        packs = list_packs(root)
        total = sum(size for _, _, size in packs)
        free = shutil.disk_usage(root).free
    except OSError as error:
        say(f"warning: no feature cache: {store.machine_error(error, root).message}")
        return False
    kept = sum(size for _, path, size in packs if path in keep)
    if need_bytes + kept > limit_bytes or need_bytes >= free + total - kept:
        return False  # not even without all others
    for _, path, size in packs:
        if total + need_bytes <= limit_bytes and need_bytes < free:
            break
        if path not in keep and _remove_pack(path):
            total, free = total - size, free + size
    return total + need_bytes <= limit_bytes and need_bytes < free


def list_packs(root: Path) -> list[tuple[float, Path, int]]:
    """Return (time of last use, index file, bytes) of every pack, the oldest first.

    A file without an index, which a killed process left, counts as a pack of its own when it is
    some minutes old; a younger one may be getting its index.
    """
    packs = []
    old = time.time() - _YOUNG_SECONDS
    for file in root.glob("*/*"):
        try:
            status = file.stat()
            size = status.st_size
            if file.suffix == ".json":
                size += file.with_suffix(".npy").stat().st_size
            elif status.st_mtime > old or file.with_suffix(".json").exists():
                continue
            packs.append((status.st_mtime, file, size))
        except (FileNotFoundError, PermissionError):
            continue  # another process made room, or another user owns it
    return sorted(packs)


def _remove_pack(index_path: Path) -> bool:
    """Remove a pack if that is allowed here; tell whether it is gone."""
    try:
        index_path.unlink(missing_ok=True)
        index_path.with_suffix(".npy").unlink(missing_ok=True)
    except OSError:
        return False
    return True


def clear(root: Path) -> int:
    """Remove all features; return how many bytes that freed.

    Raises:
        MachineError: A file cannot be removed.
    """
    freed = 0
    try:
        files = [file for file in root.rglob("*") if file.is_file()]
        for file in track(files, "clear", total=len(files), unit="files"):
            with contextlib.suppress(FileNotFoundError):  # another process made room
                size = file.stat().st_size
                file.unlink()
                freed += size
        if root.exists():
            shutil.rmtree(root)
    except OSError as error:
        raise MachineError("E503", f"cannot be removed: {error.strerror}", path=root) from error
    return freed
