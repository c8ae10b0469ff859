"""Choose the Keras backend before Keras is imported, which is the only time it can be chosen."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from mnv2tl.errors import MachineError, install_extra
from mnv2tl.memory import keep_freed_memory, spare_collector

BACKENDS = ("jax", "tensorflow")

# Level I is information; the first line announces that such lines follow.
_START_UP_NOTES = (b"I0000 ", b"WARNING: All log messages before absl::InitializeLog()")


def choose_backend(wanted: str | None = None) -> str:
    """Return the backend to use: the wanted one, else KERAS_BACKEND, else what is installed.

    Args:
        wanted: One of `BACKENDS`, or None.

    Raises:
        ValueError: The name is not one of `BACKENDS`.
        MachineError: It is not installed, or neither is (E508).
    """
    name = wanted or os.environ.get("KERAS_BACKEND") or None
    if name is not None and name not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {name!r}")
    for candidate in (name,) if name else BACKENDS:
        if importlib.util.find_spec(candidate) is not None:
            return candidate
    missing = name or "jax or tensorflow"
    extra = name or "jax"
    raise MachineError("E508", f"{missing} is not installed", fix=install_extra(extra))


def use_backend(name: str) -> None:
    """Make Keras use a backend in this process, quietly.

    Raises:
        MachineError: Keras is not installed (E508).
        RuntimeError: Keras is already imported with another backend.
    """
    if importlib.util.find_spec("keras") is None:
        raise MachineError("E508", "keras is not installed", fix=install_extra(name))
    if "keras" in sys.modules and sys.modules["keras"].backend.backend() != name:
        raise RuntimeError(f"Keras already runs on another backend than {name} in this process")
    os.environ["KERAS_BACKEND"] = name
    spare_collector()
    if name == "jax":
        keep_freed_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if name == "tensorflow" and "tensorflow" not in sys.modules:
        with _without_start_up_notes():
            import tensorflow

            tensorflow.config.list_logical_devices()  # which prints some more


@contextlib.contextmanager
def _without_start_up_notes() -> Iterator[None]:
    """Keep TensorFlow's notes on its own start-up off the terminal; pass everything else on.

    TF_CPP_MIN_LOG_LEVEL does not reach what TensorFlow 2.21 prints before its logging is set up.
    """
    with _open_memory() as kept:
        sys.stderr.flush()
        real = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            kept.seek(0)
            for line in kept:
                if not line.startswith(_START_UP_NOTES):
                    os.write(2, line)
            os.close(real)


def _open_memory() -> IO[bytes]:
    """Return a file that needs no room on a disk, where the system has such."""
    if hasattr(os, "memfd_create"):  # Linux
        with contextlib.suppress(OSError):  # forbidden in some containers
            return os.fdopen(os.memfd_create("notes"), "w+b")
    return tempfile.TemporaryFile()


def has_gpu(name: str) -> bool:
    """Tell whether the backend computes on a graphics card."""
    if name == "jax":
        import jax

        return str(jax.default_backend()) == "gpu"
    import tensorflow

    return bool(tensorflow.config.list_physical_devices("GPU"))


def list_versions() -> dict[str, str]:
    """Return the versions of what decides a result, where installed."""
    names = (
        *("mnv2tl", "keras", "jax", "jaxlib", "tensorflow", "tensorflow-cpu", "numpy", "pillow"),
        *("onnx", "onnxruntime", "openvino", "scipy", "tf2onnx"),
    )
    versions = {"python": sys.version.split()[0]}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
