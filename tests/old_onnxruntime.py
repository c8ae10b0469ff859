"""Ask an onnxruntime of two years ago about models that today's packages write.

`nox -s old_onnxruntime` runs it twice: `make` writes models and what they answer, with packages of
today; `compare` needs NumPy and onnxruntime, and nothing of this project.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

LIMIT = 1e-5
"""Allowed difference of a probability; 1.19 gives equal bits on the machine of the author."""
PX = 96
# As wanted, stretched, shrunk, and one pixel; the number of pictures differs too.
SHAPES = ((2, PX, PX, 3), (3, 41, 67, 3), (1, 240, 321, 3), (1, 1, 1, 3))


def make(folder: Path, files: list[Path]) -> None:
    """Write models into a folder, copy others to it, and put beside each what it answers.

    Args:
        folder: An empty folder.
        files: Further .onnx files, such as those of a bundle.
    """
    tiny = Path(__file__).with_name("golden") / "tiny.onnx"
    (folder / "drawn.onnx").write_bytes(_draw_model())
    for number, file in enumerate([tiny, *files]):
        (folder / f"{number}-{file.name}").write_bytes(file.read_bytes())
    rng = np.random.default_rng(1)
    np.savez(folder / "pictures.npz", *(rng.integers(0, 256, each, np.uint8) for each in SHAPES))
    for path in sorted(folder.glob("*.onnx")):
        np.savez(path.with_suffix(".npz"), *_answer(path, folder))


def compare(folder: Path) -> None:
    """Ask every model of a folder again, and end the program if an answer differs."""
    for path in sorted(folder.glob("*.onnx")):
        answers = zip(_answer(path, folder), _load(path.with_suffix(".npz")), strict=True)
        difference = max(float(np.abs(found - expected).max()) for found, expected in answers)
        print(f"onnxruntime {onnxruntime.__version__}, {path.name}: differs by {difference:.1e}")
        if not difference <= LIMIT:
            sys.exit(f"allowed is {LIMIT:.0e}")


def _answer(path: Path, folder: Path) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pictures = _load(folder / "pictures.npz")
    return [session.run(["probabilities"], {"image": each})[0] for each in pictures]


def _load(path: Path) -> list[NDArray[Any]]:
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays]


def _draw_model() -> bytes:
    """Return a whole network with drawn weights."""
    from mnv2tl.mobilenet import DENSE, layer_array_shapes, list_layers
    from mnv2tl_export.onnx_model import write_model

    layers = list_layers(alpha=0.35, image_px=PX)
    shapes = {f"{DENSE}/kernel": (layers[-1].channels, 3), f"{DENSE}/bias": (3,)}
    for layer in layers:
        shapes |= layer_array_shapes(layer)
    rng = np.random.default_rng(4)
    arrays = {}
    for key, shape in shapes.items():
        if key.endswith("/kernel"):
            fan_in = math.prod(shape[:2]) if "depthwise" in key else math.prod(shape[:-1])
            array = rng.normal(0.0, math.sqrt(2 / fan_in), shape)
        else:
            array = np.full(shape, float(key.endswith(("/gamma", "/moving_variance"))))
        arrays[key] = array.astype(np.float32)
    return write_model(
        arrays, alpha=0.35, image_px=PX, scaling="symmetric", temperature=1.5, metadata={}
    )


def main() -> None:
    """Run one of both steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("make", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="*", help="further .onnx files, for make")
    arguments = parser.parse_args()
    if arguments.step == "make":
        make(arguments.folder, arguments.files)
    else:
        compare(arguments.folder)


if __name__ == "__main__":
    main()
