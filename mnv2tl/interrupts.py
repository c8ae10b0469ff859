"""Stop at a signal, even if it arrives where an exception is lost.

Extension modules drop an exception that a signal handler raises while they convert arguments, and
Python itself drops one raised in a finalizer or a callback of a weak reference, after a traceback.
A Ctrl-C then does nothing. So the handler also notes the signal, and long loops ask for it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from types import FrameType
from typing import Any, TypeVar

from mnv2tl.errors import InterruptError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SIGNAL_SECONDS = 0.1
_pending: int | None = None

Result = TypeVar("Result")


@contextlib.contextmanager
def watch_signals() -> Iterator[None]:
    """Raise `InterruptError` at Ctrl-C or a termination while the block runs.

    A second signal does what it did before the block. Keras makes a RuntimeError of what is raised
    inside of a layer; here it becomes an interruption again. Outside the main thread, where Python
    allows no handlers, nothing changes.
    """
    global _pending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.getsignal(number) for number in _SIGNALS}
    former_hook = sys.unraisablehook

    def note(number: int, frame: FrameType | None) -> None:
        global _pending
        _pending = number
        _set_handlers(former)
        raise _error(number)

    def tell_lost(lost: sys.UnraisableHookArgs) -> None:
        # What is noted is not lost, so nobody needs its traceback.
        if not isinstance(lost.exc_value, InterruptError):
            former_hook(lost)

    sys.unraisablehook = tell_lost
    _pending = None
    _set_handlers(dict.fromkeys(_SIGNALS, note))
    try:
        yield
    except InterruptError:
        raise
    except Exception:
        raise_pending()
        raise
    finally:
        _set_handlers(former)
        _pending = None
        if sys.unraisablehook is tell_lost:
            sys.unraisablehook = former_hook


def raise_pending() -> None:
    """Raise `InterruptError` if a signal came in the block that runs."""
    if _pending is not None:
        raise _error(_pending)


def wait_for(future: Future[Result]) -> Result:
    """Return what a future gives; a signal ends the wait, on Windows too.

    Raises:
        InterruptError: A signal came, see `watch_signals`.
    """
    while not wait([future], _SIGNAL_SECONDS).done:
        raise_pending()
    return future.result()


def _set_handlers(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _error(number: int) -> InterruptError:
    return InterruptError(number, "stopped by a signal; what was saved before is kept")
