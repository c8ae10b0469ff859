"""What a process does with memory: keep what was freed, collect seldom, name what lacks."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

from mnv2tl.errors import MachineError

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MOST_BYTES = 2**31 - 1
_COLLECTED_OBJECTS = 10_000
"""New objects after which Python looks for cycles among them; its own default is 700 or 2,000."""


def keep_freed_memory() -> None:
    """Let this process reuse large blocks of memory; call it before threads are started.

    XLA on a CPU asks for the memory of a whole step anew each time, glibc takes such blocks from
    the system and gives them back, and the system fills every page with zeros: a third of the time
    of a forward or training step of MobileNetV2. Peak memory stays what it is; memory is given
    back when the process ends. Without glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _MOST_BYTES)
    mallopt(_ARENA_MAX, 1)  # threads' own arenas map what is larger than their 64 MB


def spare_collector() -> None:
    """Let Python look for reference cycles less often in this process, and not at its end.

    Keras and a backend make some hundred thousand objects that stay. By default Python goes through
    them hundreds of times while a network is built, and once more before the process ends.
    """
    first, *others = gc.get_threshold()
    if first:  # 0: somebody has turned the collector off
        gc.set_threshold(max(first, _COLLECTED_OBJECTS), *others)
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)


@contextlib.contextmanager
def pause_collector() -> Iterator[None]:
    """Let Python look for no reference cycles in a block, or in a function that this decorates.

    It walks through all objects again and again while many are made, and finds nothing where no
    cycles are: a fifth of the time of a scan of known files, a tenth of an import of TensorFlow.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# What the libraries say when there is no room; the last one is oneDNN's number for it.
_MARKS = (
    *("RESOURCE_EXHAUSTED", "OOM when allocating", "Out of memory", "out of memory", "bad_alloc"),
    *("bad allocation", "Failed to allocate memory", "received an exception:Status: 1,"),
)


@contextlib.contextmanager
def explain_shortage(what: str, *, fix: str) -> Iterator[None]:
    """Turn what Python, a backend or a runtime raises for lack of memory into one expected error.

    Args:
        what: What did not fit, such as `batch 64`.
        fix: What the user can do, in the imperative.

    Raises:
        MachineError: There is not enough memory (E505).
    """
    try:
        yield
    except MemoryError as error:
        raise MachineError("E505", f"{what} did not fit into memory", fix=fix) from error
    except _list_foreign() as error:
        if not any(mark in str(error) for mark in _MARKS):
            raise
        raise MachineError("E505", f"{what} did not fit into memory", fix=fix) from error


SMALLER = "try a smaller --image-px or --alpha, or fewer --trainable-layers"
"""What helps where a training has no number to lower."""


def explain_batch(
    batch_size: int, *, option: str = "--batch-size", last: str = SMALLER
) -> contextlib.AbstractContextManager[None]:
    """Name the half of a batch size that did not fit; see `explain_shortage`.

    Args:
        batch_size: Images that were computed at once.
        option: What sets it.
        last: What helps where one image is too much.
    """
    fix = last if batch_size < 2 else f"try {option} {batch_size // 2}"
    return explain_shortage(f"batch {batch_size}", fix=fix)


def _list_foreign() -> tuple[type[Exception], ...]:
    """Return the classes of the errors in which libraries that are loaded report it.

    JAX raises a RuntimeError, onnxruntime and TensorFlow errors of their own.
    """
    # A thread may be importing them: then they lack these names for a while.
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)
    state = sys.modules.get("onnxruntime.capi.onnxruntime_pybind11_state")
    places = ((errors, "OpError"), (state, "Fail"), (state, "RuntimeException"))
    found = (getattr(place, name, None) for place, name in places)
    return RuntimeError, *(kind for kind in found if kind is not None)
