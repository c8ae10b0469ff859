from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl import weight_file
from mnv2tl.errors import ArtifactError

SHAPES = {
    "Conv1/kernel": (3, 3, 3, 8),
    "bn_Conv1/gamma": (8,),
    "bn_Conv1/beta": (8,),
    "bn_Conv1/moving_mean": (8,),
    "bn_Conv1/moving_variance": (8,),
    "expanded_conv_depthwise/kernel": (3, 3, 8, 1),
}
ARRAYS = {
    key: np.random.default_rng(number).normal(size=shape).astype(np.float32)
    for number, (key, shape) in enumerate(SHAPES.items())
}


def _read(path: Path) -> dict[str, NDArray[np.float32]]:
    return weight_file.read_arrays(weight_file.read_content(path), SHAPES, path=path)


def _assert_equal(found: dict[str, NDArray[np.float32]]) -> None:
    assert list(found) == list(SHAPES)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(found[key], array)


def _write(path: Path, **changed: NDArray[np.generic]) -> Path:
    """Write the legacy layout; keys of changed arrays have __ for the slash."""
    with h5py.File(path, "w") as file:
        for key, array in ARRAYS.items():
            layer, _, part = key.partition("/")
            value = changed.get(key.replace("/", "__"), array)
            file[f"model_weights/base/{layer}/{part}"] = value
    return path


# Keras 3.15 asks NumPy for arrays in a way that NumPy 2 calls deprecated.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("nested", [False, True])
def test_read_arrays_reads_what_keras_writes(tmp_path: Path, suffix: str, nested: bool) -> None:
    """All three file kinds of Keras, flat or with the base as a layer, give the same arrays."""
    keras = pytest.importorskip("keras")
    image = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(8, 3, use_bias=False, name="Conv1")(image)
    features = keras.layers.BatchNormalization(name="bn_Conv1")(features)
    depthwise = keras.layers.DepthwiseConv2D(3, use_bias=False, name="expanded_conv_depthwise")
    base = keras.Model(image, depthwise(features), name="base")
    base.set_weights(list(ARRAYS.values()))
    layers = [keras.layers.Rescaling(1 / 255), base] if nested else [*base.layers[1:]]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, *head])
    model.compile("adam", "categorical_crossentropy")
    path = tmp_path / f"model{suffix}"

    (model.save_weights if suffix == ".weights.h5" else model.save)(path)

    _assert_equal(_read(path))


def test_read_arrays_reads_names_of_keras_2(tmp_path: Path) -> None:
    """Keras 2 wrote `:0` behind each name and called the depthwise kernel otherwise."""
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        for key, array in ARRAYS.items():
            layer, _, part = key.partition("/")
            part = "depthwise_kernel" if "depthwise" in layer else part
            file[f"{layer}/{layer}/{part}:0"] = array

    _assert_equal(_read(path))


@pytest.mark.parametrize("root", ["", "model_weights/"])
def test_read_arrays_goes_by_order_when_all_names_differ(tmp_path: Path, root: str) -> None:
    """Keras loads such files by the order of their attributes, and so do we."""
    path = tmp_path / "renamed.h5"
    with h5py.File(path, "w") as file:
        layers = {"Conv1": "mobl0", "bn_Conv1": "bn0", "expanded_conv_depthwise": "a_mobl1"}
        for layer, renamed in layers.items():
            group = file.create_group(f"{root}{renamed}")
            parts = [key.partition("/")[2] for key in SHAPES if key.startswith(f"{layer}/")]
            group.attrs["weight_names"] = [f"{renamed}/{part}:0".encode() for part in parts]
            for part in parts:
                group[f"{renamed}/{part}:0"] = ARRAYS[f"{layer}/{part}"]
        file[root or "/"].attrs["layer_names"] = [name.encode() for name in layers.values()]

    _assert_equal(_read(path))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_read_arrays_gives_float32_whatever_float_the_file_holds(
    tmp_path: Path, dtype: type[np.floating]
) -> None:
    """Other float widths are converted."""
    kernel = ARRAYS["Conv1/kernel"].astype(dtype)

    found = _read(_write(tmp_path / "a.h5", Conv1__kernel=kernel))["Conv1/kernel"]

    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, kernel.astype(np.float32))


def test_read_arrays_refuses_another_shape_and_names_layer_expected_and_got(tmp_path: Path) -> None:
    """The message is enough to see that alpha differs."""
    path = _write(tmp_path / "a.h5", Conv1__kernel=np.zeros((3, 3, 3, 16), np.float32))

    with pytest.raises(ArtifactError) as caught:
        _read(path)

    assert caught.value.code == "E415"
    expected = "Conv1/kernel has shape (3, 3, 3, 16), expected (3, 3, 3, 8)"
    assert caught.value.message == expected


def test_read_arrays_refuses_a_file_that_lacks_an_array(tmp_path: Path) -> None:
    """The first missing array is named."""
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["model_weights/base/bn_Conv1/beta"]

    with pytest.raises(ArtifactError, match=r"E415 .*no array bn_Conv1/beta of shape \(8,\)"):
        _read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_read_arrays_refuses_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    """One bad value is enough."""
    beta = ARRAYS["bn_Conv1/beta"].copy()
    beta[3] = value

    with pytest.raises(ArtifactError, match=r"E602 not-finite.*bn_Conv1/beta"):
        _read(_write(tmp_path / "a.h5", bn_Conv1__beta=beta))


