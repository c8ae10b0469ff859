"""Sample data sets: real pictures, one folder per class, the same for everyone who fetches them.

`patches` needs no network, `stamps` and `stamps-objects` a Debian archive, `flowers` the public
network. Every picture is known by its SHA-256 beforehand; others are left out.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import importlib.util
import io
import json
import re
import secrets
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnv2tl import fetch as network
from mnv2tl import images, progress, store
from mnv2tl.errors import ArtifactError, MachineError

SOURCES = {
    "flowers": "TensorFlow's flower_photos: 3,670 photographs of 5 kinds of flowers (CC BY 2.0)",
    "patches": "500 crops of the 10 photographs that scikit-image carries, train/ and val/ (CC0)",
    "stamps": "434 pictures of Debian's tuxpaint-stamps-default in 10 classes (GPL-2.0)",
    "stamps-objects": "182 other pictures of the same package in 11 classes (GPL-2.0)",
}
"""Name -> what it is, where it comes from, and its licence."""

# Class name -> file and its SHA-256. They ship inside scikit-image's wheel and are PNG: a JPEG's
# pixels would depend on the decoder's version.
_PHOTOGRAPHS = {
    "astronaut": (
        "astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    "brick": ("brick.png", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
    "cameraman": ("camera.png", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
    "cat": ("chelsea.png", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    "coffee": ("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    "coins": ("coins.png", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
    "grass": ("grass.png", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89"),
    "gravel": ("gravel.png", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
    "tissue": ("ihc.png", "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
    "motorcycle": (
        "motorcycle_left.png",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
}
_TRAIN_CROPS, _VAL_CROPS = 40, 10
_CROP_SIDES_PX = (64, 80, 96)
# The middle quarter of the longer side is for validation, what lies on both sides of it for
# training, so that crops of the two splits never share a pixel.
_VAL_BAND = (0.375, 0.625)
# The two-dimensional golden ratio, whose multiples cover a rectangle evenly: Roberts (2018),
# "The unreasonable effectiveness of quasirandom sequences".
_STEP_X, _STEP_Y = 0.7548776662466927, 0.5698402909980532

_STAMPS_PACKAGE = "tuxpaint-stamps-default"
_STAMPS_FOLDER = "./usr/share/tuxpaint/stamps/"
_STAMPS_SIDE_PX = 640

_FLOWERS_URL = (
    "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
)
# tensorflow_datasets/url_checksums/tf_flowers.txt, tensorflow/datasets@333639b.
_FLOWERS_SHA256 = "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"
_FLOWERS_BYTES = 228_813_984
_FLOWERS_IMAGES = 3670
_FLOWERS_MEMBER = re.compile(r"flower_photos/([a-z]{1,40})/([A-Za-z0-9_]{1,100}\.jpg)")

Pixels = NDArray[np.uint8]
"""Shape (height, width, 3)."""

Picture = tuple[str, bytes]
"""Path below the data set's folder, and the file's content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleInfo:
    """What was written."""

    name: str
    """The data set, a key of `SOURCES`."""
    folder: Path
    """Where it lies."""
    images: int
    """How many images were written."""
    classes: tuple[str, ...]
    """The class names, sorted."""
    left_out: tuple[str, ...]
    """One line for each picture that is missing or not the expected one."""


def fetch(name: str, folder: Path, *, package: Path | None = None) -> SampleInfo:
    """Write a sample data set; the folder appears when all its images are there.

    Args:
        name: A key of `SOURCES`.
        folder: Where it goes; it must be missing or empty.
        package: A Debian package that was downloaded before; for the stamps only.

    Raises:
        ValueError: There is no such data set, or it takes no package.
        MachineError: The folder is not empty (E504) or cannot be written, a package or program is
            missing (E508), or the source cannot be reached (E416).
        ArtifactError: The source is not what it should be (E412, E413).
    """
    if name not in SOURCES:
        raise ValueError(f"sample data must be one of {', '.join(SOURCES)}, got {name!r}")
    if package is not None and not name.startswith("stamps"):
        raise ValueError(f"{name} takes no package, only stamps and stamps-objects do")
    left_out: list[str] = []
    with _new_folder(folder) as part:
        if name == "patches":
            pictures, total = _make_patches(left_out), 500
        elif name == "flowers":
            pictures, total = _take_flowers(part), _FLOWERS_IMAGES
        else:
            pictures, total = _take_stamps(name, package, part, left_out), _count_stamps(name)
        paths = list(_write(progress.track(pictures, name, total=total), part))
        if not paths:
            raise ArtifactError("E412", f"the source holds no picture of {name}", path=package)
    classes = sorted({PurePosixPath(path).parent.name for path in paths})
    return SampleInfo(
        name=name,
        folder=folder,
        images=len(paths),
        classes=tuple(classes),
        left_out=tuple(sorted(left_out)),
    )


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder beside the wanted one, renamed at the end, removed on failure."""
    part = folder.with_name(f".{folder.name}.tmp-{secrets.token_hex(4)}")
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise MachineError("E504", "there is something else", path=folder, fix="name another")
        if folder.is_dir() and any(folder.iterdir()):
            message = "the folder is not empty"
            raise MachineError("E504", message, path=folder, fix="name another folder")
        part.mkdir(parents=True)
    except OSError as error:
        raise store.machine_error(error, folder) from error
    try:
        yield part
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
        store.sync_folder(folder.parent)
    except OSError as error:
        raise store.machine_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(pictures: Iterable[Picture], folder: Path) -> Iterator[str]:
    for path, content in pictures:
        store.write_bytes(folder / path, content, durable=False)
        yield path


def _encode_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _make_patches(left_out: list[str]) -> Iterator[Picture]:
    """Yield crops of each photograph, from regions of their own for the two splits."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        message = "scikit-image is not installed, and its wheel carries the photographs"
        raise MachineError("E508", message, fix='install "mnv2tl[demo]", or scikit-image')
    data = Path(found.submodule_search_locations[0]) / "data"
    for class_name, (file_name, sha256) in _PHOTOGRAPHS.items():
        path = data / file_name
        if not path.is_file() or store.sha256_file(path) != sha256:
            left_out.append(f"{file_name}: missing, or not the expected photograph")
            continue
        train, val = _divide(images.read(path))
        for split, regions, count in (("train", train, _TRAIN_CROPS), ("val", val, _VAL_CROPS)):
            for number in range(count):
                crop = _crop(regions[number % len(regions)], number)
                yield f"{split}/{class_name}/{number:02d}.png", _encode_png(crop)


