"""Sample data sets: real pictures, one folder per class, the same for everyone who fetches them.

`patches` needs no network, `stamps` and `stamps-objects` a Debian archive, `flowers` the public
network. Every picture is known by its SHA-256 beforehand; others are left out.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mnv2tl import fetch as network
from mnv2tl import progress, sample_patches, sample_stamps, store
from mnv2tl.data import images
from mnv2tl.errors import ArtifactError, ExistsError
from mnv2tl.sample_picture import Picture

SOURCES = {
    "flowers": "TensorFlow's flower_photos: 3,670 photographs of 5 kinds of flowers (CC BY 2.0)",
    "patches": "500 crops of 10 photographs in scikit-image's wheel, in 10 classes (public domain)",
    "stamps": "434 pictures of Debian's tuxpaint-stamps-default in 10 classes (GPL-2.0)",
    "stamps-objects": "182 other pictures of the same package in 11 classes (GPL-2.0)",
}
"""Name -> what it is, where it comes from, and its licence."""

_FLOWERS_URL = (
    "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz"
)
# tensorflow_datasets/url_checksums/tf_flowers.txt, tensorflow/datasets@333639b.
_FLOWERS_SHA256 = "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"
_FLOWERS_BYTES = 228_813_984
_FLOWERS_IMAGES = 3670
_FLOWERS_MEMBER = re.compile(r"flower_photos/([a-z]{1,40})/([A-Za-z0-9_]{1,100}\.jpg)")


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
    """Write a sample data set; its classes appear when all images are there.

    Args:
        name: A key of `SOURCES`.
        folder: Where it goes; it must be missing or empty.
        package: A Debian package that was downloaded before; for the stamps only.

    Raises:
        ValueError: There is no such data set, or it takes no package.
        ExistsError: The folder is not empty (E504).
        MachineError: It cannot be written, a package or program is
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
            pictures, total = sample_patches.make_patches(left_out), 500
        elif name == "flowers":
            pictures, total = _take_flowers(part), _FLOWERS_IMAGES
        else:
            pictures = sample_stamps.take_stamps(name, package, part, left_out)
            total = sample_stamps.count(name)
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
    """Give a folder beside the wanted one, renamed at the end, removed on failure.

    An empty folder that is there is filled at the end, since it may be somebody's current one.
    """
    folder = folder.absolute()  # "." has no name of its own
    part = folder.with_name(f".{folder.name}.tmp-{secrets.token_hex(4)}")
    try:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ExistsError("E504", "there is something else", path=folder, fix="name another")
        if folder.is_dir() and any(folder.iterdir()):
            message = "the folder is not empty"
            raise ExistsError("E504", message, path=folder, fix="name another folder")
        part.mkdir(parents=True)
    except OSError as error:
        raise store.machine_error(error, folder) from error
    try:
        yield part
        if folder.exists():
            _move_content(part, folder)
            store.sync_folder(folder)
        else:
            part.rename(folder)
            store.sync_folder(folder.parent)
    except OSError as error:
        raise store.machine_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _move_content(source: Path, target: Path) -> None:
    """Move all that lies in a folder to another one, or nothing of it."""
    moved = []
    try:
        for each in sorted(source.iterdir()):
            each.rename(target / each.name)
            moved.append(each)
    except BaseException:
        for each in moved:
            (target / each.name).rename(each)
        raise


def _write(pictures: Iterable[Picture], folder: Path) -> Iterator[str]:
    for path, content in pictures:
        store.write_bytes(folder / path, content, durable=False)
        yield path


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
