"""Guided fuzzing of the readers of manifest.json, run.json, bundle.json and ONNX files.

libFuzzer, through the package atheris, looks for bytes that reach new lines of our code. It is no
extra of this project and has wheels for few Pythons; install it where this is to run.

    pip install atheris -e .[train]
    python -m benchmarks.fuzz_atheris run.json -max_total_time=300

Words behind the reader's name go to libFuzzer. It stops with a traceback at the first finding, and
with the line "Done N runs" otherwise.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mnv2tl", "mnv2tl_export"]):
    from benchmarks.parts.fuzz_targets import TARGETS


def main() -> None:
    """Give the reader that the command line names to libFuzzer."""
    name, *words = sys.argv[1:]
    with tempfile.TemporaryDirectory() as made:
        place, seeds = Path(made) / "place", Path(made) / "seeds"
        place.mkdir()
        seeds.mkdir()
        target = TARGETS[name](place)
        for number, seed in enumerate(target.seeds):
            (seeds / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *words, str(seeds)], target.read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
