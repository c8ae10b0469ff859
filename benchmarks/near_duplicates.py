"""Which copies of a picture does a scan find, how many strangers does it take for copies?

Every picture is edited as people edit copies: compressed, made smaller, brighter, cropped. An
edited copy is found if its dHash differs from the original's in at most as many bits as a scan
allows. A stranger is another picture of the same folder within that many bits.

Ours is the dHash of a scan: gray as the decoder gives it, a bilinear filter. Against it stands
`imagehash.dhash` (which converts RGB, with a Lanczos filter) on the same files. Time is that of
hashing a decoded picture; the scan's own time is in `scan_speed`.

    pip install imagehash
    python -m benchmarks.near_duplicates DATA...
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from benchmarks.parts import record
from benchmarks.parts.timing import get_ready, spread, time_in_turn
from mnv2tl.data import images
from mnv2tl.data.near_duplicates import BITS, HASHED_PX, dhash
from mnv2tl.metrics import wilson_interval
from mnv2tl.progress import track

_QUALITY = 92
_TIMED_PICTURES, _ROUNDS = 100, 5


def _scale(image: Image.Image, factor: float, resample: Image.Resampling) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), resample)


def _crop(image: Image.Image, share: float) -> Image.Image:
    x, y = (round(side * share) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def _encode(image: Image.Image, quality: int = _QUALITY) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


EDITS: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG of quality 50": lambda image: _encode(image, 50),
    "JPEG of quality 20": lambda image: _encode(image, 20),
    "0.77 of the size": lambda image: _encode(_scale(image, 0.77, Image.Resampling.BILINEAR)),
    "half of the size": lambda image: _encode(_scale(image, 0.5, Image.Resampling.LANCZOS)),
    "a third of the size": lambda image: _encode(_scale(image, 1 / 3, Image.Resampling.BOX)),
    "a fifth brighter": lambda image: _encode(ImageEnhance.Brightness(image).enhance(1.2)),
    "2 % cut off each side": lambda image: _encode(_crop(image, 0.02)),
}
"""Name -> what makes the file of a copy from a picture."""


def _open_gray(content: bytes) -> Image.Image:
    return images.open_picture(content, gray_px=HASHED_PX).image


def _open_rgb(content: bytes) -> Image.Image:
    return images.open_picture(content).image


def _imagehash(image: Image.Image) -> int:
    return int.from_bytes(np.packbits(imagehash.dhash(image).hash).tobytes())


SIDES: dict[str, tuple[Callable[[bytes], Image.Image], Callable[[Image.Image], int]]] = {
    "mnv2tl": (_open_gray, dhash),
    "ImageHash": (_open_rgb, _imagehash),
}
"""Name -> how it decodes a file, and how it hashes what it decoded."""

Hashes = dict[str, NDArray[np.uint64]]


def hash_files(files: Iterable[bytes]) -> Hashes:
    """Return side -> hash of each file, shape (n,)."""
    rows = [[hashed(opened(file)) for opened, hashed in SIDES.values()] for file in files]
    return dict(zip(SIDES, np.array(rows, np.uint64).T, strict=True))


def count_strangers(hashes: NDArray[np.uint64]) -> int:
    """Return how many pairs differ in at most `BITS` bits."""
    rows = (hashes[row] ^ hashes[row + 1 :] for row in range(len(hashes)))
    return sum(int((np.bitwise_count(row) <= BITS).sum()) for row in rows)


def measure(pictures: list[Image.Image]) -> dict[str, Any]:
    """Return the figures of one folder.

    Args:
        pictures: Of mode RGB, no two of equal pixels.
    """
    originals = hash_files(_encode(picture) for picture in pictures)
    found: dict[str, dict[str, int]] = {}
    for name, edit in EDITS.items():
        copies = hash_files(edit(picture) for picture in track(pictures, name, total=len(pictures)))
        found[name] = {
            side: int((np.bitwise_count(copies[side] ^ originals[side]) <= BITS).sum())
            for side in SIDES
        }
    strangers = {side: count_strangers(hashes) for side, hashes in originals.items()}
    pairs = len(pictures) * (len(pictures) - 1) // 2
    return {"pictures": len(pictures), "found": found, "pairs": pairs, "strangers": strangers}


def time_hashes(pictures: list[Image.Image]) -> dict[str, Any]:
    """Return the seconds that each side takes for one picture which is decoded already."""
    opened = {
        side: [open_(_encode(picture)) for picture in pictures]
        for side, (open_, _) in SIDES.items()
    }
    calls = {
        side: lambda side=side: [SIDES[side][1](image) for image in opened[side]] for side in SIDES
    }
    seconds = time_in_turn(calls, rounds=_ROUNDS, count=1)
    return {side: spread(each / len(pictures)) for side, each in seconds.items()}


def pool(folders: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all folders together, with their 95 % intervals."""
    total = sum(each["pictures"] for each in folders.values())
    counts = {
        name: {side: sum(each["found"][name][side] for each in folders.values()) for side in SIDES}
        for name in EDITS
    }
    shares = {
        name: {
            side: {"share": hits / total, "interval": wilson_interval(hits, total)}
            for side, hits in row.items()
        }
        for name, row in counts.items()
    }
    return {
        "pictures": total,
        "found": shares,
        "pairs": sum(each["pairs"] for each in folders.values()),
        "strangers": {
            side: sum(each["strangers"][side] for each in folders.values()) for side in SIDES
        },
    }


def load(folder: Path, at_most: int) -> list[Image.Image]:
    """Return pictures of a folder, evenly taken from all of them, none twice."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))
    pictures: dict[bytes, Image.Image] = {}
    for file in files[:: max(1, len(files) // at_most)]:
        image = _open_rgb(file.read_bytes())
        pictures[image.tobytes()] = image
    return list(pictures.values())[:at_most]


@click.command(help=record.help_text(__doc__))
@click.argument(
    "data", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--pictures", default=500, show_default=True, help="Pictures of each folder.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
def main(data: tuple[Path, ...], pictures: int, out: Path | None) -> None:
    """Measure, print a line for each edit, and write the result."""
    conditions = get_ready()
    loaded = {folder.name: load(folder, pictures) for folder in data}
    folders = {name: measure(each) for name, each in loaded.items()}
    pooled = pool(folders)
    seconds = time_hashes([image for each in loaded.values() for image in each][:_TIMED_PICTURES])
    result = {
        "conditions": conditions,
        "imagehash": imagehash.__version__,
        "bits": BITS,
        "folders": folders,
        "pooled": pooled,
        "seconds": seconds,
    }
    record.write(out or record.RESULTS / "near-duplicates.json", result)
    for name, row in pooled["found"].items():
        shares = ", ".join(f"{side} {100 * each['share']:.1f} %" for side, each in row.items())
        click.echo(f"{name}: {shares}")
    click.echo(f"strangers: {pooled['strangers']} of {pooled['pairs']:,} pairs")
    click.echo({side: f"{1e6 * each['median']:.0f} us" for side, each in seconds.items()})


if __name__ == "__main__":
    main()
