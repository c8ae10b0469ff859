"""Let other processes decode the files of a scan, and go on without those that end or hang.

A worker gets a list of files and answers in order, so the first file without an answer is the one
it was at. When it ends or takes too long another one takes its place, and each file that it still
had is tried once more, alone; a file that is not answered then either is left out. Paths and
answers go through pipes as lines of JSON. The other stages read in threads: they take only files
whose bytes, by their SHA-256, a scan has decoded.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from mnv2tl.data.records import Record
from mnv2tl.errors import MachineError
from mnv2tl.parallel import count_workers

DIED = "decoder-died"
TIMEOUT = "decoder-timeout"

_TRIES = 2
_JOB_FILES = 64
_FILES_PER_WORKER = 32
"""A worker takes 0.1 s to start, in which it would decode about so many small files."""
_START_SECONDS = 60.0
_POLL_SECONDS = 1.0  # Windows hears Ctrl-C only between two waits
_MAX_LINE = 16 * 2**20
_MAX_QUESTION = 32 * 2**10 - 16
"""Bytes of a question; a pipe of Linux holds twice as many and more, so that asking never waits."""
_CAN_ASK_AHEAD = os.name != "nt"  # where a pipe holds as little as 4 KiB
_LONGEST_TEXT = 1000
_KEPT = re.compile(r"PATH|LANG|LC_.*|PYTHON.*|TMPDIR|TEMP|TMP|SYSTEMROOT|LD_LIBRARY_PATH|DYLD_.*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PACKAGES = str(Path(__file__).resolve().parents[2])
# -P: a file in the working directory must not stand in for a package. What holds this package goes
# to the end of the path, where nothing in it can either.
_START = (
    "import sys; sys.path.append(sys.argv[1]); from mnv2tl.data.scan_worker import main; main()",
    _PACKAGES,
)

_TYPES: dict[str, type] = {
    **dict.fromkeys(("sha256", "format", "code", "reason"), str),
    **dict.fromkeys(("width", "height", "dhash"), int),
    "notes": list,
}


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    deadline: float
    """Of `time.monotonic`, for its next answer."""
    is_ready: bool = False
    waiting: collections.deque[int] = field(default_factory=collections.deque)
    """Which files have no answer yet."""
    last: int = 0
    """How many files the last question was about."""


def read_files(
    files: Sequence[str], options: Mapping[str, Any], *, seconds: float, workers: int | None = None
) -> Generator[Record]:
    """Yield what a scan learns of each file, in order.

    The workers end with the iterator, and by themselves if this process is killed.

    Args:
        files: Absolute paths.
        options: `max_pixels` and `hash`, as `scan_worker.main` takes them.
        seconds: How long a worker may take for one file.
        workers: At most so many processes; None for one per processor.

    Raises:
        MachineError: Workers do not start (E509).
    """
    most = min(workers or count_workers(), -(-len(files) // _FILES_PER_WORKER))
    pool = _Pool(files, options, seconds, most)
    try:
        yield from pool.read()
    finally:
        pool.close()


class _Pool:
    def __init__(
        self, files: Sequence[str], options: Mapping[str, Any], seconds: float, most: int
    ) -> None:
        self._files, self._seconds, self._most = files, seconds, most
        self._options = json.dumps({**options, "seconds": seconds})
        size = min(max(len(files) // (8 * max(most, 1)), 1), _JOB_FILES)
        self._jobs = collections.deque(_cut_jobs(files, size))
        self._done: dict[int, Record] = {}
        self._tries: collections.Counter[int] = collections.Counter()
        self._workers: list[_Worker] = []
        self._events: queue.SimpleQueue[tuple[_Worker, bytes]] = queue.SimpleQueue()

    def read(self) -> Iterator[Record]:
        """Yield the records in the order of the files."""
        for index in range(len(self._files)):
            while index not in self._done:
                self._hand_out()
                self._listen()
            yield self._done.pop(index)

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            _reap(worker.process)
        self._workers.clear()

    def _hand_out(self) -> None:
        """Give jobs to workers that have none, and start workers for the others."""
        for worker in self._workers:
            while worker.is_ready and self._jobs and self._may_ask(worker):
                self._ask(worker)
        starting = sum(not worker.is_ready for worker in self._workers)
        for _ in range(min(self._most - len(self._workers), len(self._jobs) - starting)):
            self._start()

    def _may_ask(self, worker: _Worker) -> bool:
        """Tell whether a worker has nothing to do, or soon will: it need not wait for us then.

        Two questions at a time fit into a pipe. What is tried again must be alone, and the last
        jobs are for those who are free.
        """
        if not worker.waiting:
            return True
        is_at_last = len(worker.waiting) <= worker.last
        is_early = len(self._jobs) > self._most and not self._tries
        return _CAN_ASK_AHEAD and is_at_last and is_early

    def _ask(self, worker: _Worker) -> None:
        job = self._jobs.popleft()
        if not worker.waiting:
            worker.deadline = time.monotonic() + self._seconds
        worker.waiting.extend(job)
        worker.last = len(job)
        line = json.dumps([self._files[index] for index in job])
        questions = cast(IO[bytes], worker.process.stdin)
        with contextlib.suppress(OSError):  # it has ended, and will be heard to
            questions.write(line.encode("ascii") + b"\n")
            questions.flush()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-c", *_START, self._options]
        pipe = subprocess.PIPE
        # Nothing secret goes along. The threads of OpenBLAS take 70 ms to start.
        environment = {key: value for key, value in os.environ.items() if _KEPT.fullmatch(key)}
        environment["OPENBLAS_NUM_THREADS"] = "1"
        try:
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
            )
        except OSError as error:
            raise _not_started(str(error)) from error
        worker = _Worker(process=process, deadline=time.monotonic() + _START_SECONDS)
        self._workers.append(worker)
        threading.Thread(target=self._forward, args=(worker,), daemon=True).start()

    def _forward(self, worker: _Worker) -> None:
        """Pass on what a worker says, and at last an empty line; in a thread of its own."""
        answers = cast(IO[bytes], worker.process.stdout)
        with answers, contextlib.suppress(OSError):
            while line := answers.readline(_MAX_LINE):
                self._events.put((worker, line))
        self._events.put((worker, b""))

    def _listen(self) -> None:
        """Take one answer, or replace who is late."""
        left = min(worker.deadline for worker in self._workers) - time.monotonic()
        try:
            worker, line = self._events.get(timeout=min(max(left, 0.0), _POLL_SECONDS))
        except queue.Empty:
            now = time.monotonic()
            for worker in [each for each in self._workers if each.deadline < now]:
                self._drop(worker, TIMEOUT)
            return
        if worker not in self._workers:
            return
        try:
            self._take(worker, json.loads(line))
        except (ValueError, RecursionError):  # an empty line, or what no worker of ours says
            self._drop(worker, DIED)

    def _take(self, worker: _Worker, answer: Any) -> None:
        """Note an answer; `ValueError` if it is not one to what was asked."""
        if not worker.is_ready and answer == "ready":
            worker.is_ready, worker.deadline = True, math.inf
            return
        if not isinstance(answer, list) or not 0 < len(answer) <= len(worker.waiting):
            raise ValueError(f"a list of 1 to {len(worker.waiting)} answers is expected")
        for record in [_to_record(each) for each in answer]:
            self._done[worker.waiting.popleft()] = record
        worker.deadline = time.monotonic() + self._seconds if worker.waiting else math.inf

    def _drop(self, worker: _Worker, code: str) -> None:
        """End a worker; its files are tried once more, or left out."""
        self._workers.remove(worker)
        worker.process.kill()
        if not worker.is_ready:
            raise _not_started(_last_words(worker.process))
        status = _reap(worker.process)
        if code == TIMEOUT or status == -getattr(signal, "SIGALRM", 0):
            code, reason = TIMEOUT, f"decoding it took more than {self._seconds:g} s, twice"
        else:
            reason = f"decoding it ended the process with {_name_status(status)}, twice"
        self._tries.update(worker.waiting)
        for index in reversed(worker.waiting):
            if self._tries[index] < _TRIES:
                self._jobs.appendleft(range(index, index + 1))
            else:
                self._done[index] = Record(code=code, reason=reason)


def _cut_jobs(files: Sequence[str], most: int) -> Iterator[range]:
    """Yield the numbers of neighbouring files, at most so many, that fit into one question."""
    start, size = 0, 0
    for index, file in enumerate(files):
        length = len(json.dumps(file)) + len(", ")
        if index - start == most or (size and size + length > _MAX_QUESTION):
            yield range(start, index)
            start, size = index, 0
        size += length
    if files:
        yield range(start, len(files))


def _to_record(value: Any) -> Record:
    """Return an answer as a record; `ValueError` if it is none."""
    is_record = (
        isinstance(value, dict)
        and list(map(type, value.values())) == list(map(_TYPES.get, value))
        and all(isinstance(each, str) for each in value.get("notes", []))
        and all(map(_is_plain, _list_texts(value)))
        and _is_whole(value)
        and 0 <= value.get("width", 0) < 2**31
        and 0 <= value.get("height", 0) < 2**31
        and 0 <= value.get("dhash", 0) < 2**64
    )
    if not is_record:
        raise ValueError(f"an answer must be a record, got {ascii(value)[:100]}")
    return Record(**value | {"notes": tuple(value.get("notes", []))})


def _list_texts(value: dict[str, Any]) -> list[str]:
    """Return what a person may come to read."""
    return [*value.get("notes", []), *(value.get(key, "") for key in ("code", "reason", "format"))]


def _is_plain(text: str) -> bool:
    return text.isprintable() and len(text) < _LONGEST_TEXT


def _is_whole(value: dict[str, Any]) -> bool:
    """Tell whether a record has what an image that is used, or one that is left out, must have."""
    sha256 = value.get("sha256", "")
    if value.get("code"):
        return not sha256 or _SHA256.fullmatch(sha256) is not None
    has_size = value.get("width", 0) > 0 and value.get("height", 0) > 0
    return has_size and _SHA256.fullmatch(sha256) is not None


def _reap(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit status of a killed process; None if the system does not let it end yet."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_POLL_SECONDS)
    for pipe in (process.stdin, process.stderr):
        with contextlib.suppress(OSError):
            cast(IO[bytes], pipe).close()
    return process.returncode


def _last_words(process: subprocess.Popen[bytes]) -> str:
    lines = cast(IO[bytes], process.stderr).read().decode("utf-8", "replace").strip().splitlines()
    _reap(process)
    return ascii(lines[-1])[1:-1] if lines else f"no answer within {_START_SECONDS:g} s"


def _name_status(status: int | None) -> str:
    if status is None or status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _not_started(reason: str) -> MachineError:
    return MachineError("E509", f"the process that decodes images did not start: {reason}")
