from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

_PROBE = """
import resource, threading
{first}
def count():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"1") * 200_000_000
    del block
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
for _ in range(2):
    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
"""


def _count_new_pages(first: str) -> int:
    """Return how many pages the second of two equal blocks needs from the system."""
    result = subprocess.run(
        [sys.executable, "-c", _PROBE.format(first=first)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    """A large block that a thread freed serves the next thread."""
    pages = _count_new_pages("from mnv2tl.memory import keep_freed_memory; keep_freed_memory()")

    assert pages < 1000  # 200 MB are 48,829 pages of 4 KB
    assert _count_new_pages("") > 20_000


def test_other_systems_are_left_alone() -> None:
    """Without glibc's function nothing happens, and nothing fails."""
    code = "import sys; sys.platform = 'darwin'; import mnv2tl.memory as m; m.keep_freed_memory()"

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
