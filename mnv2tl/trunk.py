"""Run the frozen layers: through onnxruntime, or through Keras.

On a graphics card Keras runs them for many images, since the onnxruntime that this project installs
knows the CPU only.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl import backend
from mnv2tl.config import RUNTIMES
from mnv2tl.errors import MachineError
from mnv2tl.memory import explain_shortage
from mnv2tl.mobilenet import Layer
from mnv2tl.onnx_graph import Arrays, write_trunk
from mnv2tl.parallel import map_ordered
from mnv2tl.store import sha256_bytes

CHUNK_IMAGES = 16
"""Keras gets this many images at a time, the last ones padded: one compiled shape, and what it says
of an image does not depend on how many others are asked for."""

GPU_CHUNK_IMAGES = 64
"""The same on a graphics card: an H100 takes 64 at more than three times the rate of 16."""

GPU_VIEWS = 30_000
"""For fewer the processors are done first: compiling for a graphics card takes a while. An H100
beside 16 processors breaks even at 33,000, see benchmarks/results/gpu-frozen.json."""

_LESS = "close other programs, or try a smaller --image-px or --alpha"

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """The frozen layers, ready to run."""

    runtime: str
    """One of `RUNTIMES`, or `none` when no layer is frozen."""
    identity: dict[str, Any]
    """What decides its features: weights, layers, scaling, runtime, version, precision."""
    output_shape: tuple[int, ...]
    """Shape of one image's features."""
    chunk_images: int
    """Images that are computed at a time; more of them take more memory."""
    run_chunk: Run
    """Features of exactly `chunk_images` images."""

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of images; several threads may ask at once.

        Args:
            pixels: Shape (n, px, px, 3), values 0 to 255, any n.

        Returns:
            Shape (n, *output_shape).

        Raises:
            MachineError: A few images did not fit into memory (E505).
        """
        features = np.empty((len(pixels), *self.output_shape), np.float32)
        for start in range(0, len(pixels), self.chunk_images):
            chunk = pixels[start : start + self.chunk_images]
            missing = self.chunk_images - len(chunk)
            if missing:
                chunk = np.concatenate([chunk, np.zeros((missing, *chunk.shape[1:]), np.uint8)])
            stop = min(start + self.chunk_images, len(pixels))
            with explain_shortage("images in the frozen layers", fix=_LESS):
                features[start:stop] = self.run_chunk(chunk)[: stop - start]
        return features

    def run_in_threads(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the same as `run`, sooner: it computes in one thread per processor."""
        starts = range(0, len(pixels), self.chunk_images)
        parts = map_ordered(
            lambda start: self.run(pixels[start : start + self.chunk_images]), starts
        )
        return np.concatenate([*parts, self.run(pixels[:0])])


def choose_runtime(
    wanted: str = "auto", *, has_gpu: Callable[[], bool] = lambda: False, views: int = 0
) -> str:
    """Return the runtime to use.

    Args:
        wanted: One of `RUNTIMES`, or `auto` for the first one that is installed.
        has_gpu: Tells whether the Keras backend computes on a graphics card; it is asked only
            where that matters.
        views: How many views of images a training needs.

    Raises:
        MachineError: The wanted runtime is not installed (E508).
    """
    if wanted != "auto":
        if importlib.util.find_spec(wanted) is None:
            fix = f"pip install {wanted}"
            raise MachineError("E508", f"the runtime {wanted} is not installed", fix=fix)
        return wanted
    if views >= GPU_VIEWS and has_gpu():
        return "keras"
    return next(name for name in RUNTIMES if importlib.util.find_spec(name) is not None)


def open_trunk(
    layers: Sequence[Layer], arrays: Arrays, *, scaling: str, runtime: str, image_px: int
) -> Trunk:
    """Return the frozen layers in a runtime.

    Args:
        layers: The first layers of the network; empty gives pixels back as features.
        arrays: Their weights, keyed `layer/name`.
        scaling: A key of `scaling.SCALINGS`.
        runtime: One of `RUNTIMES`.
        image_px: Side of the input in pixels.
    """
    if not layers:
        return Trunk(
            runtime="none",
            identity={"runtime": "none", "image_px": image_px},
            output_shape=(image_px, image_px, 3),
            chunk_images=1,
            run_chunk=lambda pixels: pixels.astype(np.float32),
        )
    content = write_trunk(layers, arrays, scaling=scaling)
    if runtime == "keras":
        run_chunk = _open_keras(layers, arrays, scaling, image_px)  # imports Keras
        has_gpu = backend.has_gpu(sys.modules["keras"].backend.backend())
        chunk_images = GPU_CHUNK_IMAGES if has_gpu else CHUNK_IMAGES
    else:
        chunk_images, run_chunk = 1, _open_onnxruntime(content)
    identity = {
        "graph_sha256": sha256_bytes(content),
        "runtime": runtime,
        "runtime_version": sys.modules[runtime].__version__,
        "precision": "float32",
        "chunk_images": chunk_images,
    }
    if runtime == "keras":
        identity["backend"] = sys.modules["keras"].backend.backend()
    return Trunk(
        runtime=runtime,
        identity=identity,
        output_shape=layers[-1].output_shape,
        chunk_images=chunk_images,
        run_chunk=run_chunk,
    )


def _open_onnxruntime(content: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Threads that work at one image wait for each other after every layer; whoever has many images
    # asks from many threads.
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, {"image": pixels})[0]
        return output

    return run


def _open_keras(layers: Sequence[Layer], arrays: Arrays, scaling: str, image_px: int) -> Run:
    import keras

    from mnv2tl.keras_model import build_trunk, set_arrays  # noqa: PLC0415

    model = build_trunk(layers, scaling=scaling, image_px=image_px)
    set_arrays(model, arrays)
    lock = threading.Lock()  # a Keras model is asked by one thread at a time

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with lock:
            answer = model.predict_on_batch(pixels)
        features: NDArray[np.float32] = keras.ops.convert_to_numpy(answer)
        return features

    return run