def test_read_arrays_refuses_whole_numbers(tmp_path: Path) -> None:
    """Quantised weights would be read as something that they are not."""
    path = _write(tmp_path / "a.h5", bn_Conv1__beta=np.zeros(8, np.int8))

    with pytest.raises(ArtifactError, match="has type int8, not float"):
        _read(path)


@pytest.mark.parametrize("link", [h5py.SoftLink("/other"), h5py.ExternalLink("/etc/passwd", "/")])
def test_read_arrays_follows_no_link(tmp_path: Path, link: object) -> None:
    """A link could name another file of the user's."""
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["model_weights/base/linked"] = link

    with pytest.raises(ArtifactError, match="model_weights/base/linked is a link"):
        _read(path)


def test_read_arrays_refuses_arrays_kept_in_another_file(tmp_path: Path) -> None:
    """External storage would put any file's bytes into the weights."""
    path = _write(tmp_path / "a.h5")
    (tmp_path / "secret").write_bytes(bytes(32))
    with h5py.File(path, "a") as file:
        del file["model_weights/base/bn_Conv1/beta"]
        group = file["model_weights/base/bn_Conv1"]
        external = [(str(tmp_path / "secret"), 0, 32)]
        group.create_dataset("beta", (8,), np.float32, external=external)

    with pytest.raises(ArtifactError, match="bn_Conv1/beta is kept outside the file"):
        _read(path)


def test_read_arrays_refuses_virtual_arrays(tmp_path: Path) -> None:
    """A virtual array is another way to read another file."""
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["model_weights/base/bn_Conv1/beta"]
        layout = h5py.VirtualLayout((8,), np.float32)
        layout[:] = h5py.VirtualSource("other.h5", "x", shape=(8,))
        file["model_weights/base/bn_Conv1"].create_virtual_dataset("beta", layout)

    with pytest.raises(ArtifactError, match="bn_Conv1/beta is kept outside the file"):
        _read(path)


def test_read_arrays_refuses_two_layers_of_one_name(tmp_path: Path) -> None:
    """Which of the two is meant is not for us to guess."""
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["model_weights/twin/Conv1/kernel"] = ARRAYS["Conv1/kernel"]

    with pytest.raises(ArtifactError, match="more than one array Conv1/kernel"):
        _read(path)


def test_read_arrays_ends_on_groups_that_hold_themselves(tmp_path: Path) -> None:
    """A hard link may lead back up; the depth limit stops the walk."""
    path = _write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["model_weights/base/again"] = file["model_weights"]

    with pytest.raises(ArtifactError, match="too many or too deeply nested groups"):
        _read(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_read_arrays_refuses_a_truncated_file(tmp_path: Path, suffix: str, share: float) -> None:
    """A broken file is E412 with exit 4, never a traceback."""
    whole = _write(tmp_path / "whole.h5")
    if suffix == ".keras":
        with zipfile.ZipFile(tmp_path / "whole.keras", "w") as archive:
            archive.write(whole, "model.weights.h5")
        whole = tmp_path / "whole.keras"
    content = whole.read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(ArtifactError, match="E412 bad-model") as caught:
        _read(path)

    assert caught.value.exit_code == 4


def test_read_arrays_refuses_a_keras_file_without_weights(tmp_path: Path) -> None:
    """A zip of something else is not a model."""
    path = tmp_path / "other.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")

    with pytest.raises(ArtifactError, match=r"E412 .*model.weights.h5"):
        _read(path)


def test_read_arrays_refuses_a_member_that_claims_too_many_bytes(tmp_path: Path) -> None:
    """The size in the zip's directory is checked before anything is unpacked."""
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"x")
    content = bytearray(path.read_bytes())
    # The size stands 24 bytes behind the mark of the directory's entry.
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, 2**31)
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match="2,147,483,648 bytes, allowed are 268,435,456"):
        _read(path)


def test_read_content_refuses_a_file_that_is_too_large(tmp_path: Path) -> None:
    """The file is refused by its size, before it is read."""
    path = tmp_path / "large.h5"
    path.touch()
    os.truncate(path, weight_file.MAX_FILE_BYTES + 1)

    with pytest.raises(ArtifactError, match="268,435,457 bytes, allowed are 268,435,456"):
        weight_file.read_content(path)


def test_read_content_refuses_a_fifo_without_waiting(tmp_path: Path) -> None:
    """Opening a FIFO plainly would wait for a writer for ever."""
    path = tmp_path / "fifo.h5"
    os.mkfifo(path)

    with pytest.raises(ArtifactError, match="not a regular file"):
        weight_file.read_content(path)


def test_read_content_tells_a_missing_file_from_a_folder(tmp_path: Path) -> None:
    """Both are artifact errors with a code of their own."""
    with pytest.raises(ArtifactError, match=r"E414 weights-missing.*no such file"):
        weight_file.read_content(tmp_path / "missing.h5")
    with pytest.raises(ArtifactError, match=r"E412 bad-model.*(a folder|not a regular file)"):
        weight_file.read_content(tmp_path)
