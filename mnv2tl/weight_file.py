"""Read weight arrays out of `.keras`, `.weights.h5` and `.h5` files, and nothing but arrays.

A foreign model file is never deserialised by Keras: its configuration may name any code. Only the
HDF5 part is read, only float arrays of the expected names and shapes, and links that lead out of
the file are refused.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from mnv2tl.errors import ArtifactError, MachineError
from mnv2tl.store import machine_error

MAX_FILE_BYTES = 256 * 2**20
_KERAS_MEMBER = "model.weights.h5"
_MAX_OBJECTS = 20_000
_MAX_DEPTH = 12
_OPTIMIZER = {"optimizer", "optimizer_weights"}
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
# Keras 2 called the kernel of a depthwise convolution so.
_OLD_PARTS = {"depthwise_kernel": "kernel"}
# What h5py and zipfile raise for damaged files.
_PARSE_ERRORS = (
    OSError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_content(path: Path) -> bytes:
    """Return the bytes of a weight file.

    Raises:
        ArtifactError: There is no such file (E414), it is not a regular file or it has more than
            `MAX_FILE_BYTES` (E412).
        MachineError: It cannot be read.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactError("E412", "not a regular file", path=path)
            if status.st_size > MAX_FILE_BYTES:
                raise _too_large(path, status.st_size)
            return file.read(MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise ArtifactError("E414", "no such file", path=path) from error
    except IsADirectoryError as error:
        raise ArtifactError("E412", "a folder, not a file", path=path) from error
    except PermissionError as error:
        raise MachineError("E503", "not readable: permission denied", path=path) from error
    except OSError as error:
        raise machine_error(error, path) from error


def read_arrays(
    content: bytes, shapes: Mapping[str, tuple[int, ...]], *, path: Path
) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a weight file that the shapes name.

    Args:
        content: The bytes of a `.keras`, `.weights.h5` or `.h5` file; the content decides which.
        shapes: Key -> shape, as `mobilenet.array_shapes` gives them: a layer's arrays stand in the
            order in which Keras keeps them. Other arrays of the file are not read.
        path: Named in errors.

    Returns:
        The arrays in the order of `shapes`, as float32, all finite.

    Raises:
        ArtifactError: The file is damaged or holds links (E412), an array is missing or has
            another shape (E415), or a value is not finite (E602).
    """
    with _refuse_damage(path), h5py.File(io.BytesIO(_unpack(content, path)), "r") as file:
        datasets = _list_datasets(file, path)
        chosen = _choose_by_name(file, datasets, shapes, path)
        if not chosen:
            chosen = _choose_by_order(file, datasets, shapes)
        _check_shapes(chosen, shapes, path)
        return {key: _read(chosen[key], key, path) for key in shapes}


def _open_without_waiting(path: str, flags: int) -> int:
    # A FIFO would block for ever; with O_NONBLOCK it opens, and fstat tells what it is.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextlib.contextmanager
def _refuse_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _PARSE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"not a readable Keras weight file: {reason}"
        raise ArtifactError("E412", message, path=path) from error


def _unpack(content: bytes, path: Path) -> bytes:
    if not content.startswith(b"PK\x03\x04"):
        return content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.getinfo(_KERAS_MEMBER).file_size
        if size > MAX_FILE_BYTES:
            raise _too_large(path, size)
        return archive.read(_KERAS_MEMBER)


def _too_large(path: Path, size: int) -> ArtifactError:
    message = f"{size:,} bytes, allowed are {MAX_FILE_BYTES:,}"
    return ArtifactError("E412", message, path=path)


def _list_datasets(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """Return all datasets by their path in the file; refuse everything that leads elsewhere."""
    found: dict[str, h5py.Dataset] = {}
    groups = [(file["/"], "", 0)]
    seen = 0
    while groups:
        group, prefix, depth = groups.pop()
        for name in group:
            seen += 1
            if seen > _MAX_OBJECTS or depth > _MAX_DEPTH:
                raise ArtifactError("E412", "too many or too deeply nested groups", path=path)
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                message = f"{prefix}{name} is a link, which is not followed"
                raise ArtifactError("E412", message, path=path)
            item = group[name]
            if isinstance(item, h5py.Group) and not (depth == 0 and name in _OPTIMIZER):
                groups.append((item, f"{prefix}{name}/", depth + 1))
            elif isinstance(item, h5py.Dataset):
                found[f"{prefix}{name}"] = item
    return found


def _choose_by_name(
    file: h5py.File,
    datasets: Mapping[str, h5py.Dataset],
    shapes: Mapping[str, tuple[int, ...]],
    path: Path,
) -> dict[str, h5py.Dataset]:
    """Return key -> dataset for all layers that the file holds by name, at whatever depth."""
    wanted = _number_parts(shapes)
    chosen: dict[str, h5py.Dataset] = {}
    for place, dataset in datasets.items():
        group, _, part = place.rpartition("/")
        layer = group.rpartition("/")[2]
        if layer == "vars":  # Keras 3: layers/conv2d_7/vars/0, the layer's name is an attribute
            layer = str(file[group].attrs.get("name", ""))
        part = part.partition(":")[0]
        key = wanted.get((layer, _OLD_PARTS.get(part, part)))
        if key is None:
            continue
        if key in chosen:
            raise ArtifactError("E412", f"holds more than one array {key}", path=path)
        chosen[key] = dataset
    return chosen


def _number_parts(shapes: Mapping[str, tuple[int, ...]]) -> dict[tuple[str, str], str]:
    """Return (layer, part) -> key, where a part is its name and also its number in the layer.

    >>> _number_parts({"bn/gamma": (1,), "bn/beta": (1,)})[("bn", "1")]
    'bn/beta'
    """
    wanted: dict[tuple[str, str], str] = {}
    counts: dict[str, int] = {}
    for key in shapes:
        layer, _, part = key.rpartition("/")
        number = counts.get(layer, 0)
        counts[layer] = number + 1
        wanted[layer, part] = wanted[layer, str(number)] = key
    return wanted


def _choose_by_order(
    file: h5py.File, datasets: Mapping[str, h5py.Dataset], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, h5py.Dataset]:
    """Return key -> dataset by position, as Keras itself loads files with other layer names.

    Early releases of MobileNetV2 called their layers otherwise. The order of the layers and of
    their arrays stands in the attributes `layer_names` and `weight_names`.
    """
    root = "model_weights/" if "model_weights" in file else ""
    layers = file[root or "/"].attrs.get("layer_names", ())
    places = []
    for layer in map(_text, layers):
        names = file[f"{root}{layer}"].attrs.get("weight_names", ())
        places += [f"{root}{layer}/{_text(name)}" for name in names]
    known = [place for place in places if place in datasets]
    if len(known) < len(shapes):
        return {}
    return {key: datasets[place] for key, place in zip(shapes, known, strict=False)}


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _check_shapes(
    chosen: Mapping[str, h5py.Dataset], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    for key, expected in shapes.items():
        if key not in chosen:
            message = f"no array {key} of shape {expected}; it holds {len(chosen)} of {len(shapes)}"
            raise ArtifactError("E415", message, path=path)
        if chosen[key].shape != expected:
            message = f"{key} has shape {chosen[key].shape}, expected {expected}"
            fix = "give the alpha that the file was made with"
            raise ArtifactError("E415", message, path=path, fix=fix)


def _read(dataset: h5py.Dataset, key: str, path: Path) -> NDArray[np.float32]:
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    if properties.get_external_count() or dataset.is_virtual or not filters <= _FILTERS:
        message = f"{key} is kept outside the file or in an unknown coding"
        raise ArtifactError("E412", message, path=path)
    if dataset.dtype.kind != "f":
        raise ArtifactError("E412", f"{key} has type {dataset.dtype}, not float", path=path)
    array = np.asarray(dataset[()], dtype=np.float32)
    if not np.isfinite(array).all():
        raise ArtifactError("E602", f"{key} holds values that are not finite", path=path)
    return array
