"""Judge a SavedModel before TensorFlow sees it: ours, and as bundle.json names it.

A SavedModel is a program that may read and write files, so that a foreign one is never loaded.

saved_model/                      what TensorFlow Serving is given
└── 1/                            its version
    ├── saved_model.pb            the graph and its weights
    ├── variables/                what TensorFlow expects there; no weights
    └── assets.extra/mnv2tl.json  metadata
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mnv2tl import store
from mnv2tl.errors import ArtifactError
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_file import suggest_model

VERSION = "1"
"""Name of the folder that TensorFlow Serving takes for the version."""

GRAPH = "saved_model.pb"
METADATA = "assets.extra/mnv2tl.json"
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModelFiles:
    """A SavedModel of ours that may be run."""

    folder: Path
    """Where it lies, down to the version."""
    files: Mapping[str, bytes]
    """Path below the folder -> content, the same that was judged."""
    metadata: Metadata
    """What travels with it."""


def read_saved_model(path: Path) -> SavedModelFiles:
    """Read and judge a SavedModel; each of its files must be the sealed one.

    Args:
        path: `saved_model` or `saved_model/1` in a bundle.

    Raises:
        ArtifactError: It is no SavedModel (E410), has no metadata of ours (E411), of a newer
            schema (E404) or damaged ones (E412), is larger than `MAX_BYTES` (E412), or has files
            that bundle.json does not name, or names otherwise (E413).
    """
    folder = find_folder(path)
    if folder is None:
        raise ArtifactError("E410", "no SavedModel", path=path, fix=suggest_model(path))
    files = _read_files(folder)
    if METADATA not in files:
        fix = "use a SavedModel that mnv2tl export wrote"
        raise ArtifactError("E411", f"it has no {METADATA}", path=folder, fix=fix)
    _check_seal(folder, files)
    return SavedModelFiles(folder=folder, files=files, metadata=_read_metadata(files, folder))


def find_folder(path: Path) -> Path | None:
    """Return the version's folder of a path like `saved_model` or `saved_model/1`, else None."""
    place = Path(os.path.abspath(path))
    return next((each for each in (place, place / VERSION) if (each / GRAPH).is_file()), None)


def _check_seal(folder: Path, files: Mapping[str, bytes]) -> None:
    expected = _read_seal(folder)
    for name in sorted(expected.keys() | files.keys()):
        digest = store.sha256_bytes(files[name]) if name in files else None
        if digest != expected.get(name):
            named, found = (
                "no such file" if each is None else ascii(each)[1:13]
                for each in (expected.get(name), digest)
            )
            message = f"expected SHA-256 {named}, found {found}"
            raise ArtifactError("E413", message, path=folder / name)


def _read_files(folder: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    rest = MAX_BYTES
    try:
        for path in sorted(folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            if path.is_symlink() or not path.is_file():
                raise ArtifactError("E413", "a link or no regular file", path=path)
            with path.open("rb") as file:
                content = file.read(rest + 1)
            rest -= len(content)
            if rest < 0:
                raise ArtifactError("E412", f"larger than {MAX_BYTES:,} bytes", path=folder)
            files[path.relative_to(folder).as_posix()] = content
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ArtifactError("E412", message, path=folder) from error
    return files


def _read_seal(folder: Path) -> dict[str, str]:
    """Return the name of each file below a version's folder -> SHA-256, as bundle.json has them."""
    bundle = folder.parent.parent
    prefix = f"{folder.relative_to(bundle).as_posix()}/"
    seal = bundle / "bundle.json"
    try:
        named = store.read_sealed_json(seal)["files"]
        return {
            name.removeprefix(prefix): str(file["sha256"])
            for name, file in named.items()
            if name.startswith(prefix)
        }
    except OSError as error:
        fix = "leave it in its bundle: a foreign SavedModel is never loaded"
        raise ArtifactError("E413", "no bundle.json names its files", path=seal, fix=fix) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError("E413", "not a bundle.json of mnv2tl", path=seal) from error


def _read_metadata(files: Mapping[str, bytes], folder: Path) -> Metadata:
    path = folder / METADATA
    try:
        texts = json.loads(files[METADATA])
        return Metadata.from_texts({str(key): str(text) for key, text in texts.items()})
    except ArtifactError as error:
        raise ArtifactError(error.code, error.message, path=path, fix=error.fix) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise ArtifactError("E412", "damaged metadata", path=path) from error
