"""The process in which a scan decodes: what foreign bytes can do ends at its walls.

The scan is the first to touch a file, so it does that here: with a limit on memory, without a way
to write a file, and ended by its own clock if even the process that asked for it is gone. It reads
lines of JSON, lists of paths, and answers each path in order with what `describe_file` says of it;
several answers share a line.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

from PIL import Image

from mnv2tl import store
from mnv2tl.data import images
from mnv2tl.data.near_duplicates import HASHED_PX, dhash
from mnv2tl.text import printable, shorten

BYTES_PER_PIXEL = 24
"""More than any picture takes while it is decoded: two copies of 4 bytes (CMYK and RGB, or RGBA and
white), its file, and what a decoder holds beside them; see tests/test_scan_worker.py."""
BASE_BYTES = 512 * 2**20
"""For the interpreter, a file of the largest size and its unpacked metadata."""
OUT_OF_MEMORY = "out-of-memory"
"""The code of a file that needs more memory than the limit."""

_LONGEST_REASON = 500
_FLUSH_SECONDS = 0.1
GRACE_SECONDS = 2.0
"""How much longer than allowed a worker waits to be ended by who asked, before it ends itself."""


def count_bytes(max_pixels: int) -> int:
    """Return how much memory a worker may take, in bytes."""
    return BASE_BYTES + BYTES_PER_PIXEL * max_pixels


def describe_file(file: str, *, max_pixels: int, needs_dhash: bool) -> dict[str, Any]:
    """Read and decode a file; return the fields of its `Record` that are not the default, as JSON.

    Args:
        file: Absolute path.
        max_pixels: Width times height up to which it is decoded.
        needs_dhash: Whether near duplicates of it are looked for.
    """
    value: dict[str, Any] = {}
    try:
        content = images.read_bytes(file)
        value["sha256"] = store.sha256_bytes(content)
        picture = images.open_picture(content, max_pixels=max_pixels, gray_px=HASHED_PX)
        if needs_dhash:
            value["dhash"] = dhash(picture.image, picture.box)
    except images.UnreadableImageError as error:
        reason = shorten(printable(error.message), _LONGEST_REASON)
        return value | {"code": error.reason, "reason": reason}
    except MemoryError:
        reason = f"decoding it needs more than {count_bytes(max_pixels) // 2**20:,} MiB of memory"
        return value | {"code": OUT_OF_MEMORY, "reason": reason}
    value |= {"width": picture.width, "height": picture.height, "format": picture.format}
    return value | {"notes": picture.warnings} if picture.warnings else value


def main() -> None:
    """Answer questions from stdin until it is closed.

    The last word of the command line is JSON: `max_pixels`, `seconds` per file, and whether to
    `hash` pictures.
    """
    # Ctrl-C goes to all processes of a terminal; the one that asks decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = json.loads(sys.argv[-1])
    look = functools.partial(
        describe_file,
        max_pixels=options["max_pixels"],
        needs_dhash=options["hash"],
    )
    Image.preinit()
    with os.fdopen(os.dup(0), "rb") as questions, os.fdopen(os.dup(1), "wb") as answers:
        _close_doors(count_bytes(options["max_pixels"]))
        _answer(answers, "ready")
        for line in questions:
            _answer_all(answers, map(look, json.loads(line)), options["seconds"])


def _answer_all(answers: IO[bytes], found: Iterator[dict[str, Any]], seconds: float) -> None:
    """Answer for each file; answers of some tenths of a second share a line."""
    group: list[dict[str, Any]] = []
    flushed = time.monotonic()
    _set_clock(seconds)
    for each in found:
        _set_clock(seconds)
        group.append(each)
        if time.monotonic() - flushed > _FLUSH_SECONDS:
            _answer(answers, group)
            group, flushed = [], time.monotonic()
    _set_clock(0)
    if group:
        _answer(answers, group)


def _answer(answers: IO[bytes], value: object) -> None:
    try:
        answers.write(json.dumps(value).encode("ascii") + b"\n")
        answers.flush()
    except BrokenPipeError:  # nobody is left to hear it
        os._exit(0)


def _set_clock(seconds: float) -> None:
    """End this process in so many seconds, and a few for who asked to do it first; 0 for never."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, seconds and seconds + GRACE_SECONDS)


def _close_doors(memory_bytes: int) -> None:
    """Limit what this process can take, and leave it nothing to read, print or write to."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    if os.name == "nt":
        return
    import resource  # noqa: PLC0415  not on Windows

    # DATA leaves out the libraries' files, whose size differs from machine to machine.
    limits = {"RLIMIT_DATA": memory_bytes, "RLIMIT_CORE": 0, "RLIMIT_FSIZE": 0}
    for name, limit in limits.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (most, most))
