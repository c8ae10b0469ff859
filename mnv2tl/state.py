"""The training state on disk: after every epoch, everything that the next one needs.

`state.json` is the one commit point: it names the array files by their hash, so that weights,
optimizer, history and the best epoch so far always move together. The last two commits are kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store
from mnv2tl.errors import ArtifactError
from mnv2tl.progress import say

SCHEMA = 1
_KEPT_COMMITS = 2

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best epoch so far."""

    epoch: int
    """Counted from 1 over all phases."""
    phase: int
    """Index of its phase."""
    value: float
    """The figure that it was chosen by."""
    file: str
    """Name of its array file in the state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The state after an epoch."""

    phase: int
    """Index of the phase that the epoch belongs to."""
    file: str
    """Name of the array file with weights, optimizer and random state."""
    history: tuple[dict[str, Any], ...]
    """One row per finished epoch."""
    best: Best
    """The best epoch so far."""


class StateStore:
    """Writes and reads the commits of one run.

    Args:
        folder: The run's `state` folder; made at the first commit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commits: list[Commit] = []

    def save_arrays(self, stem: str, arrays: Arrays) -> str:
        """Write arrays under a name that holds their file's hash; return that name."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{k: np.asarray(v) for k, v in arrays.items()})
        content = buffer.getvalue()
        name = f"{stem}-{store.sha256_bytes(content)}.npz"
        store.write_bytes(self.folder / name, content)
        return name

    def commit(self, commit: Commit) -> None:
        """Make a commit the newest one, then remove what no kept commit names."""
        self.commits = [*self.commits, commit][-_KEPT_COMMITS:]
        _write_sealed(self.folder / "state.json", self.commits)
        self.prune()

    def prune(self) -> None:
        """Remove array files that no kept commit names, such as a killed process leaves."""
        named = {name for each in self.commits for name in (each.file, each.best.file)}
        for file in self.folder.glob("*.npz"):
            if file.name not in named:
                with contextlib.suppress(OSError):  # the next one tries again
                    file.unlink()

    def load(self) -> Commit | None:
        """Return the newest commit whose files are whole, or None when there is no state yet.

        Raises:
            ArtifactError: The state is of a newer schema (E404), `state.json` has changed since it
                was written (E413), or none is whole (E403); nothing is deleted then.
        """
        path = self.folder / "state.json"
        try:
            value = store.read_sealed_json(path)
            schema = int(value["schema"])
            commits = [_commit_from(each) for each in value["commits"]] if schema <= SCHEMA else []
        except FileNotFoundError:
            return None
        except (ValueError, ArithmeticError, KeyError, TypeError, RecursionError) as error:
            message = "not a state of mnv2tl"
            raise ArtifactError("E403", message, path=path, fix="start again") from error
        if schema > SCHEMA:
            message = f"schema {schema}, this version reads <= {SCHEMA}"
            raise ArtifactError("E404", message, path=path, fix="update mnv2tl")
        for newest in range(len(commits), 0, -1):
            commit = commits[newest - 1]
            damaged = [n for n in (commit.file, commit.best.file) if not self._is_whole(n)]
            if not damaged:
                self.commits = commits[:newest]
                return commit
            say(f"warning: state after epoch {len(commit.history)} is damaged: {damaged[0]}")
        tried = ", ".join(commit.file for commit in commits)
        raise ArtifactError("E403", f"no state is whole; tried {tried}", path=path)

    def load_arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of a file that a commit names.

        Raises:
            ArtifactError: Its bytes do not give the hash in its name (E413).
        """
        if not self._is_whole(name):
            raise ArtifactError("E413", "its bytes do not give its hash", path=self.folder / name)
        with np.load(self.folder / name, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _is_whole(self, name: str) -> bool:
        path = self.folder / Path(name).name
        return path.is_file() and store.sha256_file(path) == path.stem.rpartition("-")[2]


def _write_sealed(path: Path, commits: Sequence[Commit]) -> None:
    """Write `state.json` as `store.read_sealed_json` expects it, in constant memory.

    As one text it would take more memory with every epoch.
    """
    digest, end = hashlib.sha256(), f'"schema": {SCHEMA}}}'.encode("ascii")

    def fill(file: IO[bytes]) -> None:
        for piece in _encode(commits):
            digest.update(piece)
            file.write(piece)
        digest.update(end)
        file.write(f'"{store.CONTENT_HASH}": "{digest.hexdigest()}", '.encode("ascii") + end)

    store.write_file(path, fill)


def _encode(commits: Sequence[Commit]) -> Iterator[bytes]:
    """Yield the JSON of commits with sorted keys, as `store.sha256_json` has it, row by row."""
    to_bytes = functools.partial(_to_bytes, json.JSONEncoder(sort_keys=True, allow_nan=False))
    before = b'{"commits": ['
    for commit in commits:
        head = to_bytes({"best": asdict(commit.best), "file": commit.file})
        yield before + head.removesuffix(b"}") + b', "history": ['
        for number, row in enumerate(commit.history):
            yield (b", " if number else b"") + to_bytes(row)
        yield b'], "phase": ' + to_bytes(commit.phase) + b"}"
        before = b", "
    yield b"], "


def _to_bytes(encoder: json.JSONEncoder, value: Any) -> bytes:
    return encoder.encode(value).encode("ascii")


def _commit_from(value: dict[str, Any]) -> Commit:
    best = value["best"]
    return Commit(
        phase=value["phase"],
        file=Path(value["file"]).name,
        history=tuple(value["history"]),
        best=Best(**best | {"file": Path(best["file"]).name}),
    )
