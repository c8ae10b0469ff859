"""Files on disk, open in one process and timed in turn; roads.py says how and why."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from benchmarks.parts.timing import Call, largest_difference, time_in_turn
from mnv2tl.data import images
from mnv2tl.metrics import softmax
from mnv2tl.progress import track

OURS = ("native", "tf2onnx")
"""Roads whose files take uint8 pixels; all others take floats."""
OPENVINO = "openvino"
BATCHES, THREADS = (1, 16), (1, 2)
_RESAMPLES = 2000
_PICTURES = ((375, 500), (1080, 1920))
"""Height and width, asked for one at a time: what most pictures of ImageNet have, and a frame of a
film."""

Pixels = NDArray[np.uint8]


def as_input(road: str, pixels: Pixels) -> NDArray[Any]:
    """Return pixels as the file of a road takes them: Keras' want floats."""
    return pixels if road in OURS else pixels.astype(np.float32)


def open_session(path: Path, *, threads: int) -> Any:
    """Return an onnxruntime session whose threads do not spin between calls."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def open_openvino(path: Path, shape: tuple[int, ...], *, threads: int) -> Callable[[Pixels], Any]:
    """Return a function from pixels of this shape to probabilities."""
    # Without this package OpenVINO reports to nobody.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_HYPER_THREADING": True,  # else two threads of one core count as one
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    return lambda pixels: request.infer([pixels])[0]


def summarise(seconds: NDArray[np.float64], native: NDArray[np.float64]) -> dict[str, Any]:
    """Return the median in ms and its ratio to that of the native file, each with its interval.

    Args:
        seconds: Shape (rounds, calls).
        native: The same of the native file, of the same rounds.
    """
    rounds = len(seconds)
    drawn = np.random.default_rng(0).integers(rounds, size=(_RESAMPLES, rounds))
    medians = np.median(seconds[drawn].reshape(_RESAMPLES, -1), axis=1)
    ratios = np.median(seconds, axis=1) / np.median(native, axis=1)
    return {
        "p50_ms": 1000 * float(np.median(seconds)),
        "p50_interval_ms": [1000 * each for each in _interval(medians)],
        "against_native": float(np.median(ratios)),
        "against_native_interval": _interval(np.median(ratios[drawn], axis=1)),
    }


def measure_latency(
    files: Mapping[str, Path], pixels: Pixels, *, rounds: int, count: int
) -> dict[str, list[dict[str, Any]]]:
    """Return a row per count of threads and batch size, for each file and for OpenVINO."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    if importlib.util.find_spec(OPENVINO) is not None:
        rows[OPENVINO] = []
    steps = [(threads, batch) for threads in THREADS for batch in BATCHES]
    for threads, batch in track(steps, "latency", total=len(steps), unit="settings"):
        shown = np.resize(pixels, (batch, *pixels.shape[1:]))
        calls: dict[str, Call] = {}
        for name, path in files.items():
            session = open_session(path, threads=threads)
            calls[name] = functools.partial(session.run, None, {"image": as_input(name, shown)})
        if OPENVINO in rows:
            ask = open_openvino(files["native"], shown.shape, threads=threads)
            calls[OPENVINO] = functools.partial(ask, shown)
        seconds = time_in_turn(calls, rounds=rounds, count=count)
        for name, each in seconds.items():
            row = {"threads": threads, "batch": batch, **summarise(each, seconds["native"])}
            rows[name].append(row)
    return rows


def measure_whole_work(
    files: Mapping[str, Path], *, image_px: int, temperature: float, rounds: int, count: int
) -> list[dict[str, Any]]:
    """Return how long decoded pictures take to their probabilities, by size, batch and threads.

    The native file holds all of that. The file that Keras writes from TensorFlow gets what it
    lacks: Pillow's resize, which is the same rule, for pictures that have not the network's size
    already; floats of the pixels, and temperature and softmax, in NumPy.

    Raises:
        UnequalError: The two answer otherwise.
    """
    rows = []
    sizes = [(image_px, image_px, batch) for batch in BATCHES]
    sizes += [(height, width, 1) for height, width in _PICTURES]
    steps = [(threads, *size) for size in sizes for threads in THREADS]
    for threads, height, width, batch in track(steps, "work", total=len(steps), unit="settings"):
        shown = np.resize(_make_picture(height, width), (batch, height, width, 3))
        native, keras = (
            open_session(files[name], threads=threads) for name in ("native", "keras-tensorflow")
        )

        def ask_native(shown: Pixels = shown, session: Any = native) -> NDArray[Any]:
            answer: NDArray[Any] = session.run(None, {"image": shown})[0]
            return answer

        def ask_keras(shown: Pixels = shown, session: Any = keras) -> NDArray[Any]:
            if shown.shape[1:3] != (image_px, image_px):
                shown = np.stack([images.resize(each, image_px) for each in shown])
            logits = session.run(None, {"image": as_input("keras-tensorflow", shown)})[0]
            return softmax(logits, temperature=temperature)

        difference = largest_difference(ask_native(), ask_keras(), limit=1e-4)
        calls = {"native": ask_native, "keras": ask_keras}
        seconds = time_in_turn(calls, rounds=rounds, count=count)
        rows.append(
            {
                "picture": [height, width],
                "batch": batch,
                "threads": threads,
                "largest_difference": difference,
                "native": summarise(seconds["native"], seconds["native"]),
                "keras-tensorflow": summarise(seconds["keras"], seconds["native"]),
            }
        )
    return rows


def _make_picture(height: int, width: int) -> Pixels:
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


def _interval(values: NDArray[np.float64]) -> list[float]:
    return [float(each) for each in np.percentile(values, [2.5, 97.5])]
