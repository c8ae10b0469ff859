"""Run the command line as `python -m mnv2tl`."""

from __future__ import annotations

from mnv2tl.cli import run

run()
