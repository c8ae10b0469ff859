"""The process in which one runtime is timed alone: `python -m mnv2tl_export.benchmark_child`.

It is asked by `benchmark`; arrays of pixels come in, seconds and probabilities go out.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.memory import explain_batch, explain_shortage
from mnv2tl_export.child import Message, serve

Predict = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]

_LESS = "close other programs, or measure without --run"


def limit_cores(count: int) -> None:
    """Keep this process on so many cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


class _Runtime:
    """What is timed: opened once, then asked."""

    def __init__(self) -> None:
        self._predict: Predict

    def open(self, question: Message) -> Message:
        """Open an artifact; tell how long the import of the runtime and the opening took."""
        values = question.values
        start = time.perf_counter()
        opener = _IMPORTS[values["kind"]]()
        middle = time.perf_counter()
        self._predict = opener(values)
        end = time.perf_counter()
        return Message(values={"import_s": middle - start, "load_s": end - middle})

    def predict(self, question: Message) -> Message:
        """Return the probabilities for pixels (n, h, w, 3)."""
        pixels = question.arrays["pixels"]
        with explain_shortage(f"{len(pixels)} pictures at once", fix=_LESS):
            return Message(arrays={"probabilities": self._predict(pixels)})

    def time(self, question: Message) -> Message:
        """Return the seconds of each of so many calls on the same pixels."""
        pixels, seconds = question.arrays["pixels"], []
        with explain_batch(len(pixels), option="--batch", last=_LESS):
            for _ in range(question.values["calls"]):
                start = time.perf_counter()
                self._predict(pixels)
                seconds.append(time.perf_counter() - start)
        return Message(arrays={"seconds": np.array(seconds)})

    def measure_memory(self, question: Message) -> Message:
        """Return the most memory that this process held, in MB (10^6 bytes); None if unknown."""
        try:
            status = Path("/proc/self/status").read_text("ascii", "replace")
        except OSError:  # not Linux
            return Message(values={"peak_rss_mb": None})
        # Not getrusage: its figure begins with that of the process that started this one.
        peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        return Message(values={"peak_rss_mb": int(peaks[0]) * 1024 / 1e6 if peaks else None})


def _import_onnx() -> Callable[[Any], Predict]:
    from mnv2tl_export.runtime import open_session

    def open_it(values: Any) -> Predict:
        session = open_session(Path(values["path"]).read_bytes(), threads=values["threads"])
        return lambda pixels: np.asarray(session.run(None, {"image": pixels})[0])

    return open_it


def _import_saved_model() -> Callable[[Any], Predict]:
    from mnv2tl_export.saved_model_child import load

    return lambda values: load(Path(values["path"])).predict


def _import_keras() -> Callable[[Any], Predict]:
    from mnv2tl.backend import use_backend

    use_backend(os.environ["KERAS_BACKEND"])
    from mnv2tl.checkpoint import load_run
    from mnv2tl.keras_model import build_model, set_arrays
    from mnv2tl.metrics import softmax
    from mnv2tl.mobilenet import list_layers

    def open_it(values: Any) -> Predict:
        run = load_run(Path(values["path"]))
        config, temperature = run.info["config"], run.info["temperature"]
        px = config["image_px"]
        model = build_model(
            list_layers(alpha=config["alpha"], image_px=px),
            classes=len(run.class_names),
            input_shape=(px, px, 3),
            scaling=config["scaling"],
            activation=None,
        )
        set_arrays(model, run.read_arrays())

        def predict(pixels: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
            logits = model.predict_on_batch(pixels.astype(np.float32))
            return softmax(np.asarray(logits), temperature=temperature)

        return predict

    return open_it


_IMPORTS = {"onnx": _import_onnx, "savedmodel": _import_saved_model, "keras": _import_keras}


def main() -> None:
    """Serve until stdin is closed."""
    limit_cores(int(sys.argv[1]))
    runtime = _Runtime()
    serve(
        {
            "open": runtime.open,
            "predict": runtime.predict,
            "time": runtime.time,
            "memory": runtime.measure_memory,
        }
    )


if __name__ == "__main__":
    main()
