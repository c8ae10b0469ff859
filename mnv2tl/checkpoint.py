"""The run folder: what a training leaves behind, and how it is read back.

run/
├── best.keras      the best epoch as stock Keras layers, pixels 0..255 to probabilities
├── run.json        settings, class names, hashes, versions, figures
├── manifest.json   every image with class, split and hash
├── history.csv     one row per epoch
├── curves.png      accuracy and loss
└── state/          what --resume needs
"""

from __future__ import annotations

import contextlib
import csv
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store, weight_file
from mnv2tl.data.manifest import Manifest
from mnv2tl.errors import ArtifactError
from mnv2tl.mobilenet import DENSE, layer_array_shapes, list_layers

if TYPE_CHECKING:
    import keras

SCHEMA = 1
SAVE_PREFIX = "save-"
"""Start of the names of folders in which a checkpoint is being written."""

_COLUMNS = " epoch phase loss accuracy val_loss val_accuracy seconds "
"""Order of the columns of history.csv; others stand before them."""

_START_KEYS = {"schema", "finished", "created", "config", "backend", "class_names", "weights"}
_END_KEYS = {"history", "files", "temperature", "val_accuracy", "val_loss", "best_epoch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder that was read."""

    folder: Path
    """Where it lies."""
    info: Mapping[str, Any]
    """The content of `run.json`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return tuple(self.info["class_names"])

    @property
    def best_path(self) -> Path:
        """The best checkpoint."""
        return self.folder / "best.keras"

    @property
    def manifest(self) -> Manifest:
        """The images that it was trained and validated on.

        Raises:
            ArtifactError: It is damaged (E406), or not the manifest of this run (E413).
        """
        path = self.folder / "manifest.json"
        manifest = Manifest.load(path)
        expected, found = self.info.get("manifest_sha256"), manifest.sha256
        if expected is not None and found != expected:
            message = f"expected the manifest {ascii(expected)[1:13]}, found {found[:12]}"
            raise ArtifactError("E413", message, path=path)
        return manifest

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row per epoch: loss, accuracy, val_loss, val_accuracy, phase, seconds.

        Empty while the training is not finished.
        """
        return list(self.info.get("history", ()))

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return bool(self.info["finished"])

    def read_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights of the best checkpoint, keyed `layer/name`.

        Raises:
            ArtifactError: The run is not finished (E403), or `best.keras` is not the file that
                `run.json` names (E413) or cannot be read.
        """
        if not self.is_finished:
            fix = "finish it with mnv2tl train --resume"
            raise ArtifactError("E403", "the training is not finished", path=self.folder, fix=fix)
        content = weight_file.read_content(self.best_path)
        expected, found = self.info["files"]["best.keras"], store.sha256_bytes(content)
        if found != expected:
            message = f"expected SHA-256 {expected[:12]}, found {found[:12]}"
            raise ArtifactError("E413", message, path=self.best_path)
        shapes = full_shapes(
            alpha=self.info["config"]["alpha"],
            image_px=self.info["config"]["image_px"],
            classes=len(self.class_names),
        )
        return weight_file.read_arrays(content, shapes, path=self.best_path)


def load_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        ArtifactError: It is no run folder (E410), of a newer schema (E404), damaged (E412), or
            run.json has changed since it was written (E413).
    """
    path = folder / "run.json"
    try:
        info = store.read_sealed_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        message = "unsupported model type; use a run folder, which holds run.json"
        raise ArtifactError("E410", message, path=folder) from error
    except OSError as error:
        raise store.machine_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError("E412", "not JSON", path=path) from error
    if not isinstance(info, dict) or not isinstance(info.get("schema"), int):
        raise ArtifactError("E412", "not a run.json of mnv2tl", path=path)
    if info["schema"] > SCHEMA:
        message = f"schema {info['schema']}, this version reads <= {SCHEMA}"
        raise ArtifactError("E404", message, path=path, fix="update mnv2tl")
    missing = _START_KEYS - info.keys()
    if info.get("finished"):
        missing |= _END_KEYS - info.keys()
    if missing:
        message = f"not a run.json of mnv2tl: it lacks {', '.join(sorted(missing))}"
        raise ArtifactError("E412", message, path=path)
    names = info["class_names"]
    are_names = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not are_names or not isinstance(info["config"], dict):
        message = "not a run.json of mnv2tl: class_names must be a list of texts, config an object"
        raise ArtifactError("E412", message, path=path)
    return Run(folder=folder, info=info)


def full_shapes(*, alpha: float, image_px: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a whole model with its Dense layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    layers = list_layers(alpha=alpha, image_px=image_px)
    for layer in layers:
        shapes |= layer_array_shapes(layer)
    dense = {f"{DENSE}/kernel": (layers[-1].channels, classes), f"{DENSE}/bias": (classes,)}
    return shapes | dense


def write_keras(model: keras.Model, path: Path) -> str:
    """Write a Keras model whole or not at all; return the file's SHA-256.

    `model.save` itself writes on the final name and flushes nothing.

    Raises:
        MachineError: The disk is full (E501), fails (E502) or is read-only (E503).
    """
    try:
        with tempfile.TemporaryDirectory(prefix=SAVE_PREFIX, dir=path.parent) as folder:
            part = Path(folder) / path.name
            with _without_tensorflow(), _temporary_files_in(folder):
                model.save(part)
            content = part.read_bytes()
    except OSError as error:
        raise store.machine_error(error, path) from error
    store.write_bytes(path, content)
    return store.sha256_bytes(content)


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Let Keras pack in this folder: the system's temporary one may be full, and this one is not.

    Keras makes a folder wherever `tempfile` says (saving/saving_lib.py, 3.15.1).
    """
    former, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = former


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    """Let Keras save without importing TensorFlow, unless the process has it already.

    On JAX too, Keras asks of every object whether it is one of TensorFlow's, and imports TensorFlow
    for the question where it is installed: 10 s (saving/serialization_lib.py, 3.15.1).
    """
    lazy_modules = sys.modules.get("keras.src.utils.module_utils")
    tensorflow = getattr(lazy_modules, "tensorflow", None)
    if tensorflow is None or "tensorflow" in sys.modules:
        yield
        return
    known = tensorflow.__dict__.get("_available")  # None: not yet asked for
    tensorflow._available = False
    try:
        yield
    finally:
        tensorflow._available = known


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the history as CSV with a header line.

    Args:
        path: Where it goes.
        rows: At least one, with equal keys in any order: those of a resumed training come in part
            from `state.json`, which sorts them.
    """
    text = io.StringIO()
    names = sorted(rows[0], key=lambda name: (_COLUMNS.find(f" {name} "), name))
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    store.write_bytes(path, text.getvalue().encode("ascii"))
