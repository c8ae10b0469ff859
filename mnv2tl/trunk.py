"""Run the frozen layers: through OpenVINO if it is installed, else onnxruntime, else Keras.

On a graphics card Keras runs them, since the runtimes that this project installs know the CPU only.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.config import RUNTIMES
from mnv2tl.errors import MachineError
from mnv2tl.memory import explain_shortage
from mnv2tl.mobilenet import Layer
from mnv2tl.onnx_graph import Arrays, write_trunk
from mnv2tl.store import sha256_bytes

CHUNK_IMAGES = 16
"""Every call of a runtime gets this many images, the last one padded: one compiled shape, and an
image's features do not depend on how many others are asked for."""

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
    run_chunk: Run
    """Features of exactly `CHUNK_IMAGES` images."""

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of images.

        Args:
            pixels: Shape (n, px, px, 3), values 0 to 255, any n.

        Returns:
            Shape (n, *output_shape).

        Raises:
            MachineError: A few images did not fit into memory (E505).
        """
        features = np.empty((len(pixels), *self.output_shape), np.float32)
        for start in range(0, len(pixels), CHUNK_IMAGES):
            chunk = pixels[start : start + CHUNK_IMAGES]
            missing = CHUNK_IMAGES - len(chunk)
            if missing:
                chunk = np.concatenate([chunk, np.zeros((missing, *chunk.shape[1:]), np.uint8)])
            stop = min(start + CHUNK_IMAGES, len(pixels))
            with explain_shortage(f"{CHUNK_IMAGES} images in the frozen layers", fix=_LESS):
                features[start:stop] = self.run_chunk(chunk)[: stop - start]
        return features


def choose_runtime(wanted: str = "auto", *, has_gpu: bool = False) -> str:
    """Return the runtime to use.

    Args:
        wanted: One of `RUNTIMES`, or `auto` for the first one that is installed.
        has_gpu: The Keras backend computes on a graphics card.

    Raises:
        MachineError: The wanted runtime is not installed (E508).
    """
    if wanted != "auto":
        if importlib.util.find_spec(wanted) is None:
            fix = f"pip install {wanted}"
            raise MachineError("E508", f"the runtime {wanted} is not installed", fix=fix)
        return wanted
    if has_gpu:
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
            run_chunk=lambda pixels: pixels.astype(np.float32),
        )
    content = write_trunk(layers, arrays, scaling=scaling)
    open_runtime = {"openvino": _open_openvino, "onnxruntime": _open_onnxruntime}
    if runtime == "keras":
        run_chunk = _open_keras(layers, arrays, scaling, image_px)
    else:
        run_chunk = open_runtime[runtime](content, image_px)
    identity = {
        "graph_sha256": sha256_bytes(content),
        "runtime": runtime,
        "runtime_version": sys.modules[runtime].__version__,
        "precision": "float32",
    }
    if runtime == "keras":
        identity["backend"] = sys.modules["keras"].backend.backend()
    return Trunk(
        runtime=runtime,
        identity=identity,
        output_shape=layers[-1].output_shape,
        run_chunk=run_chunk,
    )


def _open_openvino(content: bytes, image_px: int) -> Run:
    # Importing OpenVINO sends usage data to its maker unless this package is missing; it then
    # falls back to a stub of its own (openvino/tools/ovc/telemetry_utils.py, 2026.4).
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    core = openvino.Core()
    model = core.read_model(content)
    model.reshape([CHUNK_IMAGES, image_px, image_px, 3])
    # Without the hint OpenVINO computes in bfloat16 on CPUs that have it.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = request.infer([pixels])[0]
        return output

    return run


def _open_onnxruntime(content: bytes, image_px: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
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

    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = keras.ops.convert_to_numpy(model.predict_on_batch(pixels))
        return features

    return run
