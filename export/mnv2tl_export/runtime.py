"""Open the bytes of an ONNX file in onnxruntime; nothing else in the project does it for exports.

The session reads from bytes and looks for external data in an empty folder, so that a file can
name no other file: loading by path follows hard links out of the model's folder (1.31).
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from mnv2tl.errors import ArtifactError, MachineError
from mnv2tl_export.defaults import PROVIDERS

_EXTERNAL = "session.model_external_initializers_file_folder_path"
# What fails is raised as an error of ours.
_FATAL_ONLY = 4

# They have no base class but Exception.
_NAMES = (
    *("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel"),
    *("NoSuchFile", "NotImplemented", "RuntimeException"),
)
RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(getattr(_state, name) for name in _NAMES if hasattr(_state, name)),
)
"""What onnxruntime raises for a model or an input that it refuses."""


def open_session(
    content: bytes,
    *,
    threads: int | None = None,
    providers: Sequence[str] = PROVIDERS,
    is_known: bool = False,
) -> Any:
    """Return an `onnxruntime.InferenceSession`, which may be called from several threads.

    Args:
        content: The file's bytes.
        threads: Threads of one call; None for one per core.
        providers: onnxruntime's execution providers, in the order of preference.
        is_known: It has opened before, so that onnxruntime prints nothing, and stdout, which is the
            whole process', stays as it is.

    Raises:
        ArtifactError: onnxruntime refuses the model (E412).
        MachineError: A provider is not available here (E508).
    """
    available = onnxruntime.get_available_providers()
    for provider in providers:
        if provider not in available:
            message = f"onnxruntime has no {provider} here, but {', '.join(available)}"
            raise MachineError("E508", message)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory(prefix="mnv2tl-empty-") as empty:
        options.add_session_config_entry(_EXTERNAL, empty)
        try:
            # onnxruntime prints its own lines to stdout when it fails, where results belong.
            with contextlib.nullcontext() if is_known else contextlib.redirect_stdout(sys.stderr):
                return onnxruntime.InferenceSession(content, options, providers=list(providers))
        except RUNTIME_ERRORS as error:
            message = f"onnxruntime refuses it: {first_line(error)}"
            raise ArtifactError("E412", message) from error


def first_line(error: Exception) -> str:
    """Return the start of an error's text, printable."""
    return ascii(str(error).partition("\n")[0][:300])[1:-1]
