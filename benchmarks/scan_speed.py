"""How long does a scan of many files take, and how much memory: the first time, and again?

- The first scan, with an empty index, against decoding each file once with Pillow in one process
  per core.
- The second, with nothing changed, against `os.scandir` and `DirEntry.stat` of each file in one
  thread, in turn in one process. Both in-process: without the start of Python and its imports.
- Peak memory of both, at a quarter, a half and all of the files.

A scan is all of listing, reading, judging, warnings, near duplicates, and the split. The files
are in the system's cache: before anything is timed, each is decoded once.

    python -m benchmarks.scan_speed --files 100000
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from benchmarks.scan_pictures import make_folder, name_file, write_pictures
from benchmarks.scan_probe import decode_all
from benchmarks.timing import get_ready, run_process

ASKED = {"first": 1.2, "second": 3.0}
"""At most so many times as long as the other side."""
_BATCH = 1000


def make_pictures(folder: Path, files: int) -> None:
    """Write the pictures, in one process per core."""
    make_folder(folder)
    parts = [range(first, min(files, first + _BATCH)) for first in range(0, files, _BATCH)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_pictures, [folder] * len(parts), parts))


def link_part(folder: Path, part: Path, files: int) -> None:
    """Make a folder of the first files, as links to the same bytes."""
    make_folder(part)
    for number in range(files):
        os.link(folder / name_file(number), part / name_file(number))


def probe(folder: Path, index: Path, *more: str) -> dict[str, Any]:
    """Run scan_probe.py; return what it prints."""
    command = [sys.executable, "-m", "benchmarks.scan_probe", str(folder), str(index), *more]
    _, output = run_process(command)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def summarise(ours: list[float], theirs: list[float], asked: float) -> dict[str, Any]:
    """Return both medians, their ratio, the range of the ratio over the rounds, and the bar.

    >>> summarise([4.0], [2.0], 3.0)["ratio"]
    2.0
    """
    ratio = statistics.median(ours) / statistics.median(theirs)
    each = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {
        "ours": statistics.median(ours),
        "theirs": statistics.median(theirs),
        "ratio": ratio,
        "range": [min(each), max(each)],
        "asked": asked,
        "reached": ratio <= asked,
        "runs": {"ours": ours, "theirs": theirs},
    }


@click.command(help=record.help_text(__doc__))
@click.option("--files", default=100_000, show_default=True, help="Number of pictures.")
@click.option("--rounds", default=2, show_default=True, help="First scans.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Made if missing, and kept.")
@click.option("--only-make", is_flag=True, help="Make the pictures and end.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
def main(files: int, rounds: int, pictures: Path | None, only_make: bool, out: Path | None) -> None:
    """Measure and write the figures."""
    conditions = get_ready(sys.executable)
    with tempfile.TemporaryDirectory() as made:
        folder = pictures or Path(made) / "pictures"
        if not (folder / name_file(files - 1)).exists():
            make_pictures(folder, files)
        if only_make:
            return
        decode_all(folder)
        decoded, first, memory = [], [], []
        index = Path(made) / "index.sqlite"
        for _ in range(rounds):
            index.unlink(missing_ok=True)
            decoded.append(probe(folder, index, "--baseline")["seconds"])
            first.append(probe(folder, index))
            click.echo(f"decode {decoded[-1]:.1f} s, scan {first[-1]['seconds']:.1f} s", err=True)
        again = probe(folder, index, "--rounds", "9")
        size = index.stat().st_size
        for share in (4, 2):
            part = Path(made) / f"part{share}"
            link_part(folder, part, files // share)
            steps = [probe(part, Path(made) / f"{share}.sqlite") for _ in range(2)]
            memory.append(_memory_row(*steps))
        memory.append(_memory_row(first[-1], again))
    if again["files_read"] or again["manifest_sha256"] != first[-1]["manifest_sha256"]:
        raise click.ClickException("the second scan read files, or found something else")
    second = summarise(again["scan_seconds"], again["stat_seconds"], ASKED["second"])
    once = summarise([each["seconds"] for each in first], decoded, ASKED["first"])
    figures = {
        "conditions": conditions,
        "files": files,
        "index_bytes": size,
        "first": once,
        "second": second,
        "memory": memory,
    }
    record.write(out or record.RESULTS / "scan-speed.json", figures)
    click.echo(f"first {once['ratio']:.2f}x, second {second['ratio']:.2f}x")


def _memory_row(first: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    return {
        "files": first["files"],
        "first_mb": first["peak_mb"],
        "second_mb": again["peak_mb"],
    }


if __name__ == "__main__":
    main()
