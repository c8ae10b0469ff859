"""Which copies of a picture does a scan find, how many strangers does it take for copies?

Every picture is edited as people edit copies: compressed, made smaller, brighter, cropped. An
edited copy is found if its dHash differs from the original's in at most as many bits as a scan
allows. A stranger is another picture of the same folder within that many bits.

Ours is the dHash of a scan, of gray as the decoder gives it, large JPEGs at a fraction of their
size; beside it the same with Pillow's bilinear filter in place of Lanczos. Against both stands
`imagehash.dhash` of the whole picture in RGB. Time is from a file's bytes to its hash.

    pip install imagehash
    python -m benchmarks.near_duplicates DATA...
"""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
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


def _ours(content: bytes) -> int:
    picture = images.open_picture(content, gray_px=HASHED_PX)
    return dhash(picture.image, picture.box)


def _bilinear(content: bytes) -> int:
    picture = images.open_picture(content, gray_px=HASHED_PX)
    gray = picture.image.resize((9, 8), Image.Resampling.BILINEAR, picture.box)
    pixels = np.asarray(gray)
    return int.from_bytes(np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes())


def _imagehash(content: bytes) -> int:
    import imagehash  # noqa: PLC0415  installed for this side only

    bits = imagehash.dhash(images.open_picture(content).image).hash
    return int.from_bytes(np.packbits(bits).tobytes())


SIDES: dict[str, Callable[[bytes], int]] = {
    "mnv2tl": _ours,
    "bilinear": _bilinear,
    "ImageHash": _imagehash,
}
"""Name -> the hash of a file's bytes."""

Hashes = dict[str, NDArray[np.uint64]]


def hash_files(files: Iterable[bytes]) -> Hashes:
    """Return side -> hash of each file, shape (n,)."""
    rows = [[hashed(file) for hashed in SIDES.values()] for file in files]
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
    """Return the seconds that each side takes for one file."""
    files = [_encode(picture) for picture in pictures]
    calls = {side: lambda side=side: [SIDES[side](file) for file in files] for side in SIDES}
    seconds = time_in_turn(calls, rounds=_ROUNDS, count=1)
    return {side: spread(each / len(files)) for side, each in seconds.items()}


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
    pictures: dict[object, Image.Image] = {}
    for file in files[:: max(1, len(files) // at_most)]:
        image = images.open_picture(file.read_bytes()).image
        pictures[(image.size, image.tobytes())] = image
    return list(pictures.values())[:at_most]


@click.command(help=record.help_text(__doc__))
@click.argument(
    "data", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--pictures", default=500, show_default=True, help="Pictures of each folder.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
def main(data: tuple[Path, ...], pictures: int, out: Path | None) -> None:
    """Measure, print a line for each edit, and write the result."""
    names = [folder.name for folder in data]
    if len(set(names)) < len(names):
        raise click.UsageError("DATA must be folders of different names")
    conditions = get_ready()
    loaded = {folder.name: load(folder, pictures) for folder in data}
    folders = {name: measure(each) for name, each in loaded.items()}
    pooled = pool(folders)
    timed = [image for each in loaded.values() for image in each[:_TIMED_PICTURES]]
    result: dict[str, Any] = {
        "conditions": conditions,
        "imagehash": importlib.metadata.version("imagehash"),
        "bits": BITS,
        "folders": folders,
        "pooled": pooled,
        "seconds": time_hashes(timed),
    }
    record.write(out or record.RESULTS / "near-duplicates.json", result)
    for name, row in pooled["found"].items():
        shares = ", ".join(f"{side} {100 * each['share']:.1f} %" for side, each in row.items())
        click.echo(f"{name}: {shares}")
    click.echo(f"strangers: {pooled['strangers']} of {pooled['pairs']:,} pairs")
    seconds = {side: each["median"] for side, each in result["seconds"].items()}
    click.echo(", ".join(f"{side} {1e6 * each:.0f} us" for side, each in seconds.items()))


if __name__ == "__main__":
    main()
