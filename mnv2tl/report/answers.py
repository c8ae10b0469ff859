"""What a run's best checkpoint answers on images, with all that the report shows of each.

The features come through the quickest runtime that is installed, as in training, and the rest is
NumPy: no Keras is needed, and every backend's run is read the same way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mnv2tl.backend import choose_backend, use_backend
from mnv2tl.checkpoint import Run
from mnv2tl.data import images
from mnv2tl.data.entries import Entry
from mnv2tl.data.images import UnreadableImageError
from mnv2tl.errors import DataError
from mnv2tl.metrics import softmax
from mnv2tl.mobilenet import DENSE, list_layers
from mnv2tl.parallel import map_ordered
from mnv2tl.progress import show_bar
from mnv2tl.report.gradcam import class_maps
from mnv2tl.report.thumbnails import encode, shrink
from mnv2tl.store import sha256_bytes
from mnv2tl.trunk import CHUNK_IMAGES, Trunk, choose_runtime, open_trunk

Lost = tuple[str, str]
"""Path of an image that cannot be read any more, and why."""

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A whole network, cut behind its last feature map."""

    trunk: Trunk
    """Pixels (n, px, px, 3) to the last feature map (n, height, width, channels)."""
    kernel: NDArray[np.float32]
    """Of the Dense layer, shape (channels, classes)."""
    bias: NDArray[np.float32]
    """Of the Dense layer, shape (classes,)."""
    temperature: float
    """What the run divides logits by."""
    class_names: tuple[str, ...]
    """Names of the classes, in the order of the labels."""

    @classmethod
    def open(cls, run: Run, *, runtime: str = "auto") -> Self:
        """Open a run's best checkpoint.

        Args:
            run: A finished run.
            runtime: A name that `trunk.choose_runtime` knows.

        Raises:
            ArtifactError: The checkpoint is refused.
            MachineError: The runtime is not installed (E508).
        """
        arrays, config = run.read_arrays(), run.info["config"]
        layers = list_layers(alpha=config["alpha"], image_px=config["image_px"])
        name = choose_runtime(runtime)
        if name == "keras":
            use_backend(choose_backend())
        trunk = open_trunk(
            layers[:-1],
            arrays,
            scaling=config["scaling"],
            runtime=name,
            image_px=config["image_px"],
        )
        return cls(
            trunk=trunk,
            kernel=arrays[f"{DENSE}/kernel"],
            bias=arrays[f"{DENSE}/bias"],
            temperature=run.info["temperature"],
            class_names=run.class_names,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the network answers on the images of one split."""

    entries: tuple[Entry, ...]
    """The images that could be read, at least one."""
    logits: NDArray[np.float32]
    """Shape (n, classes)."""
    pooled: NDArray[np.float32]
    """Features after pooling, shape (n, channels)."""
    predicted_maps: NDArray[np.float32]
    """Grad-CAM of the predicted class, shape (n, height, width)."""
    true_maps: NDArray[np.float32]
    """Grad-CAM of the true class, shape (n, height, width)."""
    thumbnails: tuple[bytes, ...]
    """One small WebP file per image."""
    lost: tuple[Lost, ...]
    """Images that could not be read."""
    temperature: float
    """What logits are divided by."""
    class_names: tuple[str, ...]
    """Names of the classes, in the order of the labels."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """True classes, shape (n,)."""
        return np.array([entry.label for entry in self.entries], np.int64)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Most likely classes, shape (n,)."""
        return np.asarray(self.logits.argmax(axis=1), np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probabilities after the temperature, shape (n, classes)."""
        return softmax(self.logits, temperature=self.temperature)


def ask(
    network: Network, entries: Sequence[Entry], root: Path, *, image_px: int, max_pixels: int
) -> Answers:
    """Read images and return what the network answers.

    Args:
        network: The run's.
        entries: Images of one split, at least one.
        root: Folder that their paths start from.
        image_px: Side of the network's input.
        max_pixels: Largest image that is decoded.

    Raises:
        DataError: None of them can be read (E309).
    """
    load = functools.partial(_load, root=root, image_px=image_px, max_pixels=max_pixels)
    kept: list[Entry] = []
    lost: list[Lost] = []
    thumbnails: list[bytes] = []
    parts: list[tuple[NDArray[np.float32], ...]] = []
    for chunk in _read(load, entries, lost, description="report"):
        batch, loaded = zip(*chunk, strict=True)
        pixels, small = zip(*loaded, strict=True)
        kept += batch
        thumbnails += small
        labels = np.array([entry.label for entry in batch])
        parts.append(_answer(network, np.stack(pixels), labels))
    if not kept:
        raise _all_lost(lost, root)
    logits, pooled, predicted_maps, true_maps = (
        np.concatenate(each) for each in zip(*parts, strict=True)
    )
    return Answers(
        entries=tuple(kept),
        logits=logits,
        pooled=pooled,
        predicted_maps=predicted_maps,
        true_maps=true_maps,
        thumbnails=tuple(thumbnails),
        lost=tuple(lost),
        temperature=network.temperature,
        class_names=network.class_names,
    )


def predict(
    network: Network, entries: Sequence[Entry], root: Path, *, image_px: int, max_pixels: int
) -> dict[str, str]:
    """Return SHA-256 -> name of the most likely class, of those images that can be read.

    Args:
        network: The run's.
        entries: Images, at least one.
        root: Folder that their paths start from.
        image_px: Side of the network's input.
        max_pixels: Largest image that is decoded.

    Raises:
        DataError: None of them can be read (E309).
    """

    def load(entry: Entry) -> NDArray[np.uint8] | UnreadableImageError:
        try:
            return images.resize(_decode(entry, root, max_pixels), image_px)
        except UnreadableImageError as error:
            return error

    lost: list[Lost] = []
    answers: dict[str, str] = {}
    for chunk in _read(load, entries, lost, description="compare"):
        batch, pixels = zip(*chunk, strict=True)
        features = network.trunk.run_in_threads(np.stack(pixels))  # (n, h, w, channels)
        logits = features.mean(axis=(1, 2)) @ network.kernel + network.bias  # (n, classes)
        for entry, label in zip(batch, logits.argmax(axis=1), strict=True):
            answers[entry.sha256] = network.class_names[label]
    if not answers:
        raise _all_lost(lost, root)
    return answers


def read_thumbnails(
    entries: Sequence[Entry], root: Path, *, max_pixels: int
) -> dict[str, bytes | None]:
    """Return path -> small WebP file of images; None for one that cannot be read any more."""

    def make(entry: Entry) -> bytes | None:
        try:
            return encode(shrink(_decode(entry, root, max_pixels)))
        except UnreadableImageError:
            return None

    thumbnails = {}
    with show_bar("thumbnails", total=len(entries)) as advance:
        for entry, small in zip(entries, map_ordered(make, entries), strict=True):
            thumbnails[entry.path] = small
            advance(1)
    return thumbnails


def _read(
    load: Callable[[Entry], Loaded | UnreadableImageError],
    entries: Sequence[Entry],
    lost: list[Lost],
    *,
    description: str,
) -> Iterator[list[tuple[Entry, Loaded]]]:
    """Yield a few images at a time with what `load` gives; append to `lost` where it fails."""
    with show_bar(description, total=len(entries)) as advance:
        for start in range(0, len(entries), CHUNK_IMAGES):
            chunk = entries[start : start + CHUNK_IMAGES]
            read = []
            for entry, each in zip(chunk, map_ordered(load, chunk), strict=True):
                if isinstance(each, UnreadableImageError):
                    lost.append((entry.path, each.message))
                else:
                    read.append((entry, each))
            if read:
                yield read
            advance(len(chunk))


def _all_lost(lost: Sequence[Lost], root: Path) -> DataError:
    path, message = lost[0]
    return DataError("E309", message, path=root / path, fix="give the folder by --data")


def _answer(
    network: Network, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float32], ...]:
    """Return logits, pooled features, and the maps of the predicted and of the true class."""
    features = network.trunk.run_in_threads(pixels)  # (n, h, w, channels)
    pooled = features.mean(axis=(1, 2))  # (n, channels)
    logits = pooled @ network.kernel + network.bias  # (n, classes)
    predicted = logits.argmax(axis=1)
    maps = (class_maps(features, network.kernel, each) for each in (predicted, labels))
    return (logits, pooled, *maps)


def _load(
    entry: Entry, *, root: Path, image_px: int, max_pixels: int
) -> tuple[NDArray[np.uint8], bytes] | UnreadableImageError:
    """Return the network's pixels of an image and its thumbnail, or why it cannot be read."""
    try:
        pixels = _decode(entry, root, max_pixels)
    except UnreadableImageError as error:
        return error
    return images.resize(pixels, image_px), encode(shrink(pixels))


def _decode(entry: Entry, root: Path, max_pixels: int) -> NDArray[np.uint8]:
    content = images.read_bytes(root / entry.path)
    if sha256_bytes(content) != entry.sha256:
        raise UnreadableImageError("changed", "the file changed since it was scanned")
    return images.decode(content, max_pixels=max_pixels).pixels
