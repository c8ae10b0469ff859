"""Choose the Keras backend before Keras is imported, which is the only time it can be chosen."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator

import mnv2tl
from mnv2tl.errors import MachineError, install_extra
from mnv2tl.memory import keep_freed_memory, pause_collector, spare_collector
from mnv2tl.start_up_notes import hide_start_up_notes

BACKENDS = ("jax", "tensorflow")

# Names of JAX; on a CPU both are float32.
_FULL, _FAST = "highest", "default"

_import_lock = threading.Lock()
_is_importing = False

# What Keras and TensorFlow import where it is installed, for galleries of pictures and to convert
# models of JAX to another format: up to half a second each.
_UNUSED = {"jax": ("matplotlib",), "tensorflow": ("matplotlib", "jax")}
# The same, to take data and models of whoever uses Keras: in a command that is nobody.
_TAKEN = ("IPython", "pandas", "sklearn")
_UNUSED_BY_COMMANDS = {"jax": _TAKEN, "tensorflow": (*_TAKEN, "scipy")}


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
        source = "" if wanted else " from KERAS_BACKEND"
        raise ValueError(f"backend must be one of {BACKENDS}, got {name!r}{source}")
    for candidate in (name,) if name else BACKENDS:
        if importlib.util.find_spec(candidate) is not None:
            return candidate
    missing = name or "jax or tensorflow"
    extra = name or "jax"
    raise MachineError("E508", f"{missing} is not installed", fix=install_extra(extra))


def use_backend(name: str) -> None:
    """Make Keras use a backend in this process, quietly, and import both; it takes seconds.

    Where matplotlib was not imported before, `keras.visualization` says in this process that it is
    not installed; in a command, Keras takes pandas and scikit-learn for missing too.

    Raises:
        MachineError: Keras or the backend is not installed (E508).
        RuntimeError: Keras is already imported with another backend.
    """
    with _import_lock:
        prepare_process(name)
        if "keras" not in sys.modules:
            _import_keras(name)
    if name == "tensorflow":
        sys.modules[name].config.experimental.enable_tensor_float_32_execution(False)


def _import_keras(name: str) -> None:
    global _is_importing
    _is_importing = True
    try:
        others = _UNUSED_BY_COMMANDS[name] if mnv2tl.is_command else ()
        with pause_collector(), _hidden(*_UNUSED[name], *others):
            if name == "tensorflow" and "tensorflow" not in sys.modules:
                with hide_start_up_notes():
                    import tensorflow

                    tensorflow.config.list_logical_devices()  # which prints some more
            importlib.import_module("keras")
        gc.freeze()  # what was imported stays
    finally:
        _is_importing = False


def is_importing() -> bool:
    """Tell whether a thread imports Keras and its backend now, which cannot be stopped."""
    return _is_importing


def imported_backend() -> str | None:
    """Return the backend of Keras in this process; None if Keras is not imported."""
    if "keras" not in sys.modules:
        return None
    # Another thread may still import it; this waits for it.
    name: str = importlib.import_module("keras").backend.backend()
    return name


def prepare_process(name: str) -> None:
    """Set this process up for a backend, at once; `use_backend` does so before it imports.

    Call it before threads are started.

    Raises:
        MachineError: Keras or the backend is not installed (E508).
        RuntimeError: Keras is already imported with another backend.
    """
    _require("keras", extra=name)
    if imported_backend() not in (None, name):
        raise RuntimeError(f"Keras already runs on another backend than {name} in this process")
    _require(name, extra=name)
    os.environ["KERAS_BACKEND"] = name
    spare_collector()
    if name == "jax":
        keep_freed_memory()
        _keep_float32()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def _require(package: str, *, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MachineError("E508", f"{package} is not installed", fix=install_extra(extra))


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Make packages that are not imported yet look as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # None: cannot be imported
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _keep_float32() -> None:
    """Make JAX compute float32 in full on graphics cards too, unless the user says otherwise.

    NVIDIA's take TensorFloat-32 for it, which keeps 10 of 23 bits: on an H100 that moved
    probabilities by 0.009, and no exported file answers so.
    """
    name = "JAX_DEFAULT_MATMUL_PRECISION"
    if "jax" not in sys.modules:
        os.environ.setdefault(name, _FULL)
    elif sys.modules["jax"].config.jax_default_matmul_precision is None:
        sys.modules["jax"].config.update(name.lower(), _FULL)


@contextlib.contextmanager
def training_precision(name: str) -> Iterator[None]:
    """Let a backend compute the block with the precision that its device is made for.

    The steps of a training bear it; what is said of an image does not, see `use_backend`. A
    precision that the user chose stays (`float32` is full in training too), and so does that of
    TensorFlow, which has one switch for all.
    """
    if name != "jax":
        yield
        return
    import jax

    chosen = jax.config.jax_default_matmul_precision
    with jax.default_matmul_precision(_FAST if chosen == _FULL else chosen):
        yield


@contextlib.contextmanager
def on_processor(name: str) -> Iterator[None]:
    """Let JAX compute the block on the CPU, where a graphics card is there too.

    XLA tries out how a card computes each convolution best, which takes most of a minute for the
    whole network; and the exported files, which are held against it, answer on a CPU as well.
    """
    if name != "jax" or not has_gpu(name):
        yield
        return
    import jax

    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names the card alone
        device = None
    with jax.default_device(device):
        yield


def has_gpu(name: str) -> bool:
    """Tell whether the backend computes on a graphics card, at this place of the program."""
    if name == "jax":
        import jax

        device = jax.config.jax_default_device or jax.devices()[0]
        # What the environment says is a name.
        return str(getattr(device, "platform", device)) in ("gpu", "cuda", "rocm")
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
