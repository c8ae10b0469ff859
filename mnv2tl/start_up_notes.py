"""Keep what TensorFlow prints about its own start-up off stderr; all else passes at once.

TF_CPP_MIN_LOG_LEVEL does not reach what TensorFlow 2.21 prints before its logging is set up.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

# Level I is information; the first line announces that such lines follow.
_NOTE = re.compile(
    rb"(?:WARNING: All log messages before absl::InitializeLog\(\)|I0000 [0-9:.]+ +\d+ \S+:\d+\])"
    rb"[^\n]*(?P<end>\n|\Z)"
)
_MARK = b"\0"
"""Follows what shall have passed; no text has it, and no read can cut it in two."""
_STDERR = 2

_sieve: _Sieve | None = None


@contextlib.contextmanager
def hide_start_up_notes() -> Iterator[None]:
    """Keep TensorFlow's notes off stderr while the block runs, whoever writes to it."""
    global _sieve
    with contextlib.suppress(AttributeError, OSError, ValueError):  # none, unread, or closed
        sys.stderr.flush()
    try:
        real = os.dup(_STDERR)
    except OSError:  # it is closed
        yield
        return
    _sieve = _Sieve(real)
    os.dup2(_sieve.sink, _STDERR)
    try:
        yield
    finally:
        os.dup2(real, _STDERR)
        pass_on()


def pass_on() -> None:
    """Return when all that was written to stderr until now is where it goes."""
    if _sieve is not None:
        _sieve.pass_on()


class _Sieve:
    """A pipe with a thread behind it, which writes to a file what is no note.

    It stays until the process ends: others that were started meanwhile may write to the pipe.
    """

    def __init__(self, real: int) -> None:
        self.source, self.sink = os.pipe()
        self.real = real
        self.passed = threading.Semaphore(0)
        threading.Thread(target=self._run, name="start-up notes", daemon=True).start()

    def pass_on(self) -> None:
        """Return when all that was written before is on its way."""
        os.write(self.sink, _MARK)
        self.passed.acquire()

    def _run(self) -> None:
        held = b""
        while chunk := os.read(self.source, 1 << 16):
            *before, held = (held + chunk).split(_MARK)
            for part in before:
                self._write(_NOTE.sub(b"", part))
                self.passed.release()
            passed, held = sift(held)
            self._write(passed)

    def _write(self, content: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads it any more
            while content:
                content = content[os.write(self.real, content) :]


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
