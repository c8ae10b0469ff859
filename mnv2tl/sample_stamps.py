"""The sample data `stamps` and `stamps-objects`: pictures of a Debian package, laid on white."""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnv2tl import fetch, store
from mnv2tl.data import images
from mnv2tl.errors import ArtifactError
from mnv2tl.sample_picture import Picture, encode_png

_PACKAGE = "tuxpaint-stamps-default"
_FOLDER = "./usr/share/tuxpaint/stamps/"
_SIDE_PX = 640


def read_list(name: str) -> dict[str, dict[str, str]]:
    """Return class name -> path in the package -> SHA-256 of the picture's file.

    How the list was made: the PNG files of some folders of the package, without mirrored variants
    and with at most 80 a class, evenly spread over the sorted names.
    """
    text = importlib.resources.files("mnv2tl").joinpath("stamps.json").read_text("ascii")
    listed: dict[str, dict[str, str]] = json.loads(text)[name]
    return listed


def count(name: str) -> int:
    """Return how many pictures are listed.

    >>> count("stamps")
    434
    """
    return sum(map(len, read_list(name).values()))


def take_stamps(
    name: str, package: Path | None, part: Path, left_out: list[str]
) -> Iterator[Picture]:
    """Yield the listed pictures on white.

    Args:
        name: "stamps" or "stamps-objects".
        package: The Debian package, or None to download it.
        part: The download lies beside this path while it is read.
        left_out: Gets a line for each picture that is missing or not the listed one.
    """
    fetch.require_program("dpkg-deb", _PACKAGE)
    wanted = {
        path: (class_name, sha256)
        for class_name, paths in read_list(name).items()
        for path, sha256 in paths.items()
    }
    with tempfile.TemporaryDirectory(prefix=f"{part.name}-", dir=part.parent) as folder:
        if package is None:
            package = fetch.apt_download(_PACKAGE, Path(folder))
        for member, content in _read_package(package):
            path = member.removeprefix(_FOLDER)
            if path not in wanted:
                continue
            class_name, sha256 = wanted.pop(path)
            if store.sha256_bytes(content) == sha256:
                file_name = path.replace("/", "-")
                yield f"{class_name}/{file_name}", encode_png(shrink(content))
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


def shrink(content: bytes) -> NDArray[np.uint8]:
    """Return a picture's pixels on white, its longer side at most 640 px."""
    pixels = images.decode(content, max_pixels=images.MAX_PIXELS).pixels
    scale = _SIDE_PX / max(pixels.shape[:2])
    if scale >= 1.0:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)
