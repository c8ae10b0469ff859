"""Run an ONNX file that mnv2tl did not export: in another process, with little memory.

It is judged like a file of ours first: nothing outside of the file, and no sub-graph at all. What
it makes of pixels is its own affair; nothing here vouches for its answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data import images
from mnv2tl.errors import ArtifactError, Mnv2tlError, ResultError
from mnv2tl.parallel import map_ordered
from mnv2tl_export.child import Child, ChildEndedError, Message
from mnv2tl_export.defaults import BATCH_SIZE
from mnv2tl_export.model import Item, Other, answer_in_batches
from mnv2tl_export.onnx_file import ForeignFile, read_foreign

MEMORY_BYTES = 4 * 2**30
"""Address space of the process; onnxruntime alone takes about one GiB of it."""
DEFAULT_PX = 224
_MAX_NAMES_BYTES = 2**20
_MAX_PX = 4096


class ForeignClassifier:
    """A foreign model, opened once and asked often; close it, or use it as a context.

    Args:
        path: An .onnx file from pixels uint8 (N, H, W, 3) to float32 (N, classes).
        class_names: Names of the classes, in the order of its answers.
        batch_size: Pictures that are asked about together.
        threads: Threads of one computation; None for one per core.

    Raises:
        ArtifactError: The file is refused (E410, E412).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        class_names: Sequence[str],
        *,
        batch_size: int = BATCH_SIZE,
        threads: int | None = None,
    ) -> None:
        file = read_foreign(Path(path), classes=len(class_names))
        self.class_names = tuple(class_names)
        self.batch_size = batch_size if file.batch is None else file.batch
        self._is_fixed = file.batch is not None
        self.image_px = _choose_px(file)
        self._path = file.path
        self._child = Child("mnv2tl_export.onnx_child", memory_bytes=MEMORY_BYTES)
        content = np.frombuffer(file.content, np.uint8)
        try:
            self._ask("open", content=content, threads=threads)
        except BaseException:
            self.close()
            raise

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the answers to pixels (px, px, 3), as Pillow resized them; shape (n, classes).

        Raises:
            ArtifactError: The model cannot be run, or takes more than `MEMORY_BYTES` (E412).
            ResultError: An answer is not finite (E602).
        """
        loaded = (images.resize(each, self.image_px) for each in pictures)
        rows = list(answer_in_batches(self._predict, loaded, batch_size=self.batch_size))
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), np.float32)

    def answer_all(
        self, load: Callable[[Item], NDArray[np.uint8] | Other], items: Sequence[Item]
    ) -> Iterator[NDArray[np.float32] | Other]:
        """Yield the answers to many pictures in order; see `Model.answer_all`."""
        loaded = map_ordered(load, items)
        return answer_in_batches(self._predict, loaded, batch_size=self.batch_size)

    def _predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = len(pixels)
        if self._is_fixed:  # the rest is answered too, and left out
            pixels = np.resize(pixels, (self.batch_size, *pixels.shape[1:]))
        found = self._ask("predict", pixels=pixels).arrays["answers"]
        if found.shape != (len(pixels), len(self.class_names)):
            message = f"it gives an output of shape {found.shape}"
            raise ArtifactError("E412", message, path=self._path)
        found = found[:count]
        if not np.isfinite(found).all():
            raise ResultError("E602", "an answer is not finite", path=self._path)
        return found

    def close(self) -> None:
        """End the process."""
        self._child.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def _ask(
        self, what: str, *, threads: int | None = None, **arrays: NDArray[np.uint8]
    ) -> Message:
        try:
            return self._child.ask(what, arrays=arrays, threads=threads)
        except ChildEndedError as error:
            message = f"the process that ran it, in at most {MEMORY_BYTES >> 30} GiB, ended with "
            message += f"{error.returncode}: {error.last_words}"
            raise ArtifactError("E412", message, path=self._path) from error
        except Mnv2tlError as error:
            raise ArtifactError("E412", error.message, path=self._path) from error


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names in a text file, UTF-8, one a line.

    Raises:
        ArtifactError: It cannot be read, or holds no names (E410).
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_NAMES_BYTES)
        names = tuple(line.strip() for line in content.decode("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            "E410", f"not a text file of class names: {error}", path=path
        ) from error
    names = tuple(name for name in names if name)
    if not names:
        raise ArtifactError("E410", "there is no class name", path=path, fix="write one a line")
    return names


def _choose_px(file: ForeignFile) -> int:
    height, width = file.sides_px
    if height != width:
        message = f"it takes pictures of {height} by {width}; only squares are made here"
        raise ArtifactError("E412", message, path=file.path)
    if height is not None and not 1 <= height <= _MAX_PX:
        message = f"it takes pictures of {height} pixels a side, allowed are 1 to {_MAX_PX}"
        raise ArtifactError("E412", message, path=file.path)
    return height or DEFAULT_PX
