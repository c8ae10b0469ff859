"""The readers that `benchmarks.fuzz` gives damaged files to, and how their seeds are damaged."""

from __future__ import annotations

import abc
import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.parts.lossless_jpeg import make_lossless_jpeg
from benchmarks.parts.record import ROOT
from mnv2tl import store
from mnv2tl.checkpoint import load_run
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.images import UnreadableImageError, open_picture
from mnv2tl.data.manifest import Manifest
from mnv2tl.errors import Mnv2tlError
from mnv2tl_export.bundle import read_seal
from mnv2tl_export.onnx_file import read_onnx

_GOLDEN = ROOT / "tests" / "golden"
_MAX_PIXELS = 2**22
_GRAY_PX = 2
"""So few that the seeds are decoded at an eighth of their size."""
_REFUSALS = (3, 4)
_LENGTHS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**64, 1e308, float("inf"), float("nan"), "", "x", "\udc80", "\0"),
    *("../../etc/passwd", "9" * 5000, [], {}, [[]], [None], {"": None}, [{}] * 50),
)


class Target(abc.ABC):
    """A reader and the files that it reads when nothing is wrong."""

    seeds: list[bytes]

    @abc.abstractmethod
    def read(self, content: bytes) -> str:
        """Read a file; return "read", "refused", or raise what the reader must not."""

    def mutate(self, seed: int, number: int) -> bytes:
        """Return a mutant; the same for the same numbers."""
        rng = random.Random(f"{seed} {number}")  # noqa: S311  nothing is secret
        content = bytearray(rng.choice(self.seeds))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            rng.choice(_WAYS)(content, rng, self.seeds)
        return bytes(content)


