"""The manifest: every image of a data set with its class, split and hash, and what was left out.

It is written beside each run, so that evaluation and export use the same images in the same
splits, whatever became of the folder since.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, Self

from mnv2tl import store
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.split import SPLITS, Split
from mnv2tl.errors import ArtifactError, DataError
from mnv2tl.json_rows import Rows, iter_json

SCHEMA = 1
"""Raised when a reader of the former version could not use the file."""

_TYPES = {
    each.name: {"str": str, "int": int, "Split": str}[str(each.type)] for each in fields(Entry)
}
_MOST, _MOST_BYTES = 2**31, 2**63
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """One file that is not used, and why."""

    path: str
    """As in `Entry`."""
    code: str
    """Such as `truncated`, `not-an-image`, `permission-denied`, `other-file`."""
    reason: str
    """One sentence with the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A data set as one scan found it."""

    root: Path
    """The absolute folder that the paths start from."""
    class_names: tuple[str, ...]
    """Sorted; a label is an index into it."""
    entries: Entries
    """Sorted by path."""
    left_out: tuple[LeftOut, ...] = ()
    """Sorted by path."""
    duplicates: tuple[tuple[str, ...], ...] = ()
    """Groups of two or more entries' paths with equal bytes."""
    near_duplicates: dict[str, Any] = field(default_factory=dict)
    """`bits`, `pairs`, `across_splits`, `complete`, `examples`; empty if not looked for."""
    warnings: tuple[str, ...] = ()
    """One line each."""
    split_rule: dict[str, Any] = field(default_factory=dict)
    """`rule`, `seed`, `val_fraction`, `test_fraction`, and `folders`: splits taken as found."""

    @property
    def sha256(self) -> str:
        """SHA-256 of class names and entries; moving the whole folder keeps it."""
        return _hash(self.class_names, self.entries)

    def of_split(self, name: Split) -> Entries:
        """Return the entries of one split, sorted by path."""
        if name not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {name!r}")
        return self.entries.of_split(name)

    def path_of(self, entry: Entry) -> Path:
        """Return the file of an entry."""
        return self.root / entry.path

    def counts(self) -> list[dict[Split, int]]:
        """Return the number of images per split for each class, in the order of the labels."""
        counts: list[dict[Split, int]] = [dict.fromkeys(SPLITS, 0) for _ in self.class_names]
        for label, split in zip(self.entries.labels(), self.entries.splits(), strict=True):
            counts[label][split] += 1
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return the keys of `manifest.json`."""
        value = self._to_rows()
        return value | {name: list(value[name].make()) for name in ("entries", "left_out")}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the manifest that `to_json` gave.

        Raises:
            ArtifactError: It is of a newer schema (E404), not a manifest (E406), or its entries
                do not give its hash (E413).
        """
        try:
            if value["schema"] > SCHEMA:
                message = f"manifest schema {value['schema']}, this version reads <= {SCHEMA}"
                raise ArtifactError("E404", message, fix="update mnv2tl")
            class_names = tuple(value["class_names"])
            if not all(isinstance(name, str) for name in class_names):
                raise TypeError("class_names must be text")
            manifest = cls(
                root=Path(value["root"]),
                class_names=class_names,
                entries=Entries(_read_entry(each, len(class_names)) for each in value["entries"]),
                left_out=tuple(LeftOut(**left_out) for left_out in value["left_out"]),
                duplicates=tuple(tuple(group) for group in value["duplicates"]),
                near_duplicates=dict(value["near_duplicates"]),
                warnings=tuple(value["warnings"]),
                split_rule=dict(value["split_rule"]),
            )
            expected = value["sha256"]
            found = manifest.sha256
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"not a manifest of mnv2tl ({type(error).__name__}: {str(error)!a})"
            raise ArtifactError("E406", message) from error
        if found != expected:
            message = f"its entries give the hash {found[:12]}, it names {ascii(expected)[1:13]}"
            raise ArtifactError("E413", message)
        return manifest

    def save(self, path: Path) -> None:
        """Write the manifest as JSON, whole or not at all."""
        store.write_sealed_json(path, self._to_rows())

    def _to_rows(self) -> dict[str, Any]:
        value = {each.name: getattr(self, each.name) for each in fields(self)}
        value["root"] = os.fspath(self.root)
        value["entries"] = Rows(self.entries.to_dicts)
        value["left_out"] = Rows(lambda: map(asdict, self.left_out))
        value["schema"] = SCHEMA
        value["sha256"] = self.sha256
        return value

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a manifest that `save` wrote.

        Raises:
            DataError: There is no such file (E300).
            ArtifactError: See `from_json`, or anything else in it has changed (E413); the message
                names the file.
        """
        try:
            return cls.from_json(store.read_sealed_json(path))
        except OSError as error:
            raise DataError("E300", f"no manifest: {error.strerror}", path=path) from error
        except (ValueError, RecursionError) as error:
            raise ArtifactError("E406", "not JSON", path=path) from error
        except ArtifactError as error:
            raise ArtifactError(error.code, error.message, path=path, fix=error.fix) from error


def changes(
    old: Manifest, new: Manifest
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Compare two scans of a data set by path.

    Returns:
        The paths that were added, those that were removed, and those whose bytes, class or split
        changed; each sorted.
    """
    before, after = (
        {entry.path: _identity(each, entry) for entry in each.entries} for each in (old, new)
    )
    return (
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(sorted(path for path in before.keys() & after if before[path] != after[path])),
    )


def _hash(class_names: Sequence[str], entries: Entries) -> str:
    """Return the SHA-256 of the JSON of both."""
    digest = hashlib.sha256()
    for piece in iter_json({"class_names": class_names, "entries": Rows(entries.to_dicts)}):
        digest.update(piece.encode("ascii"))
    return digest.hexdigest()


def _identity(manifest: Manifest, entry: Entry) -> tuple[str, str, str]:
    return entry.sha256, manifest.class_names[entry.label], entry.split


def _read_entry(value: Any, classes: int) -> Entry:
    """Return an entry of a JSON file, whose types and ranges nobody has checked."""
    entry = Entry(**value)
    for name, kind in _TYPES.items():
        if type(getattr(entry, name)) is not kind:
            raise TypeError(f"{entry.path!r}: {name} is not {kind.__name__}")
    is_pixels = 0 <= entry.width < _MOST and 0 <= entry.height < _MOST
    if not is_pixels or not 0 <= entry.bytes < _MOST_BYTES:
        raise ValueError(f"{entry.path!r}: width, height or bytes out of range")
    if entry.split not in SPLITS or not 0 <= entry.label < classes:
        raise ValueError(f"{entry.path!r}: split or label out of range")
    is_path = "\0" not in entry.path and not PurePosixPath(entry.path).is_absolute()
    if not is_path or not _SHA256.fullmatch(entry.sha256):
        raise ValueError(f"{entry.path!r}: path or hash out of range")
    return entry
