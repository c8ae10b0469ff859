"""Write and open a SavedModel, which TensorFlow does in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store
from mnv2tl.errors import ArtifactError, MachineError, install_extra
from mnv2tl.progress import show_step
from mnv2tl_export.child import Child, ChildEndedError, Message
from mnv2tl_export.defaults import BATCH_SIZE
from mnv2tl_export.gate import Candidate
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.model import Model
from mnv2tl_export.saved_model_file import METADATA, VERSION, read_saved_model

__all__ = [
    "VERSION",
    "SavedModel",
    "ask_child",
    "open_candidate",
    "open_child",
    "write_saved_model",
]

_CHILD = "mnv2tl_export.saved_model_child"
_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
_EXTRA = "savedmodel"
_KILLED = -9


def write_saved_model(
    arrays: Mapping[str, NDArray[np.float32]],
    folder: Path,
    *,
    alpha: float,
    image_px: int,
    scaling: str,
    temperature: float | None,
    metadata: Metadata,
) -> None:
    """Write a trained network as a SavedModel, equal for equal networks and versions.

    Its signature `serving_default` takes `image`, uint8 (N, H, W, 3), any N, H and W, pixels from
    0 to 255, and gives `probabilities`, float32 (N, classes), rows summing to 1.

    Args:
        arrays: All weights, keyed `layer/name`, as `Run.read_arrays` gives them.
        folder: The version's folder, new or empty.
        alpha: Width of the network.
        image_px: Side that pictures are resized to, in pixels.
        scaling: A key of `mnv2tl.scaling.SCALINGS`.
        temperature: Logits are divided by it; None leaves the division out.
        metadata: Goes beside the graph.

    Raises:
        MachineError: TensorFlow is not installed or does not work (E508), memory is too small
            (E505), or the folder cannot be written (E501 to E503).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise store.machine_error(error, folder) from error
    # A process that has made no other graph, since TensorFlow counts them in their names.
    with open_child() as child:
        network = {"alpha": alpha, "image_px": image_px, "scaling": scaling}
        ask_child(
            child,
            "write",
            arrays=arrays,
            folder=os.path.abspath(folder),
            network=network,
            temperature=temperature,
        )
    _flush(folder)
    store.write_json(folder / METADATA, metadata.to_texts())


@contextlib.contextmanager
def open_candidate(folder: Path, metadata: Metadata) -> Iterator[Candidate]:
    """Give a SavedModel that was just written to the gate, until the block ends.

    Args:
        folder: Where `write_saved_model` put it.
        metadata: What it was given.

    Raises:
        ArtifactError: TensorFlow cannot load it (E412).
        MachineError: As for `write_saved_model`.
    """
    with open_child() as child:
        with show_step("starting TensorFlow"):
            ask_child(child, "open", folder=os.path.abspath(folder))
        yield Candidate(
            format=metadata.artifact["format"],
            predict=functools.partial(_answer, child, "predict"),
            logits=functools.partial(_answer, child, "logits"),
            resize=functools.partial(_answer, child, "resize"),
            selftest=metadata.selftest,
        )


class SavedModel(Model):
    """A SavedModel of ours in its bundle, opened once and asked often.

    What was judged is copied, and loaded from there.

    Args:
        path: `saved_model` or `saved_model/1` in a bundle.
        batch_size: Pictures that are asked about together.

    Raises:
        ArtifactError: It is refused; see `saved_model_file.read_saved_model`; or TensorFlow
            cannot load it (E412).
        MachineError: TensorFlow is not installed (E508), or the copy cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, batch_size: int = BATCH_SIZE) -> None:
        sealed = read_saved_model(Path(path))
        super().__init__(sealed.folder.parent, sealed.metadata, batch_size=batch_size)
        self._child = open_child()
        try:
            with tempfile.TemporaryDirectory(prefix="mnv2tl-") as copy:
                for name, content in sealed.files.items():
                    store.write_bytes(Path(copy, name), content, durable=False)
                with show_step("starting TensorFlow"):
                    self._ask("open", folder=copy)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process that TensorFlow runs in."""
        self._child.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        return self._ask("predict", arrays={"pixels": pixels}).arrays["answer"]

    def _ask(self, what: str, **question: Any) -> Message:
        try:
            return ask_child(self._child, what, **question)
        except ArtifactError as error:
            raise ArtifactError(error.code, error.message, path=self.path) from error


def open_child() -> Child:
    """Start the process that TensorFlow runs in.

    Raises:
        MachineError: TensorFlow is not installed (E508).
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise MachineError("E508", "tensorflow is not installed", fix=install_extra(_EXTRA))
    return Child(_CHILD, env=_ENVIRONMENT)


def ask_child(child: Child, what: str, **question: Any) -> Message:
    """Ask that process; see `Child.ask`.

    Raises:
        MachineError: It was killed, most likely for its memory (E505), or ended otherwise (E508).
        Mnv2tlError: It answered with one.
    """
    try:
        return child.ask(what, **question)
    except ChildEndedError as error:
        words = f"TensorFlow failed at {what!r}: {error}"
        if error.returncode == _KILLED:
            fix = "let it have more memory"
            raise MachineError("E505", words, fix=fix) from error
        raise MachineError("E508", words, fix=install_extra(_EXTRA)) from error


def _answer(child: Child, what: str, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    return ask_child(child, what, arrays={"pixels": pixels}).arrays["answer"]


def _flush(folder: Path) -> None:
    """Flush all files of a folder to the disk; TensorFlow does not."""
    try:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                store.sync_folder(path)
                continue
            with path.open("r+b") as file:
                os.fsync(file.fileno())
    except OSError as error:
        raise store.machine_error(error, folder) from error
