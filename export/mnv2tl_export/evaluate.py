"""Measure an exported model on labelled pictures, without Keras."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl.data.entries import Entry
from mnv2tl.data.split import SPLITS, Split
from mnv2tl.errors import ArtifactError, DataError
from mnv2tl.memory import explain_shortage
from mnv2tl.metrics import log_loss, per_class, top1_accuracy, wilson_interval
from mnv2tl.parallel import map_ordered
from mnv2tl.progress import track
from mnv2tl_export.bundle import check_content
from mnv2tl_export.gate import Pictures
from mnv2tl_export.model import Model


def evaluate_model(
    model: Model, entries: Sequence[Entry], data: Path, *, max_pixels: int = images.MAX_PIXELS
) -> dict[str, Any]:
    """Return images, accuracy with its 95 % interval, loss and figures per class.

    Args:
        model: An opened one.
        entries: Which pictures, at least one; see `read_split`.
        data: Folder that their paths start from.
        max_pixels: Largest picture that is decoded.

    Raises:
        DataError: A picture cannot be read or has changed (E309).
        MachineError: A few pictures did not fit into memory (E505).
    """
    pictures = Pictures(entries=entries, root=data, image_px=model.image_px, max_pixels=max_pixels)
    with explain_shortage(f"{model.batch_size} pictures at once", fix="close other programs"):
        rows = model.answer_all(pictures.load_resized, entries)
        probabilities = np.stack(list(track(rows, "evaluate", total=len(entries))))
    labels = np.array([entry.label for entry in entries], np.int64)
    accuracy = top1_accuracy(probabilities, labels)
    return {
        "images": len(labels),
        "accuracy": accuracy,
        "accuracy_interval": wilson_interval(round(accuracy * len(labels)), len(labels)),
        "loss": log_loss(probabilities, labels),
        "per_class": per_class(probabilities, labels, model.class_names),
    }


def read_split(model: Path, data: Path, split: str) -> tuple[Entry, ...]:
    """Return the pictures of a split, as split.json beside the model has it, found by their hash.

    Where they lie below `data`, and how they are named, does not matter.

    Args:
        model: A file or folder that lies directly in its bundle.
        data: Folder of the pictures.
        split: train, val, test or all.

    Raises:
        ArtifactError: split.json is missing (E410), damaged (E406), or not the one that
            bundle.json names (E413).
        DataError: The split has no picture (E301), or one of them is not in `data` (E309).
    """
    wanted = _wanted(model.with_name("split.json"), split)
    if not wanted:
        raise DataError("E301", f"the split {split} has no image", path=model)
    paths = _find(data, {digest for digest, _, _ in wanted})
    missing = sum(digest not in paths for digest, _, _ in wanted)
    if missing:
        message = f"{missing} of {len(wanted)} images of the split {split} are not there"
        fix = "give the folder of the training as DATA"
        raise DataError("E309", message, path=data, fix=fix)
    return tuple(
        Entry(
            path=paths[digest].as_posix(),
            label=label,
            split=name,
            sha256=digest,
            bytes=(data / paths[digest]).stat().st_size,
            width=0,
            height=0,
        )
        for digest, label, name in wanted
    )


def _wanted(path: Path, split: str) -> list[tuple[str, int, Split]]:
    """Return hash, label and split of each picture of a split."""
    try:
        raw = path.read_bytes()
        check_content(path, raw)
        content = json.loads(raw)
        names = SPLITS if split == "all" else tuple(each for each in SPLITS if each == split)
        return [
            (str(digest), int(label), name) for name in names for digest, label in content[name]
        ]
    except OSError as error:
        fix = "evaluate the model where it lies in its bundle"
        raise ArtifactError("E410", "no split lies beside the model", path=path, fix=fix) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError("E406", "not a split of mnv2tl", path=path) from error


def _find(data: Path, digests: set[str]) -> dict[str, Path]:
    """Return hash -> path below a folder, of the files whose hash is wanted."""
    if not data.is_dir():
        raise DataError("E300", "no such folder", path=data)
    files = sorted(_walk(data))
    hashed = map_ordered(_hash, files)
    found: dict[str, Path] = {}
    for path, digest in track(zip(files, hashed, strict=True), "hash", total=len(files)):
        if digest in digests:
            found.setdefault(digest, path.relative_to(data))
    return found


def _walk(data: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(data):
        yield from (Path(parent, name) for name in names)


def _hash(path: Path) -> str | None:
    try:
        return store.sha256_bytes(images.read_bytes(path))
    except images.UnreadableImageError:
        return None  # neither a picture of the split, if it cannot be read
