"""From paths on the command line to one answer per picture, going on after a bad one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl import images
from mnv2tl.images import UnreadableImageError
from mnv2tl_export.classifier import Classifier
from mnv2tl_export.defaults import TOP

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""What is taken from a folder; a file that is named itself is judged by its content alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model says about one file."""

    path: Path
    """As it was given, or found in a folder."""
    top: tuple[tuple[str, float], ...] = ()
    """The most likely classes with their probabilities, the likeliest first."""
    is_rejected: bool = False
    """Whether the likeliest is below the wanted probability."""
    error: UnreadableImageError | None = None
    """Why there is no answer."""

    @property
    def label(self) -> str | None:
        """The likeliest class; None if it was rejected or the file could not be read."""
        return None if self.is_rejected or not self.top else self.top[0][0]

    @property
    def probability(self) -> float | None:
        """Of the likeliest class, rejected or not; None if the file could not be read."""
        return self.top[0][1] if self.top else None

    def to_json(self) -> dict[str, Any]:
        """Return the keys of one line of `mnv2tl predict --json`."""
        path = os.fspath(self.path)
        if self.error is not None:
            error = {"reason": self.error.reason, "message": self.error.message}
            return {"path": path, "label": None, "probability": None, "top": [], "error": error}
        return {
            "path": path,
            "label": self.label,
            "probability": self.probability,
            "top": [list(pair) for pair in self.top],
        }


def list_files(paths: Iterable[str], *, stdin: IO[bytes] | None = None) -> list[Path]:
    """Return the files that paths name, in order.

    Args:
        paths: Files; folders, of which pictures by `SUFFIXES` are taken at any depth, sorted,
            without hidden ones; and `-`, for paths from stdin: one a line, or ended by NUL.
        stdin: Where `-` reads; None for the process' own.
    """
    files: list[Path] = []
    for path in paths:
        if path == "-":
            files += list_files(_read_paths(stdin or sys.stdin.buffer))
        elif os.path.isdir(path):
            files += sorted(_walk(path))
        else:
            files.append(Path(path))
    return files


def predict_files(
    classifier: Classifier,
    files: Sequence[Path],
    *,
    top: int = TOP,
    reject_below: float = 0.0,
    max_pixels: int = images.MAX_PIXELS,
) -> Iterator[Answer]:
    """Yield an answer per file, in order; a file that cannot be read gets one too.

    Args:
        classifier: Asked in batches of its own size.
        files: Read ahead in threads, a few at a time.
        top: How many classes an answer names, at most.
        reject_below: An answer whose best probability is lower has no label.
        max_pixels: Largest picture that is decoded.
    """
    waiting: list[tuple[Path, NDArray[np.uint8] | UnreadableImageError]] = []
    for item in images.read_many(files, classifier.image_px, max_pixels=max_pixels):
        waiting.append(item)
        if len(waiting) >= classifier.batch_size:
            yield from _answer(classifier, waiting, top, reject_below)
            waiting = []
    yield from _answer(classifier, waiting, top, reject_below)


def _answer(
    classifier: Classifier,
    batch: Sequence[tuple[Path, NDArray[np.uint8] | UnreadableImageError]],
    top: int,
    reject_below: float,
) -> Iterator[Answer]:
    probabilities = iter(classifier([each for _, each in batch if isinstance(each, np.ndarray)]))
    for path, each in batch:
        if isinstance(each, UnreadableImageError):
            yield Answer(path=path, error=each)
            continue
        row = next(probabilities)
        # Stable, so that of equal ones the lower class index comes first.
        order = np.argsort(-row, kind="stable")[:top]
        yield Answer(
            path=path,
            top=tuple((classifier.class_names[index], float(row[index])) for index in order),
            is_rejected=bool(row.max() < reject_below),
        )


def _walk(folder: str) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(parent, name)


def _read_paths(stdin: IO[bytes]) -> list[str]:
    content = stdin.read()
    separator = b"\0" if b"\0" in content else b"\n"
    lines = (line.removesuffix(b"\r") for line in content.split(separator))
    # A dash in the list is a file's name: stdin is read once.
    return [f"./{path}" if path == "-" else path for path in map(os.fsdecode, lines) if path]
