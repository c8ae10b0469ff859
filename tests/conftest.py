"""What all tests share: a cache of their own, a backend, and a small folder of drawn images."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mnv2tl import progress

if TYPE_CHECKING:
    from mnv2tl.checkpoint import Run

# Keras takes TensorFlow where nothing is said; the tests take what is installed, JAX first.
for _name in ("jax", "tensorflow"):
    if importlib.util.find_spec(_name) is not None:
        os.environ.setdefault("KERAS_BACKEND", _name)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Many trainings of one shape: what XLA compiled for one of them serves the others.
_COMPILED = tempfile.TemporaryDirectory(prefix="mnv2tl-xla-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _COMPILED.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

IMAGES_PER_CLASS = 12
_SIDE_PX = 64


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNV2TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _speaking() -> Iterator[None]:
    """Take back what a test said about progress."""
    yield
    progress.set_quiet(False)


@pytest.fixture
def backend() -> str:
    """Return the Keras backend of this test run; skip the test if none is installed."""
    name = os.environ.get("KERAS_BACKEND")
    if name is None or importlib.util.find_spec("keras") is None:
        pytest.skip("no Keras backend is installed")
    return name


@pytest.fixture(scope="session")
def _drawn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw the images of `tiny_folder` once."""
    root = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(20)
    for class_name, colour in (("disc", "red"), ("square", "lime"), ("stripes", "blue")):
        (root / class_name).mkdir()
        for number in range(IMAGES_PER_CLASS):
            noise = rng.integers(0, 90, (_SIDE_PX, _SIDE_PX, 3), np.uint8)
            image = Image.fromarray(noise)
            _draw(ImageDraw.Draw(image), class_name, colour, rng)
            image.save(root / class_name / f"{number:02d}.png")
    return root


def _draw(draw: ImageDraw.ImageDraw, shape: str, colour: str, rng: np.random.Generator) -> None:
    left, top = (int(each) for each in rng.integers(2, 28, 2))
    side = int(rng.integers(20, 34))
    if shape == "disc":
        draw.ellipse((left, top, left + side, top + side), fill=colour)
    elif shape == "square":
        draw.rectangle((left, top, left + side, top + side), fill=colour)
    else:
        for x in range(left % 8, _SIDE_PX, 16):
            draw.line((x, 0, x, _SIDE_PX), fill=colour, width=side // 5)


@pytest.fixture
def tiny_folder(_drawn_folder: Path, tmp_path: Path) -> Path:
    """Return a folder of this test alone: 3 classes, 12 PNG images of 64 x 64 pixels each.

    disc is red, square is green, stripes is blue, each on dark noise, at different places.
    """
    return Path(shutil.copytree(_drawn_folder, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def _run_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def trained_run(_run_place: Path, _drawn_folder: Path, backend: str) -> Run:
    """Return a finished run on the drawn images, trained once; do not change it."""
    from mnv2tl.checkpoint import load_run
    from mnv2tl.config import TrainConfig
    from mnv2tl.data.scan_config import ScanConfig
    from mnv2tl.train import train

    if not (_run_place / "run.json").exists():
        config = TrainConfig(
            data=_drawn_folder,
            out=_run_place,
            alpha=0.35,
            image_px=96,
            weights="none",
            epochs=3,
            batch_size=8,
            views=2,
            backend=backend,
            scan=ScanConfig(near_duplicates=False),
        )
        train(config)
    return load_run(_run_place)
