"""Ask another process: JSON and arrays go through its pipes, and nothing that could run.

TensorFlow lives in such a process while Keras runs on JAX here, and a foreign model runs in one
whose memory is limited. A message is one line of JSON, then the raw bytes of the arrays it names.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from mnv2tl import errors
from mnv2tl.errors import MachineError, Mnv2tlError

_TYPES = frozenset({"uint8", "float32", "float64", "int64"})
_MAX_LINE = 64 * 2**20
_MAX_ARRAY = 4 * 2**30
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What goes through a pipe, either way."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """JSON."""
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """uint8, float32, float64 or int64."""


Answer = Callable[[Message], Message]


class ChildEndedError(Exception):
    """The other process is gone.

    Args:
        returncode: Its exit code; below zero the signal that ended it.
        last_words: The last line that it wrote to stderr.
    """

    def __init__(self, returncode: int, last_words: str) -> None:
        self.returncode = returncode
        self.last_words = last_words
        super().__init__(f"the process ended with {returncode}: {last_words or 'no message'}")


class Child:
    """A Python process that runs a module which calls `serve`; usable from several threads.

    Args:
        module: Its name, such as `mnv2tl_export.saved_model_child`.
        words: Arguments of its command line.
        env: Changes of the environment.
        memory_bytes: Largest address space, where the system can limit it; None for no limit.
    """

    def __init__(
        self,
        module: str,
        *words: str,
        env: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self._notes = tempfile.TemporaryFile()
        self._lock = threading.Lock()
        limit = [] if memory_bytes is None else [f"--memory-bytes={memory_bytes}"]
        # -P: a file in the working directory must not stand in for a package.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *words, *limit],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._notes,
            env={**os.environ, **(env or {})},
        )
        # Popen gives them whenever PIPE is asked for.
        self._questions = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)

    def ask(
        self, what: str, *, arrays: Mapping[str, NDArray[Any]] | None = None, **values: Any
    ) -> Message:
        """Send a question and return the answer.

        Args:
            what: A key of what the module serves.
            arrays: Go with it.
            values: JSON; go with it.

        Raises:
            ChildEndedError: The process died.
            Mnv2tlError: It answered with an expected error, which is raised here.
        """
        with self._lock:
            try:
                question = Message(values={"what": what, **values}, arrays=arrays or {})
                _write(self._questions, question)
                answer = _read(self._answers)
            except (OSError, EOFError) as error:
                raise self._ended() from error
        if "error" in answer.values:
            raise _make_error(answer.values["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        for pipe in (self._questions, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._notes.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def _ended(self) -> ChildEndedError:
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._notes.seek(0)
        lines = self._notes.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
        return ChildEndedError(code, ascii(lines[-1])[1:-1] if lines else "")


def serve(answers: Mapping[str, Answer]) -> None:
    """Answer questions from stdin until it is closed; for the module that `Child` runs.

    What anything prints goes to stderr, so that it does not mix with the answers.

    Args:
        answers: What is asked -> function of the question.
    """
    _limit_memory(sys.argv)
    with os.fdopen(os.dup(1), "wb") as out, os.fdopen(os.dup(0), "rb") as questions:
        os.dup2(2, 1)
        while True:
            try:
                question = _read(questions)
            except EOFError:
                return
            try:
                answer = answers[question.values["what"]](question)
            except MemoryError:
                answer = _describe_error(MachineError("E505", "it needs more memory than allowed"))
            except Mnv2tlError as error:
                answer = _describe_error(error)
            _write(out, answer)


def _limit_memory(words: list[str]) -> None:
    limits = [word.partition("=")[2] for word in words if word.startswith("--memory-bytes=")]
    if limits and os.name != "nt":
        import resource  # noqa: PLC0415

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = int(limits[0]) if hard == resource.RLIM_INFINITY else min(int(limits[0]), hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _describe_error(error: Mnv2tlError) -> Message:
    return Message(values={"error": {"class": type(error).__name__, **error.to_json()}})


def _make_error(value: Mapping[str, Any]) -> Mnv2tlError:
    kind: type[Mnv2tlError] = getattr(errors, value["class"])
    return kind(value["code"], value["message"], path=value["path"], fix=value["fix"])


def _write(pipe: IO[bytes], message: Message) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    heads = [[name, array.dtype.name, array.shape] for name, array in arrays.items()]
    line = json.dumps({"values": message.values, "arrays": heads})
    pipe.write(line.encode("ascii") + b"\n")
    for array in arrays.values():
        pipe.write(array.data.cast("B") if array.size else b"")
    pipe.flush()


def _read(pipe: IO[bytes]) -> Message:
    line = pipe.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        raise EOFError("the other process ended")
    head = json.loads(line)
    arrays = {}
    for name, kind, shape in head["arrays"]:
        if kind not in _TYPES:
            raise ValueError(f"arrays of {kind} are not taken")
        dtype = np.dtype(kind)
        count = math.prod(shape) * dtype.itemsize
        if count > _MAX_ARRAY:
            raise ValueError(f"an array of {count} bytes is not taken")
        arrays[name] = np.frombuffer(_read_all(pipe, count), dtype).reshape(shape)
    return Message(values=head["values"], arrays=arrays)


def _read_all(pipe: IO[bytes], count: int) -> bytes:
    content = pipe.read(count)
    if len(content) != count:
        raise EOFError("the other process ended")
    return content
