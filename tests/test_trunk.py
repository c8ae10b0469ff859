from __future__ import annotations

import functools
import importlib.util
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl.errors import MachineError
from mnv2tl.mobilenet import list_layers
from tests.networks import draw_arrays

pytest.importorskip("onnx")

from mnv2tl.trunk import (
    CHUNK_IMAGES,
    GPU_VIEWS,
    Trunk,
    choose_runtime,
    open_trunk,
)

LAYERS = list_layers(alpha=0.35, image_px=96)
END = [layer.name for layer in LAYERS].index("block_6_project_BN") + 1
RUNTIMES = ("onnxruntime", "keras")


ARRAYS = draw_arrays(LAYERS)
PIXELS = np.random.default_rng(2).integers(0, 256, (69, 96, 96, 3), np.uint8)


@functools.cache
def _open(runtime: str, scaling: str = "symmetric") -> Trunk:
    """Return a short trunk; skip where its runtime is missing."""
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    return open_trunk(LAYERS[:END], ARRAYS, scaling=scaling, runtime=runtime, image_px=96)


def _count_chunks(shapes: list[tuple[int, ...]]) -> Trunk:
    """Return a trunk that notes the shape of every chunk and gives the mean of each picture."""

    def run_chunk(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        shapes.append(pixels.shape)
        means: NDArray[np.float32] = pixels.mean(axis=(1, 2), dtype=np.float32)
        return means

    return Trunk(
        runtime="none",
        identity={},
        output_shape=(3,),
        chunk_images=CHUNK_IMAGES,
        run_chunk=run_chunk,
    )


@pytest.mark.parametrize("count", [0, 1, CHUNK_IMAGES - 1, CHUNK_IMAGES, CHUNK_IMAGES + 1, 69])
def test_run_pads_the_last_chunk(count: int) -> None:
    """The runtime sees one shape only, and padding reaches no result."""
    shapes: list[tuple[int, ...]] = []

    features = _count_chunks(shapes).run(PIXELS[:count])

    expected = PIXELS[:count].mean(axis=(1, 2), dtype=np.float32)
    np.testing.assert_array_equal(features, expected)
    assert features.dtype == np.float32
    assert features.shape == (count, 3)
    assert shapes == [(CHUNK_IMAGES, 96, 96, 3)] * math.ceil(count / CHUNK_IMAGES)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("scaling", ["symmetric", "unit"])
def test_runtimes_agree(scaling: str) -> None:
    """Keras gives onnxruntime's features; bfloat16 would be 1e-2 off."""
    expected = _open("onnxruntime", scaling).run(PIXELS[:5])

    features = _open("keras", scaling).run(PIXELS[:5])

    assert features.shape == (5, *LAYERS[END - 1].output_shape)
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_features_of_an_image_do_not_depend_on_its_neighbours(runtime: str) -> None:
    """Alone, at any place of a chunk and beside any others: the same bits, so caching is exact."""
    trunk = _open(runtime)

    together = trunk.run(PIXELS)
    turned = trunk.run(PIXELS[::-1])[::-1]
    alone = np.concatenate([trunk.run(PIXELS[i : i + 1]) for i in (0, 7, 63, 64, 68)])

    np.testing.assert_array_equal(together, turned)
    np.testing.assert_array_equal(together, trunk.run_in_threads(PIXELS))
    np.testing.assert_array_equal(together[[0, 7, 63, 64, 68]], alone)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_results_survive_the_next_call(runtime: str) -> None:
    """A runtime may hand out its own buffer, which the next call overwrites."""
    trunk = _open(runtime)

    first = trunk.run(PIXELS[:1])
    copy = first.copy()
    trunk.run(PIXELS[1:2])

    np.testing.assert_array_equal(first, copy)


@pytest.mark.usefixtures("backend")
def test_identity_tells_apart_what_gives_other_features() -> None:
    """Runtime, scaling, weights and cut each change it; opening again does not."""
    identities = [_open(runtime).identity for runtime in RUNTIMES]
    identities.append(_open("onnxruntime", "unit").identity)
    other = ARRAYS | {"Conv1/kernel": ARRAYS["Conv1/kernel"] * np.float32(1.01)}
    for layers, arrays in ((LAYERS[:END], other), (LAYERS[: END - 1], ARRAYS)):
        trunk = open_trunk(layers, arrays, scaling="symmetric", runtime="onnxruntime", image_px=96)
        identities.append(trunk.identity)

    assert all(identities.count(identity) == 1 for identity in identities)
    assert {identity["precision"] for identity in identities} == {"float32"}
    _open.cache_clear()
    assert [_open(runtime).identity for runtime in RUNTIMES] == identities[:2]


def test_identity_of_keras_names_its_backend(backend: str) -> None:
    """JAX and TensorFlow round differently, so they must not share features."""
    assert _open("keras").identity["backend"] == backend
    assert "backend" not in _open("onnxruntime").identity


def test_an_empty_trunk_gives_the_pixels_back() -> None:
    """All layers train then; neither runtime nor weights matter."""
    trunk = open_trunk((), {}, scaling="symmetric", runtime="keras", image_px=96)

    features = trunk.run(PIXELS[:3])

    assert trunk.runtime == "none"
    assert trunk.output_shape == (96, 96, 3)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, PIXELS[:3])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_choose_runtime_takes_the_wanted_one(runtime: str) -> None:
    """Even on a graphics card."""
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")

    assert choose_runtime(runtime) == runtime
    assert choose_runtime(runtime, has_gpu=lambda: True) == runtime


def test_choose_runtime_prefers_what_was_measured_fastest() -> None:
    """The bare runtime on a processor, Keras on a graphics card if that has enough to do."""
    assert choose_runtime(views=GPU_VIEWS) == "onnxruntime"
    assert choose_runtime("auto", has_gpu=pytest.fail, views=GPU_VIEWS - 1) == "onnxruntime"
    assert choose_runtime("auto", has_gpu=lambda: True, views=GPU_VIEWS) == "keras"


def test_choose_runtime_refuses_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """E508 with the command that installs it; no silent change to another."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MachineError) as caught:
        choose_runtime("onnxruntime")

    assert caught.value.code == "E508"
    assert caught.value.line().endswith(
        "the runtime onnxruntime is not installed. Fix: pip install onnxruntime"
    )


def test_row_42_images_that_do_not_fit_name_a_smaller_network() -> None:
    """How many are computed at once is no setting."""

    def fail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise MemoryError

    trunk = Trunk(runtime="keras", identity={}, output_shape=(3,), chunk_images=16, run_chunk=fail)

    with pytest.raises(MachineError) as caught:
        trunk.run(np.zeros((2, 96, 96, 3), np.uint8))

    assert caught.value.line() == (
        "error[E505 out-of-memory] images in the frozen layers did not fit into memory. "
        "Fix: close other programs, or try a smaller --image-px or --alpha"
    )
