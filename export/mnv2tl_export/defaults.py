"""Values that the command line shows and the library uses, where neither Keras nor onnxruntime is.

`mnv2tl export --help` must not wait for either.
"""

from __future__ import annotations

FORMATS = ("onnx",)
"""What an export can write."""

BATCH_SIZE = 16
"""Pictures that are computed at once."""

TOP = 3
"""Classes that an answer names."""

PROVIDERS = ("CPUExecutionProvider",)
"""onnxruntime's execution providers, in the order of preference."""