def _divide(pixels: Pixels) -> tuple[list[Pixels], list[Pixels]]:
    """Return the regions for training and those for validation, shape (height, width, 3) each."""
    axis = 0 if pixels.shape[0] > pixels.shape[1] else 1
    borders = [int(pixels.shape[axis] * share) for share in _VAL_BAND]
    first, middle, last = np.split(pixels, borders, axis=axis)
    return [first, last], [middle]


def _crop(region: Pixels, number: int) -> Pixels:
    """Return the crop of this number: places spread evenly over the region, three sizes."""
    side = min(_CROP_SIDES_PX[number % len(_CROP_SIDES_PX)], *region.shape[:2])
    top = int((number + 1) * _STEP_Y % 1.0 * (region.shape[0] - side + 1))
    left = int((number + 1) * _STEP_X % 1.0 * (region.shape[1] - side + 1))
    return region[top : top + side, left : left + side]


def _read_stamp_list(name: str) -> dict[str, dict[str, str]]:
    """Return class name -> path in the package -> SHA-256 of the picture's file.

    How the list was made: the PNG files of some folders of the package, without mirrored variants
    and with at most 80 a class, evenly spread over the sorted names.
    """
    text = importlib.resources.files("mnv2tl").joinpath("stamps.json").read_text("ascii")
    listed: dict[str, dict[str, str]] = json.loads(text)[name]
    return listed


def _count_stamps(name: str) -> int:
    return sum(map(len, _read_stamp_list(name).values()))


def _take_stamps(
    name: str, package: Path | None, part: Path, left_out: list[str]
) -> Iterator[Picture]:
    """Yield the listed pictures on white; those that are missing or differ go to `left_out`."""
    network.require_program("dpkg-deb", _STAMPS_PACKAGE)
    wanted = {
        path: (class_name, sha256)
        for class_name, paths in _read_stamp_list(name).items()
        for path, sha256 in paths.items()
    }
    with tempfile.TemporaryDirectory(prefix=f"{part.name}-", dir=part.parent) as folder:
        if package is None:
            package = network.apt_download(_STAMPS_PACKAGE, Path(folder))
        for member, content in _read_package(package):
            path = member.removeprefix(_STAMPS_FOLDER)
            if path not in wanted:
                continue
            class_name, sha256 = wanted.pop(path)
            if store.sha256_bytes(content) == sha256:
                file_name = path.replace("/", "-")
                yield f"{class_name}/{file_name}", _encode_png(_shrink(content))
            else:
                left_out.append(f"{path}: not the expected picture")
    left_out += [f"{path}: not in the package" for path in wanted]


def _read_package(package: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the regular PNG members of a Debian package; nothing of it touches the disk."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package.absolute())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    small = member.size <= images.MAX_FILE_BYTES
                    if member.isreg() and small and member.name.endswith(".png"):
                        file = archive.extractfile(member)
                        if file is not None:
                            yield member.name, file.read()
        except (tarfile.TarError, EOFError) as error:
            message = "not a readable Debian package"
            raise ArtifactError("E412", message, path=package) from error
        finally:
            process.terminate()


def _shrink(content: bytes) -> Pixels:
    """Return a picture's pixels on white, its longer side at most 640 px."""
    pixels = images.decode(content, max_pixels=images.MAX_PIXELS).pixels
    scale = _STAMPS_SIDE_PX / max(pixels.shape[:2])
    if scale >= 1.0:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def _take_flowers(part: Path) -> Iterator[Picture]:
    """Yield the photographs of the archive as they are."""
    with tempfile.TemporaryDirectory(prefix=f"{part.name}-", dir=part.parent) as folder:
        path = Path(folder) / "flower_photos.tgz"
        network.download(_FLOWERS_URL, path, max_bytes=_FLOWERS_BYTES, sha256=_FLOWERS_SHA256)
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                match = _FLOWERS_MEMBER.fullmatch(member.name)
                file = archive.extractfile(member) if member.isreg() and match else None
                if file is not None and match is not None:
                    yield f"{match[1]}/{match[2]}", file.read(images.MAX_FILE_BYTES)
