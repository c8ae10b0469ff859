"""A process whose log nobody reads any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_unread(script: str, *words: str) -> tuple[int, bytes]:
    """Run a script whose stderr is closed at the other end; return exit code and stdout.

    Args:
        script: Python code; it waits for a line on stdin before it tells anything.
        words: Its arguments.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    process.stderr.close()
    output, _ = process.communicate(b"\n", timeout=120)
    return process.returncode, output
