"""From paths or stdin to one answer per picture, going on after a bad one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data import image_headers, images
from mnv2tl.data.images import UnreadableImageError
from mnv2tl_export.classifier import Classifier
from mnv2tl_export.defaults import TOP

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""What is taken from a folder; a file that is named itself is judged by its content alone."""


STDIN = "-"
"""Names stdin among paths, and in an answer the picture that came from there."""


@dataclass(frozen=True, slots=True)
class Piped:
    """A picture that came through stdin."""

    content: bytes
    """Its file's bytes; of one above `images.MAX_FILE_BYTES` the beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model says about one picture."""

    path: Path
    """As it was given, or found in a folder; `-` for a picture from stdin."""
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


def list_files(paths: Iterable[str], *, stdin: IO[bytes] | None = None) -> list[Path | Piped]:
    """Return the pictures that paths name, in order.

    Args:
        paths: Files; folders, of which pictures by `SUFFIXES` are taken at any depth, sorted,
            without hidden ones; and `-` for stdin, which is a picture if it begins as one, and
            else paths: one a line, or ended by NUL.
        stdin: Where `-` reads; None for the process' own.
    """
    files: list[Path | Piped] = []
    for path in paths:
        if path == STDIN:
            files += _read_stdin(stdin or sys.stdin.buffer)
        elif os.path.isdir(path):
            files += sorted(_walk(path))
        else:
            files.append(Path(path))
    return files


def predict_files(
    classifier: Classifier,
    files: Sequence[Path | Piped],
    *,
    top: int = TOP,
    reject_below: float = 0.0,
    max_pixels: int = images.MAX_PIXELS,
) -> Iterator[Answer]:
    """Yield an answer per picture, in order; one that cannot be read gets one too.

    Args:
        classifier: Asked about some at a time.
        files: Read in threads, a few at a time.
        top: How many classes an answer names, at most.
        reject_below: An answer whose best probability is lower has no label.
        max_pixels: Largest picture that is decoded.
    """

    def read_one(file: Path | Piped) -> NDArray[np.uint8] | UnreadableImageError:
        try:
            return images.resize(_read_pixels(file, max_pixels), classifier.image_px)
        except UnreadableImageError as error:
            return error

    rows = classifier.answer_all(read_one, files)
    for file, row in zip(files, rows, strict=True):
        path = Path(STDIN) if isinstance(file, Piped) else file
        if isinstance(row, UnreadableImageError):
            yield Answer(path=path, error=row)
            continue
        # Stable, so that of equal ones the lower class index comes first.
        order = np.argsort(-row, kind="stable")[:top]
        yield Answer(
            path=path,
            top=tuple((classifier.class_names[index], float(row[index])) for index in order),
            is_rejected=bool(row.max() < reject_below),
        )


def _read_pixels(file: Path | Piped, max_pixels: int) -> NDArray[np.uint8]:
    if not isinstance(file, Piped):
        return images.read(file, max_pixels=max_pixels)
    if len(file.content) > images.MAX_FILE_BYTES:
        message = f"too large: more than {images.MAX_FILE_BYTES:,} bytes"
        raise UnreadableImageError("too-large", message)
    return images.decode(file.content, max_pixels=max_pixels).pixels


def _walk(folder: str) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(parent, name)


def _read_stdin(stdin: IO[bytes]) -> list[Path | Piped]:
    content = stdin.read(images.MAX_FILE_BYTES + 1)
    if _is_picture(content):
        return [Piped(content)]
    content += stdin.read()
    separator = b"\0" if b"\0" in content else b"\n"
    lines = (line.removesuffix(b"\r") for line in content.split(separator))
    paths = [os.fsdecode(line) for line in lines if line]
    # A dash in the list is a file's name: stdin is read once.
    return list_files(f"./{path}" if path == STDIN else path for path in paths)


def _is_picture(content: bytes) -> bool:
    """Return whether bytes begin as a picture of any format; paths never do."""
    name = image_headers.format_of(content)
    if name == "BMP":
        # So may a path begin, but its header has numbers of four bytes, and no path is empty.
        return b"\0\0" in content[:18]
    return content.startswith(b"RIFF") if name == "WEBP" else name is not None
