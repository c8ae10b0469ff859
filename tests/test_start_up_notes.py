from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mnv2tl.start_up_notes import sift
from tests.unread_log import run_unread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="notes are shown there")

ROOT = Path(__file__).parents[1]

# As TensorFlow 2.21 prints them.
NOTES = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
    b"I0000 00:00:1795761663.009528    7282 port.cc:153] oneDNN custom operations are on.\n",
)

_START = """
import os, subprocess, sys
from mnv2tl.start_up_notes import hide_start_up_notes
"""


def _run(code: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", _START + code]
    return subprocess.run(command, cwd=ROOT, timeout=60, **{"check": True, **options})


def test_notes_are_hidden_and_all_else_passes_in_its_order() -> None:
    """What Python, another process or the system writes, and a note behind a bar without an end."""
    done = _run(
        f"""
print("before", file=sys.stderr)
with hide_start_up_notes():
    for note in {NOTES!r}:
        os.write(2, note)
    print("inside", file=sys.stderr, flush=True)
    os.write(2, b"\\rbar 1 %")
    os.write(2, {NOTES[1]!r})
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'\\\\nother process\\\\n')"])
    os.write(2, b"I0000 is no note\\n")
    os.write(2, b"W0000 00:00:1795761663.009528    7282 cpu.cc:1] a warning\\n")
    os.write(2, b"x" * 200_000 + b"\\n")
os.write(2, {NOTES[1]!r})
print("after", file=sys.stderr)
""",
        capture_output=True,
    )

    expected = (
        b"before\ninside\n\rbar 1 %\nother process\nI0000 is no note\n"
        b"W0000 00:00:1795761663.009528    7282 cpu.cc:1] a warning\n"
    )
    assert done.stderr == expected + b"x" * 200_000 + b"\n" + NOTES[1] + b"after\n"


def test_a_line_passes_while_the_block_runs() -> None:
    """An import may take many seconds, and bars go on beside it."""
    code = """
with hide_start_up_notes():
    print("a line", file=sys.stderr, flush=True)
    sys.stdin.readline()
"""
    command = [sys.executable, "-c", _START + code]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"a line\n"  # the block waits for what comes next
        process.stdin.write(b"\n")

    assert process.returncode == 0


def test_a_process_that_outlives_the_block_may_write_on() -> None:
    """It got the file as its stderr."""
    done = _run(
        """
with hide_start_up_notes():
    wait = "import os, sys; sys.stdin.read(); os.write(2, b'late\\\\n')"
    child = subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE)
child.communicate()
print(child.returncode)
""",
        capture_output=True,
    )

    assert done.stdout.split() == [b"0"]


def test_code_that_holds_the_interpreter_may_write_much() -> None:
    """An extension module that is loaded does, and no thread of Python runs meanwhile."""
    done = _run(
        """
import ctypes
with hide_start_up_notes():
    ctypes.PyDLL(None).write(2, b"x" * 3_000_000, 3_000_000)
""",
        capture_output=True,
    )

    assert done.stderr == b"x" * 3_000_000


def test_no_descriptor_and_no_thread_is_left() -> None:
    """However often it is used."""
    done = _run(
        """
import threading
def count():
    return len(os.listdir("/dev/fd")), threading.active_count()
before = count()
for _ in range(3):
    with hide_start_up_notes():
        pass
print(before == count())
""",
        capture_output=True,
    )

    assert done.stdout.split() == [b"True"]


def test_pass_on_waits_for_no_thread() -> None:
    """A process that ends at once tells what was written before."""
    done = _run(
        """
from mnv2tl.start_up_notes import pass_on
with hide_start_up_notes():
    os.write(2, b"the last words\\n")
    pass_on()
    os._exit(3)
""",
        check=False,
        capture_output=True,
    )

    assert (done.returncode, done.stderr) == (3, b"the last words\n")


@pytest.mark.parametrize("close", ["os.close(2)", "sys.stderr.close()", "sys.stderr = None"])
def test_no_stderr_is_needed(close: str) -> None:
    """A service may have none."""
    code = f"{close}\nwith hide_start_up_notes():\n    print('inside')"

    assert _run(code, stdout=subprocess.PIPE).stdout == b"inside\n"


def test_nobody_need_read_it() -> None:
    """A log whose reader is gone stops nothing, however much is told."""
    code = """
sys.stdin.readline()
with hide_start_up_notes():
    for _ in range(100):
        os.write(2, b"x" * 10_000)
print("done")
"""
    assert run_unread(_START + code) == (0, b"done\n")


def test_a_note_that_is_read_in_two_parts_is_whole_again() -> None:
    """Wherever it is cut behind its head; one that is cut there passes, and nothing is lost."""
    head = b"I0000 00:00:1795761663.009528    7282 port.cc:153]"
    before, after = b"a line\n", b"another\n"
    whole = before + NOTES[1] + after

    for cut in range(len(whole)):
        passed, held = sift(whole[:cut])
        rest, held = sift(held + whole[cut:])
        is_in_head = len(before) < cut < len(before + head)
        assert (passed + rest, held) == (whole if is_in_head else before + after, b""), cut
