"""A folder of many small pictures of varied content and size, the same on every machine.

Every picture is a cut-out of one of a few canvases of coloured shapes and grain, so that files are
as large and as slow to decode as those of photographs. One file in fifty is another cut-out saved
a second time with another quality, one in two hundred a copy of the same bytes.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = 50
"""Sub-folders; every class has the same number of files."""
_CANVASES = 24
_CANVAS_PX = 640
SMALL_PX = (96, 320)
"""Sides of the pictures, both included: the hardest case, a scan has least to decode."""
PHOTOGRAPHS_PX = (400, 640)
"""Sides like those of the photographs that most data sets hold."""
_JPEG_SHARE = 0.9
_AGAIN_EVERY = 50
_COPY_EVERY = 200


def draw_canvas(number: int) -> Image.Image:
    """Return a canvas: blurred colours, shapes with sharp edges, and grain."""
    random = np.random.default_rng([1, number])
    side = _CANVAS_PX
    coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    image = coarse.resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = (int(each) for each in random.integers(0, side, 2))
        width, height = (int(each) for each in random.integers(10, 120, 2))
        colour = tuple(int(each) for each in random.integers(0, 256, 3))
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((x, y, x + width, y + height), fill=colour)
    grain = random.normal(0, 6, (side, side, 1))
    levels = np.clip(np.asarray(image, dtype=np.float64) + grain, 0, 255)
    return Image.fromarray(levels.astype(np.uint8))


def name_file(number: int) -> str:
    """Return the path of a file below the folder; it depends on nothing but the number.

    >>> name_file(51), name_file(9)
    ('class-01/000051.jpg', 'class-09/000009.png')
    """
    suffix = "jpg" if _is_jpeg(number) else "png"
    return f"class-{number % CLASSES:02d}/{number:06d}.{suffix}"


def write_pictures(folder: Path, numbers: range, sides_px: tuple[int, int] = SMALL_PX) -> None:
    """Write some of the files; what is written before does not matter.

    Args:
        folder: Holds the class folders, which are there already.
        numbers: Which files, from 0.
        sides_px: Shortest and longest side, in pixels; at most 640.
    """
    write = functools.partial(_write, sides_px=sides_px)
    for number in numbers:
        path = folder / name_file(number)
        original = number - CLASSES * 10  # of the same class and kind
        if number % _COPY_EVERY == 0 and original >= 0:
            write(folder / name_file(number), original, quality=88)
        elif number % _AGAIN_EVERY == 1 and original >= 0:
            write(path, original, quality=70)
        else:
            write(path, number, quality=88)


def make_folder(folder: Path) -> None:
    """Make a folder anew with empty class folders."""
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(CLASSES):
        (folder / f"class-{number:02d}").mkdir(parents=True)


def _is_jpeg(number: int) -> bool:
    return number % 10 < 10 * _JPEG_SHARE


def _write(path: Path, number: int, *, quality: int, sides_px: tuple[int, int]) -> None:
    random = np.random.default_rng([2, number])
    width, height = (int(each) for each in random.integers(sides_px[0], sides_px[1] + 1, 2))
    left = int(random.integers(0, _CANVAS_PX - width + 1))
    top = int(random.integers(0, _CANVAS_PX - height + 1))
    canvas = _canvas(int(random.integers(_CANVASES)))
    image = canvas.crop((left, top, left + width, top + height))
    if path.suffix == ".jpg":
        image.save(path, quality=quality)
    else:
        image.save(path, compress_level=1)


@functools.cache
def _canvas(number: int) -> Image.Image:
    return draw_canvas(number)