def _flip(content: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set_byte(content: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    if content:
        content[rng.randrange(len(content))] = rng.choice(
            (0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))
        )


def _set_length(content: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    at, size = rng.randrange(len(content) + 1), rng.choice((2, 4))
    value = rng.choice(_LENGTHS) % 256**size
    content[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _cut_end(content: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _drop_piece(content: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    at = rng.randrange(len(content) + 1)
    del content[at : at + rng.randrange(64)]


def _double_piece(content: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    at = rng.randrange(len(content) + 1)
    content[at:at] = content[at : at + rng.randrange(64)] * rng.choice((1, 2, 20))


def _splice(content: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    other, at = rng.choice(seeds), rng.randrange(len(content) + 1)
    start = rng.randrange(len(other))
    content[at : at + rng.randrange(64)] = other[start : start + rng.randrange(200)]


_WAYS: tuple[Callable[[bytearray, random.Random, list[bytes]], None], ...] = (
    *(_flip, _flip, _set_byte, _set_byte, _set_length),
    *(_cut_end, _drop_piece, _double_piece, _splice),
)


class ImageTarget(Target):
    """The decoder, to RGB as a training asks for and to reduced gray as a scan does."""

    def __init__(self, place: Path) -> None:
        self.seeds = [*_draw_images(), *(path.read_bytes() for path in _golden_images())]
        self.seeds += [make_lossless_jpeg(24, 16, components) for components in (1, 3)]

    def read(self, content: bytes) -> str:
        """Decode a picture both ways, which must end alike."""
        rgb, gray = (self._decode(content, gray_px) for gray_px in (None, _GRAY_PX))
        if rgb != gray:
            raise RuntimeError(f"RGB is {rgb}, gray is {gray}")
        return rgb

    def _decode(self, content: bytes, gray_px: int | None) -> str:
        try:
            open_picture(content, max_pixels=_MAX_PIXELS, gray_px=gray_px)
        except UnreadableImageError as error:
            return error.reason
        return "read"


def _golden_images() -> list[Path]:
    return sorted(path for path in _GOLDEN.iterdir() if path.suffix in (".jpg", ".webp"))


def _draw_images() -> Iterator[bytes]:
    """Yield small pictures of every mode and every way of packing that Pillow can write."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (4, 6, 4), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    rgba = Image.fromarray(levels)
    rgb = rgba.convert("RGB")
    exif = Image.Exif()
    exif[274] = 6
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb], "duration": 20}
    sixteen = Image.fromarray((levels[..., 0].astype(np.uint16) << 8) + 77)
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((rgb.convert(mode), "JPEG", {"exif": exif}) for mode in ("RGB", "L", "CMYK")),
        (rgb, "JPEG", {"progressive": True, "subsampling": 2, "quality": 30}),
        *((rgba.convert(mode), "PNG", {"exif": exif}) for mode in ("1", "L", "LA", "RGB", "RGBA")),
        (rgb.quantize(16), "PNG", {"transparency": 3}),
        (sixteen, "PNG", {"transparency": 77}),
        (rgb, "PNG", frames),
        *((rgb.convert(mode), "BMP", {}) for mode in ("1", "L", "RGB")),
        (rgba, "BMP", {}),
        (rgb.quantize(16), "GIF", {"transparency": 3}),
        (rgb.quantize(16), "GIF", frames),
        (rgb, "WEBP", {"exif": exif}),
        (rgba, "WEBP", {"lossless": True}),
        (rgba, "WEBP", frames),
    ]
    for image, format_name, options in ways:
        buffer = io.BytesIO()
        image.save(buffer, format_name, **options)
        yield buffer.getvalue()


class JsonTarget(Target):
    """A reader of a JSON file in a folder.

    Args:
        path: Where a mutant is written.
        value: What the file holds when nothing is wrong.
        load: Reads it.
    """

    def __init__(self, path: Path, value: Any, load: Callable[[], object]) -> None:
        store.write_sealed_json(path, value)
        self.seeds, self.value, self.path, self.load = [path.read_bytes()], value, path, load

    def mutate(self, seed: int, number: int) -> bytes:
        """Return a mutant; every second one is whole JSON with another value in it."""
        if number % 2:
            return super().mutate(seed, number)
        rng = random.Random(f"{seed} {number}")  # noqa: S311  nothing is secret
        value = copy.deepcopy(self.value)
        for _ in range(rng.choice((1, 1, 2))):
            _exchange_value(value, rng)
        text = json.dumps(value)
        if rng.random() < 0.05:
            depth = rng.choice((10, 100_000))
            text = text.replace(":", ":" + "[" * depth + "]" * depth + ",", 1)
        return text.encode("ascii")

    def read(self, content: bytes) -> str:
        """Read the file from its folder."""
        self.path.write_bytes(content)
        return _judge(self.load)


def _exchange_value(value: Any, rng: random.Random) -> None:
    """Exchange, drop or add one value somewhere in lists and objects."""
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.7:
            value = value[key]
            continue
        if rng.random() < 0.2:
            del value[key]
        else:
            value[key] = copy.deepcopy(rng.choice(_VALUES))
        return


def _judge(load: Callable[[], object]) -> str:
    try:
        load()
    except Mnv2tlError as error:
        if error.exit_code not in _REFUSALS:
            raise
        return "refused"
    return "read"


def _manifest(place: Path) -> JsonTarget:
    entries = Entries(
        Entry(
            path=f"{name}/{number}.png",
            label=label,
            split="val" if number == 0 else "train",
            sha256=store.sha256_bytes(f"{name}{number}".encode()),
            bytes=1000 + number,
            width=64,
            height=48,
        )
        for label, name in enumerate(("cat", "dog"))
        for number in range(3)
    )
    rule = {"rule": "threshold", "seed": 7, "val_fraction": 0.25, "test_fraction": 0.0}
    manifest = Manifest(
        root=Path("/data"), class_names=("cat", "dog"), entries=entries, split_rule=rule
    )
    path = place / "manifest.json"
    return JsonTarget(path, manifest.to_json(), lambda: Manifest.load(path).to_json())


def _run(place: Path) -> JsonTarget:
    figures = dict.fromkeys(("temperature", "val_accuracy", "val_loss"), 0.5)
    info = {
        "schema": 1,
        "finished": True,
        "created": "2026-01-01T00:00:00+00:00",
        "backend": "jax",
        "class_names": ["cat", "dog"],
        "weights": {"name": "imagenet", "sha256": "0" * 64},
        "config": {"alpha": 1.0, "image_px": 224, "scan": {"val_fraction": 0.2}, "augment": {}},
        "history": [{"epoch": 1, "loss": 0.5, "val_loss": 0.5}],
        "files": {"best.keras": "0" * 64},
        "manifest_sha256": "0" * 64,
        "best_epoch": 1,
        **figures,
    }
    return JsonTarget(place / "run.json", info, lambda: load_run(place))


def _bundle(place: Path) -> JsonTarget:
    files = {name: {"sha256": "0" * 64, "bytes": 100} for name in ("model.onnx", "parity.json")}
    value = {"schema": 1, "files": files, "class_names": ["cat", "dog"], "artifacts": []}
    return JsonTarget(place / "bundle.json", value, lambda: read_seal(place))


class OnnxTarget(Target):
    """The reader of ONNX files."""

    def __init__(self, place: Path) -> None:
        self.seeds, self.path = [(_GOLDEN / "tiny.onnx").read_bytes()], place / "model.onnx"

    def read(self, content: bytes) -> str:
        """Read the file from its folder."""
        self.path.write_bytes(content)
        return _judge(lambda: read_onnx(self.path))


TARGETS: dict[str, Callable[[Path], Target]] = {
    "image": ImageTarget,
    "manifest.json": _manifest,
    "run.json": _run,
    "bundle.json": _bundle,
    "model.onnx": OnnxTarget,
}
"""Name -> makes the reader; it takes an empty folder."""
