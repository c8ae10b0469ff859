"""Measure a checkpoint from image files to figures, with Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from mnv2tl.backend import on_processor
from mnv2tl.checkpoint import Run
from mnv2tl.data.augment import PRESETS
from mnv2tl.data.entries import Entry
from mnv2tl.data.images import UnreadableImageError
from mnv2tl.data.split import Split
from mnv2tl.data.views import ViewMaker
from mnv2tl.errors import DataError, show
from mnv2tl.keras_model import Arrays, build_model, set_arrays
from mnv2tl.memory import explain_shortage
from mnv2tl.metrics import log_loss, per_class, softmax, top1_accuracy, wilson_interval
from mnv2tl.mobilenet import list_layers
from mnv2tl.parallel import map_ordered
from mnv2tl.progress import say, show_bar
from mnv2tl.trunk import CHUNK_IMAGES

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a checkpoint answers on a set of images."""

    entries: tuple[Entry, ...]
    """The images, in order."""
    probabilities: NDArray[np.float64]
    """Shape (n, classes), after the temperature."""
    class_names: tuple[str, ...]
    """Names of the classes, in the order of the labels."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """True classes, shape (n,)."""
        return np.array([entry.label for entry in self.entries], np.int64)

    def summary(self) -> dict[str, Any]:
        """Return images, accuracy with its 95 % interval, loss and figures per class."""
        accuracy = top1_accuracy(self.probabilities, self.labels)
        count = len(self.entries)
        return {
            "images": count,
            "accuracy": accuracy,
            "accuracy_interval": wilson_interval(round(accuracy * count), count),
            "loss": log_loss(self.probabilities, self.labels),
            "per_class": per_class(self.probabilities, self.labels, self.class_names),
        }


def open_model(
    arrays: Arrays, *, alpha: float, image_px: int, scaling: str, classes: int
) -> Predict:
    """Return a function from pixels (n, px, px, 3), 0 to 255, to logits (n, classes)."""
    model = build_whole(alpha=alpha, image_px=image_px, scaling=scaling, classes=classes)
    set_arrays(model, arrays)
    return functools.partial(ask, model)


def build_whole(*, alpha: float, image_px: int, scaling: str, classes: int) -> keras.Model:
    """Return the whole network to compute with, pixels to logits, its weights zero."""
    with on_processor(keras.backend.backend()):
        return build_model(
            list_layers(alpha=alpha, image_px=image_px),
            classes=classes,
            input_shape=(image_px, image_px, 3),
            scaling=scaling,
            activation=None,
            to_save=False,
        )


def ask(model: keras.Model, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a model of `build_whole` answers to at most `CHUNK_IMAGES` images.

    Args:
        model: The model.
        pixels: Shape (n, px, px, 3), 0 to 255.

    Returns:
        Logits, shape (n, classes).
    """
    count = len(pixels)
    # Padded, so that only one shape is compiled.
    batch = np.zeros((CHUNK_IMAGES, *pixels.shape[1:]), np.float32)
    batch[:count] = pixels
    with on_processor(keras.backend.backend()):
        logits: NDArray[np.float32] = np.asarray(model.predict_on_batch(batch))[:count]
    return logits


def evaluate_files(
    predict: Predict,
    maker: ViewMaker,
    entries: Sequence[Entry],
    *,
    class_names: tuple[str, ...],
    temperature: float,
    skip_lost: bool = False,
    fix: str = "close other programs, or export the run and evaluate its ONNX file",
) -> Evaluation:
    """Read images and return what the model answers.

    Args:
        predict: Pixels to logits.
        maker: Reads the images.
        entries: Which ones, at least one.
        class_names: Names of the classes.
        temperature: Logits are divided by it.
        skip_lost: Leave out images that cannot be read or have changed, with a warning each.
        fix: What the user can do where there is too little memory.

    Raises:
        DataError: An image cannot be read or has changed (E309), or none is left.
        MachineError: A few images did not fit into memory (E505).
    """
    logits, answered = [], []
    chunks = [entries[i : i + CHUNK_IMAGES] for i in range(0, len(entries), CHUNK_IMAGES)]
    with show_bar("evaluate", total=len(entries)) as advance:
        for chunk in chunks:
            loaded = list(map_ordered(functools.partial(_load, maker), chunk))
            lost = [each for each in loaded if isinstance(each, DataError)]
            if lost and not skip_lost:
                raise lost[0]
            for error in lost:
                say(f"warning: not evaluated: {show(error.path or '')}: {error.message}")
            pairs = zip(chunk, loaded, strict=True)
            kept = [(entry, each) for entry, each in pairs if not isinstance(each, DataError)]
            if kept:
                with explain_shortage(f"{CHUNK_IMAGES} images at once", fix=fix):
                    logits.append(predict(np.stack([pixels for _, pixels in kept])))
                answered += [entry for entry, _ in kept]
            advance(len(chunk))
    if not answered:
        raise lost[0]
    return Evaluation(
        entries=tuple(answered),
        probabilities=softmax(np.concatenate(logits), temperature=temperature),
        class_names=class_names,
    )


def evaluate_run(
    run: Run,
    *,
    data: Path | None = None,
    split: Split | Literal["all"] = "val",
    max_pixels: int | None = None,
) -> Evaluation:
    """Evaluate a run's best checkpoint on the images of its manifest.

    Args:
        run: A finished run.
        data: Folder of the images, if it moved since the training.
        split: train, val, test or all.
        max_pixels: Largest image that is decoded; None for that of the training.

    Raises:
        DataError: The split has no image (E301), or an image is missing or has changed (E309).
        ArtifactError: The checkpoint is refused.
    """
    manifest = run.manifest
    config = run.info["config"]
    entries = manifest.entries if split == "all" else manifest.of_split(split)
    if not entries:
        raise DataError("E301", f"the split {split} has no image", path=data or manifest.root)
    predict = open_model(
        run.read_arrays(),
        alpha=config["alpha"],
        image_px=config["image_px"],
        scaling=config["scaling"],
        classes=len(run.class_names),
    )
    maker = ViewMaker(
        root=data or manifest.root,
        image_px=config["image_px"],
        augment=PRESETS["none"],
        seed=0,
        max_pixels=max_pixels or config["scan"]["max_pixels"],
    )
    return evaluate_files(
        predict,
        maker,
        entries,
        class_names=run.class_names,
        temperature=run.info["temperature"],
    )


def _load(maker: ViewMaker, entry: Entry) -> NDArray[np.uint8] | DataError:
    try:
        return maker.load(entry)
    except UnreadableImageError as error:
        path = maker.root / entry.path
        return DataError("E309", str(error), path=path, fix="give the folder of the training")
