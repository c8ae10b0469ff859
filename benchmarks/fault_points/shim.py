"""Build the shim that lets a chosen system call fail, and run a function under it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mnv2tl.errors import Mnv2tlError

SOURCE = Path(__file__).with_name("shim.c")

FAULTS = {"kill": 1, "half write, kill": 2, "no space": 3, "I/O error": 4}
"""Name -> number in shim.c. No space stays from the k-th call on, an I/O error comes once."""

# The kinds of shim.c, in its order.
_KINDS = ("write", "create", "truncate", "sync", "rename", "remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a process ended in which a system call failed."""

    calls: int
    """Calls that were counted; not known, and at least the one that failed, if it fell."""
    struck: str
    """What the first call that failed was to do: write, create, truncate, sync, rename or remove;
    empty if none failed."""
    code: str
    """Empty for success, `killed`, the code of an error of ours, or `bug`."""
    exit_code: int
    """What the command line would exit with."""
    text: str
    """The error's line, or the traceback of a bug."""
    said: tuple[str, ...]
    """What it had promised by then, in order."""


def build(folder: Path) -> Path | None:
    """Compile the shim into a folder; None where that is not possible."""
    compiler = shutil.which("cc")
    if compiler is None or os.uname().sysname != "Linux":
        return None
    library = folder / "shim.so"
    options = ("-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl")
    subprocess.run([compiler, *options], check=True)
    return library


def run(
    work: Callable[[Callable[[str], None]], object],
    folder: Path,
    *,
    fault: str | None = None,
    k: int = 0,
    has_exchange: bool = True,
) -> Outcome:
    """Run a function in a fork of this process, which must have one thread, and say how it ended.

    Args:
        work: Called with a function that notes a promise.
        folder: Calls below it are counted.
        fault: A key of `FAULTS`, or None to count alone.
        k: The call that fails, from 1.
        has_exchange: Let the system exchange two folders in one step.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("this process has several threads, a fork of it may hang")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            _work_in_child(work, writer, (folder, k, FAULTS.get(fault or "", 0), has_exchange))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as file:
        lines = [json.loads(line) for line in file.read().splitlines()]
    _, status = os.waitpid(child, 0)
    said = tuple(line["said"] for line in lines if "said" in line)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return Outcome(
            calls=k, struck="", code="killed", exit_code=-signal.SIGKILL, text="", said=said
        )
    if not lines or "code" not in lines[-1]:
        text = f"the process ended with status {status}"
        return Outcome(calls=k, struck="", code="bug", exit_code=1, text=text, said=said)
    return Outcome(**lines[-1], said=said)


def _work_in_child(
    work: Callable[[Callable[[str], None]], object],
    writer: int,
    settings: tuple[Path, int, int, bool],
) -> None:
    folder, k, fault, has_exchange = settings
    library = ctypes.CDLL(None)
    is_armed = hasattr(library, "fault_arm")

    def tell(**line: object) -> None:
        os.write(writer, json.dumps(line).encode() + b"\n")

    if is_armed:
        library.fault_count.restype = ctypes.c_long
        library.fault_arm(os.fsencode(folder), ctypes.c_long(k), fault, int(has_exchange))
    code, exit_code, text = "", 0, ""
    try:
        work(lambda said: tell(said=said))
    except Mnv2tlError as error:
        code, exit_code, text = error.code, error.exit_code, error.line()
    except BaseException:  # a bug is a finding, whatever it is
        code, exit_code, text = "bug", 1, traceback.format_exc()
    calls, struck = 0, ""
    if is_armed:
        calls, kind = library.fault_count(), library.fault_struck()
        struck = _KINDS[kind] if kind >= 0 else ""
        library.fault_arm(b"", ctypes.c_long(0), 0, 1)
    tell(calls=calls, struck=struck, code=code, exit_code=exit_code, text=text)
