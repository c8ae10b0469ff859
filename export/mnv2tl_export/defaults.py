"""Values that the command line shows and the library uses, where neither Keras nor onnxruntime is.

`mnv2tl export --help` must not wait for either.
"""

from __future__ import annotations

import importlib.util

FILES = {
    "onnx": "model.onnx",
    "savedmodel": "saved_model",
    "onnx-fp16": "model-fp16.onnx",
    "onnx-int8": "model-int8.onnx",
}
"""What an export can write -> its file or folder in a bundle."""

FORMATS = tuple(FILES)

DERIVED = frozenset({"onnx-fp16", "onnx-int8"})
"""Formats that are made of the float32 ONNX file."""

ROADS = ("native", "tf2onnx")
"""What can write the graph of an ONNX file: this project, or TensorFlow and tf2onnx."""

ACCURACY_BUDGET = 0.01
"""Validation accuracy that fp16 and int8 may lose, as a share."""

BATCH_SIZE = 16
"""Pictures that are asked about together."""

TOP = 3
"""Classes that an answer names."""

PROVIDERS = ("CPUExecutionProvider",)
"""onnxruntime's execution providers, in the order of preference."""

REST_SECONDS = 0.1
"""Pause between runtimes that are timed in turn: threads of onnxruntime 1.32 look for work for
42 ms after a call, on a core that the next one needs."""


def default_formats() -> tuple[str, ...]:
    """Return onnx, and savedmodel where TensorFlow is installed."""
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    return ("onnx", "savedmodel") if has_tensorflow else ("onnx",)
