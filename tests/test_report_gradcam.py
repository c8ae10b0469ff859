from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("keras")

from mnv2tl.checkpoint import Run
from mnv2tl.data.images import read_resized
from mnv2tl.keras_model import build_model, set_arrays
from mnv2tl.mobilenet import list_layers
from mnv2tl.report.answers import Network
from mnv2tl.report.gradcam import class_maps, overlay

_TWO_BACKENDS = """
import sys
import numpy as np
from pathlib import Path
from mnv2tl.backend import use_backend
use_backend(sys.argv[1])
from mnv2tl.checkpoint import load_run
from mnv2tl.report.answers import Network
from mnv2tl.report.gradcam import class_maps
network = Network.open(load_run(Path(sys.argv[2])), runtime="keras")
features = network.trunk.run(np.load(sys.argv[3]))
labels = np.arange(len(features)) % len(network.bias)
np.save(sys.argv[4], class_maps(features, network.kernel, labels))
"""


def _read_pixels(run: Run, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    manifest, px = run.manifest, run.info["config"]["image_px"]
    paths = [manifest.path_of(entry) for entry in manifest.entries[::3][:count]]
    return np.stack([read_resized(path, px) for path in paths])


def test_class_maps_agree_with_finite_differences_through_keras(trained_run: Run) -> None:
    """Equations 1 and 2 of the paper, with the gradient measured on the Keras head itself."""
    config = trained_run.info["config"]
    network = Network.open(trained_run, runtime="keras")
    features = network.trunk.run(_read_pixels(trained_run, 2))  # (2, h, w, channels)
    _, height, width, channels = features.shape
    pool = list_layers(alpha=config["alpha"], image_px=config["image_px"])[-1:]
    head = build_model(pool, classes=3, input_shape=features.shape[1:], activation=None)
    set_arrays(head, {"predictions/kernel": network.kernel, "predictions/bias": network.bias})
    # One input per channel, moved at all places: the logits are linear in it, so a step of 1 is
    # as exact as a small one and rounds less.
    steps = np.zeros((channels, height, width, channels), np.float32)
    steps[np.arange(channels), :, :, np.arange(channels)] = 1.0

    largest = []
    for picture, label in ((0, 0), (0, 2), (1, 1)):
        above, below = (
            np.asarray(head.predict_on_batch(features[picture] + sign * steps))[:, label]
            for sign in (1, -1)
        )
        alphas = (above - below) / 2 / (height * width)
        expected = features[picture] @ alphas  # (h, w)
        found = class_maps(features[picture][np.newaxis], network.kernel, np.array([label]))[0]
        # A thousandth of the largest value, as the agreement of the backends.
        tolerance = 1e-3 * float(np.abs(expected).max())
        np.testing.assert_allclose(found, np.maximum(expected, 0.0), atol=tolerance)
        largest.append(float(found.max()))
    assert max(largest) > 0


def test_class_maps_of_keras_agree_with_those_of_the_quick_runtime(trained_run: Run) -> None:
    """The report uses whichever runtime is installed; each backend's Keras gives the same maps."""
    pixels = _read_pixels(trained_run, 3)
    labels = np.array([0, 1, 2])

    maps = []
    for runtime in ("keras", "onnxruntime"):
        network = Network.open(trained_run, runtime=runtime)
        maps.append(class_maps(network.trunk.run(pixels), network.kernel, labels))

    np.testing.assert_allclose(maps[0], maps[1], atol=1e-3 * float(maps[0].max()))


@pytest.mark.slow
def test_class_maps_on_jax_agree_with_those_on_tensorflow(trained_run: Run, tmp_path: Path) -> None:
    """One checkpoint, each backend in its own process, where both are installed."""
    backends = ("jax", "tensorflow")
    if any(importlib.util.find_spec(name) is None for name in backends):
        pytest.skip("needs both JAX and TensorFlow")
    np.save(tmp_path / "pixels.npy", _read_pixels(trained_run, 6))

    for name in backends:
        paths = (trained_run.folder, tmp_path / "pixels.npy", tmp_path / f"{name}.npy")
        words = [name, *map(str, paths)]
        env = os.environ | {"KERAS_BACKEND": name}
        subprocess.run([sys.executable, "-c", _TWO_BACKENDS, *words], check=True, env=env)

    one, other = (np.load(tmp_path / f"{name}.npy") for name in backends)
    np.testing.assert_allclose(one, other, atol=1e-3 * float(one.max()))


def test_class_maps_sum_to_the_logit_without_its_bias() -> None:
    """Where no place speaks against the class the ReLU takes nothing away."""
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 6, (4, 3, 3, 10)).astype(np.float32)
    kernel = rng.uniform(0, 1, (10, 5)).astype(np.float32)
    labels = np.array([0, 4, 2, 2])

    maps = class_maps(features, kernel, labels)

    logits = features.mean(axis=(1, 2)) @ kernel
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits[np.arange(4), labels], rtol=1e-5)


def test_class_maps_cut_what_speaks_against_the_class() -> None:
    """A place with a negative sum is 0, not negative."""
    features = np.array([[[[1.0, 0.0], [0.0, 1.0]]]], np.float32)
    kernel = np.array([[2.0], [-2.0]], np.float32)

    maps = class_maps(features, kernel, np.array([0]))

    np.testing.assert_array_equal(maps, [[[1.0, 0.0]]])


def test_overlay_is_warm_and_framed_where_the_map_is_high() -> None:
    """The left half of a grey picture turns warm, the right half stays grey; a line parts them."""
    picture = Image.new("RGB", (40, 30), (90, 90, 90))

    result = np.asarray(overlay(picture, np.array([[1.0, 0.0], [1.0, 0.0]])), np.int64)

    assert result.shape == (30, 40, 3)
    assert result[15, 3, 0] > result[15, 3, 2] + 50
    assert tuple(result[15, 38]) == (90, 90, 90)
    assert (result == 0).all(axis=2).any() or (result == 255).all(axis=2).any()


def test_overlay_of_an_empty_map_is_the_grey_picture() -> None:
    """Nothing speaks for the class: no division by zero, no colour."""
    picture = Image.new("RGB", (8, 8), (10, 200, 30))

    result = np.asarray(overlay(picture, np.zeros((3, 3))))

    assert (result == result[..., :1]).all()
