"""Ask Keras and an artifact about the same images, from their files.

Keras is asked once; each artifact is then held against its answers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl.data.entries import Entry
from mnv2tl.errors import DataError
from mnv2tl.metrics import softmax
from mnv2tl.parallel import map_ordered
from mnv2tl.progress import show_bar
from mnv2tl_export import golden
from mnv2tl_export.parity import Floats, Measured

CHUNK_IMAGES = 16
_BATCH_SIZES = (1, 2, 16)
# For each size: whole batches and an odd rest.
_BATCH_IMAGES = 19

Ask = Callable[[NDArray[np.uint8]], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An artifact, opened from the file that will be published."""

    format: str
    """Such as `onnx`."""
    predict: Ask
    """From pixels (n, h, w, 3) of any size to probabilities (n, classes)."""
    logits: Ask | None
    """The same to logits, before temperature and softmax; None if they cannot be reached."""
    resize: Ask
    """The same to what the graph makes of them, levels 0 to 255, shape (n, px, px, 3)."""
    selftest: Mapping[str, Any]
    """As in its metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Validation images, and how they are read."""

    entries: Sequence[Entry]
    """At least one."""
    root: Path
    """Folder that their paths start from."""
    image_px: int
    """Side that they are resized to, in pixels."""
    max_pixels: int = images.MAX_PIXELS
    """Largest image that is decoded."""

    def load(self, entry: Entry) -> NDArray[np.uint8]:
        """Return the pixels of an image in its own size.

        Raises:
            DataError: It cannot be read, or is no longer the file of the manifest (E309).
        """
        path = self.root / entry.path
        try:
            content = images.read_bytes(path)
            if store.sha256_bytes(content) != entry.sha256:
                raise images.UnreadableImageError("changed", "it changed since the training")
            return images.decode(content, max_pixels=self.max_pixels).pixels
        except images.UnreadableImageError as error:
            fix = "give the folder of the training as --data"
            raise DataError("E309", str(error), path=path, fix=fix) from error

    def load_resized(self, entry: Entry) -> NDArray[np.uint8]:
        """Return the pixels of an image as Pillow resizes them, shape (px, px, 3)."""
        return images.resize(self.load(entry), self.image_px)

    def resized_chunks(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the resized images in order, a few at a time, shape (n, px, px, 3)."""
        for start in range(0, len(self.entries), CHUNK_IMAGES):
            chunk = self.entries[start : start + CHUNK_IMAGES]
            yield np.stack(list(map_ordered(self.load_resized, chunk)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One image: Pillow's pixels, and the artifact's answers on its own road from the file."""

    pixels: NDArray[np.uint8]
    pixel_mean: float
    pixel_max: float
    from_file: Floats


def ask_reference(reference: Ask, pictures: Pictures) -> Floats:
    """Return what Keras answers to all images, logits of shape (n, classes).

    Args:
        reference: From pixels (n, px, px, 3) to logits (n, classes).
        pictures: The images.

    Raises:
        DataError: An image is missing, cannot be read or has changed (E309).
    """
    answers = []
    with show_bar("gate: Keras", total=len(pictures.entries)) as advance:
        for pixels in pictures.resized_chunks():
            answers.append(reference(pixels))
            advance(len(pixels))
    return np.concatenate(answers)


def measure(
    candidate: Candidate, expected: Floats, pictures: Pictures, *, temperature: float
) -> Measured:
    """Return what an artifact answers beside Keras; decoded pictures are held one per thread.

    Args:
        candidate: The artifact.
        expected: Logits of Keras, shape (n, classes).
        pictures: The images.
        temperature: Keras' logits are divided by it; 1 if the artifact leaves it out.

    Raises:
        DataError: An image is missing, cannot be read or has changed (E309).
    """
    rows, on_pixels, logits = [], [], []
    first: list[NDArray[np.uint8]] = []
    with show_bar(f"gate: {candidate.format}", total=len(pictures.entries)) as advance:
        for chunk in _chunks(candidate, pictures):
            pixels = np.stack([row.pixels for row in chunk])
            on_pixels.append(candidate.predict(pixels))
            if candidate.logits is not None:
                logits.append(candidate.logits(pixels))
            first += list(pixels[: _BATCH_IMAGES - len(first)])
            rows += [(row.pixel_mean, row.pixel_max, row.from_file) for row in chunk]
            advance(len(chunk))
    means, maxima, from_files = zip(*rows, strict=True)
    return Measured(
        entries=pictures.entries,
        expected=softmax(expected, temperature=temperature),
        on_pixels=np.concatenate(on_pixels),
        from_files=np.stack(from_files),
        logit_diffs=np.abs(np.concatenate(logits) - expected).max(axis=1) if logits else None,
        pixel_means=np.array(means),
        pixel_maxima=np.array(maxima),
        batch_diff=_compare_batches(candidate.predict, _repeat(first)),
        selftest=golden.check(candidate.selftest, candidate.predict, image_px=pictures.image_px),
    )


def _chunks(candidate: Candidate, pictures: Pictures) -> Iterator[list[_Row]]:
    look = functools.partial(_look, candidate, pictures)
    for start in range(0, len(pictures.entries), CHUNK_IMAGES):
        yield list(map_ordered(look, pictures.entries[start : start + CHUNK_IMAGES]))


def _look(candidate: Candidate, pictures: Pictures, entry: Entry) -> _Row:
    picture = pictures.load(entry)
    pixels = images.resize(picture, pictures.image_px)
    batch = picture[np.newaxis]
    difference = np.abs(candidate.resize(batch)[0].astype(np.float64) - pixels)
    return _Row(
        pixels=pixels,
        pixel_mean=float(difference.mean()),
        pixel_max=float(difference.max()),
        from_file=candidate.predict(batch)[0],
    )


def _repeat(pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return `_BATCH_IMAGES` images, repeated where there are fewer."""
    return np.resize(np.stack(pixels), (_BATCH_IMAGES, *pixels[0].shape))


def _compare_batches(predict: Ask, pixels: NDArray[np.uint8]) -> float:
    """Return the largest difference of a probability when the same images come in other batches."""
    answers = [
        np.concatenate([predict(pixels[i : i + size]) for i in range(0, len(pixels), size)])
        for size in (*_BATCH_SIZES, len(pixels))
    ]
    return float(np.max([np.abs(each - answers[-1]).max() for each in answers]))
