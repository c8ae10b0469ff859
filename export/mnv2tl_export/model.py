"""What an opened model is asked, whatever runs it."""

from __future__ import annotations

import abc
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data import images
from mnv2tl.errors import ArtifactError, ResultError
from mnv2tl.parallel import map_ordered
from mnv2tl_export import golden
from mnv2tl_export.golden import SelfTest
from mnv2tl_export.metadata import Metadata

Image = str | os.PathLike[str] | NDArray[np.uint8]
"""A picture: its file, or its pixels, RGB (h, w, 3) from 0 to 255."""

Item = TypeVar("Item")
Other = TypeVar("Other")


class Model(abc.ABC):
    """An exported model, opened once and asked often, from several threads if need be.

    Args:
        path: Where it lies.
        metadata: What travels with it.
        batch_size: Pictures that are asked about together.
    """

    def __init__(self, path: Path, metadata: Metadata, *, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        self.path = path
        self.metadata = metadata
        self.batch_size = batch_size

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.metadata.class_names

    @property
    def image_px(self) -> int:
        """Side that pictures are resized to, in pixels."""
        return self.metadata.image_px

    def __call__(self, pictures: Sequence[Image]) -> NDArray[np.float32]:
        """Return the probabilities of each class for each picture.

        Pillow resizes them, by the same rule as the graph and faster.

        Args:
            pictures: Files or pixels, of any sizes.

        Returns:
            Shape (n, classes), rows summing to 1, classes in the order of `class_names`.

        Raises:
            UnreadableImageError: A file is no picture that can be read.
            ArtifactError: As for `predict_pixels`; ResultError and MachineError too.
            ValueError: Pixels have another type or shape.
        """
        loaded = map(self._resize, pictures)
        rows = list(answer_in_batches(self.predict_pixels, loaded, batch_size=self.batch_size))
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), np.float32)

    def answer_all(
        self, load: Callable[[Item], NDArray[np.uint8] | Other], items: Sequence[Item]
    ) -> Iterator[NDArray[np.float32] | Other]:
        """Yield the probabilities of many pictures in order, in constant memory.

        Args:
            load: Makes pixels of the network's size of an item, shape (px, px, 3); called in
                threads, ahead of what is asked. What else it returns stands in place of an answer.
            items: Name pictures.

        Raises:
            ArtifactError: As for `predict_pixels`; ResultError and MachineError too; and what
                `load` raises, all of it in the place of a row.
        """
        loaded = map_ordered(load, items)
        return answer_in_batches(self.predict_pixels, loaded, batch_size=self.batch_size)

    def predict_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities for pixels (n, h, w, 3) of one size; the graph resizes them.

        Raises:
            ArtifactError: The model cannot be run (E412).
            ResultError: A probability is not finite (E602).
            MachineError: There is too little memory (E505).
        """
        return self._check(self._run(pixels), pixels)

    def _check(
        self, probabilities: NDArray[np.float32], pixels: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        if probabilities.shape != (len(pixels), len(self.class_names)):
            message = f"it gives an output of shape {probabilities.shape}"
            raise ArtifactError("E412", message, path=self.path)
        if not np.isfinite(probabilities).all():
            fix = "export it again, and compare its SHA-256 with bundle.json"
            message = "a probability is not finite"
            raise ResultError("E602", message, path=self.path, fix=fix)
        return probabilities

    def selftest(self) -> SelfTest:
        """Ask about the picture that travels with the model; see `golden.check`.

        Raises:
            ValueError: The picture or its probabilities are damaged.
        """
        return golden.check(self.metadata.selftest, self.predict_pixels, image_px=self.image_px)

    @abc.abstractmethod
    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Return what the model gives for pixels (n, h, w, 3), as it gives it."""

    def _resize(self, picture: Image) -> NDArray[np.uint8]:
        if isinstance(picture, np.ndarray):
            return images.resize(picture, self.image_px)
        return images.read_resized(picture, self.image_px)


def answer_in_batches(
    ask: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    loaded: Iterator[NDArray[np.uint8] | Other],
    *,
    batch_size: int,
) -> Iterator[NDArray[np.float32] | Other]:
    """Yield what `Model.answer_all` does, of something that is asked about several at once.

    Args:
        ask: Gives the rows (n, classes) for pixels (n, px, px, 3).
        loaded: Pixels, or what stands in place of an answer.
        batch_size: How many are asked about together.
    """
    while batch := list(itertools.islice(loaded, batch_size)):
        pixels = [each for each in batch if isinstance(each, np.ndarray)]
        rows = iter(ask(np.stack(pixels)) if pixels else ())
        yield from (next(rows) if isinstance(each, np.ndarray) else each for each in batch)
