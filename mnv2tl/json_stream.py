"""A stand-in for stderr on which every line is one JSON object."""

from __future__ import annotations

import contextlib
import io
import json
import math
import threading
import time
from typing import IO, Any

_WARNING = "warning: "


class JsonStream(io.TextIOBase):
    """Stands in for stderr: turns each line that anything prints into a JSON object.

    Args:
        real: Where the objects go.
    """

    def __init__(self, real: IO[str]) -> None:
        self.real = real
        self._rest = ""
        self._lock = threading.RLock()

    # click and logging ask for these; what is written is ASCII.
    encoding = "utf-8"
    errors = "backslashreplace"

    def emit(self, *, message: str, level: str = "info", **values: Any) -> None:
        """Write one object."""
        if message.startswith(_WARNING):
            level, message = "warning", message.removeprefix(_WARNING)
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        head = {"time": f"{stamp}.{int(now % 1 * 1000):03}Z", "level": level, "message": message}
        line = json.dumps(_finite({**head, **values}), default=str)
        # Nobody may read the log any more; the work goes on.
        with self._lock, contextlib.suppress(BrokenPipeError):
            self.real.write(line + "\n")
            self.real.flush()

    def write(self, text: str) -> int:
        """Take what somebody prints; whole lines become objects."""
        if not isinstance(text, str):
            raise TypeError(f"text is needed, got {type(text).__name__}")
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                if line.strip():
                    self.emit(event="output", message=line)
        return len(text)

    def finish(self) -> None:
        """Write what no end of a line followed."""
        self.write("\n")

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the number of the real stream."""
        return self.real.fileno()


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
