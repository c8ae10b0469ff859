"""Keep what TensorFlow prints about its own start-up off stderr; all else passes within a moment.

TF_CPP_MIN_LOG_LEVEL does not reach what TensorFlow 2.21 prints before its logging is set up.

Descriptor 2 becomes a file meanwhile, which a thread reads. A pipe would lock: whoever fills it may
hold the interpreter, which the thread needs to empty it. What a process says as it crashes in the
block is lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO

# Level I is information; the first line announces that such lines follow.
_NOTE = re.compile(
    rb"(?:WARNING: All log messages before absl::InitializeLog\(\)|I0000 [0-9:.]+ +\d+ \S+:\d+\])"
    rb"[^\n]*(?P<end>\n|\Z)"
)
_STDERR = 2
_POLL_SECONDS = 0.05

_sieve: _Sieve | None = None


@contextlib.contextmanager
def hide_start_up_notes() -> Iterator[None]:
    """Keep TensorFlow's notes off stderr while the block runs, whoever writes to it.

    On Windows, whose consoles take no such detour, they are shown.
    """
    global _sieve
    with contextlib.suppress(AttributeError, OSError, ValueError):  # none, unread, or closed
        sys.stderr.flush()
    sieve = None
    if hasattr(os, "pread"):
        with contextlib.suppress(OSError):  # stderr is closed, or there is no room
            sieve = _Sieve()
    if sieve is None:
        yield
        return
    _sieve = sieve
    try:
        yield
    finally:
        sieve.close()
        _sieve = None


def pass_on() -> None:
    """Let all that was written to stderr until now go where it belongs."""
    if _sieve is not None:
        _sieve.pass_on()


class _Sieve:
    """A file in the place of stderr, and a thread that passes on what is no note."""

    def __init__(self) -> None:
        self._real = os.dup(_STDERR)
        try:
            self._kept = _open_memory()
        except OSError:
            os.close(self._real)
            raise
        self._at = 0
        self._held = b""
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="start-up notes", daemon=True)
        self._thread.start()
        os.dup2(self._kept.fileno(), _STDERR)

    def pass_on(self) -> None:
        """Write what came since the last time, but for notes; nothing once it is closed."""
        with self._lock:
            while not self._kept.closed:
                chunk = os.pread(self._kept.fileno(), 1 << 16, self._at)
                if not chunk:
                    break
                self._at += len(chunk)
                passed, self._held = sift(self._held + chunk)
                self._write(passed)

    def close(self) -> None:
        """Put stderr back where it was, when all is passed on."""
        self.pass_on()
        os.dup2(self._real, _STDERR)
        self._is_over.set()
        self._thread.join()
        self.pass_on()
        with self._lock:
            self._kept.close()
            os.close(self._real)

    def _run(self) -> None:
        while not self._is_over.wait(_POLL_SECONDS):
            self.pass_on()

    def _write(self, content: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            while content:
                try:
                    content = content[os.write(self._real, content) :]
                except BlockingIOError:
                    time.sleep(_POLL_SECONDS)


def _open_memory() -> IO[bytes]:
    """Return a file that needs no room on a disk, where the system has such."""
    if hasattr(os, "memfd_create"):  # Linux
        with contextlib.suppress(OSError):  # forbidden in some containers
            return os.fdopen(os.memfd_create("stderr"), "w+b")
    return tempfile.TemporaryFile()


def sift(content: bytes) -> tuple[bytes, bytes]:
    r"""Return what is no note, and a note at the end whose rest is not there yet.

    >>> sift(b"a\nI0000 00:00:1795.1    7 port.cc:153] on.\nb")
    (b'a\nb', b'')
    >>> sift(b"aI0000 00:00:1795.1    7 port.cc:15] on")
    (b'a', b'I0000 00:00:1795.1    7 port.cc:15] on')
    """
    held = b""
    for note in _NOTE.finditer(content):
        if not note["end"]:
            content, held = content[: note.start()], content[note.start() :]
    return _NOTE.sub(b"", content), held
