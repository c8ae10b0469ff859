"""How long does a scan of many files take, and how much memory: the first time, and again?

- The first scan, with an empty index, against decoding each file once with Pillow in one process
  per core; and one that does not look for near duplicates.
- The second, with nothing changed, against `os.scandir` and `DirEntry.stat` of each file in one
  thread, in turn in one process. Both in-process: without the start of Python and its imports.
- Peak memory of both, at a quarter, a half and all of the files.
- The first scan again, of fewer but larger pictures: the small ones are the hardest case.

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

from benchmarks.parts import record
from benchmarks.parts.scan_pictures import (
    PHOTOGRAPHS_PX,
    SMALL_PX,
    make_folder,
    name_file,
    write_pictures,
)
from benchmarks.parts.scan_probe import decode_all
from benchmarks.parts.timing import get_ready, run_process

ASKED = {"first": 1.2, "second": 3.0}
"""At most so many times as long as the other side."""
_BATCH = 1000


def make_pictures(folder: Path, files: int, sides_px: tuple[int, int] = SMALL_PX) -> None:
    """Write the pictures, in one process per core, unless the last of them is there."""
    if (folder / name_file(files - 1)).exists():
        return
    make_folder(folder)
    parts = [range(first, min(files, first + _BATCH)) for first in range(0, files, _BATCH)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_pictures, [folder] * len(parts), parts, [sides_px] * len(parts)))


def link_part(folder: Path, part: Path, files: int) -> None:
    """Make a folder of the first files, as links to the same bytes."""
    make_folder(part)
    for number in range(files):
        os.link(folder / name_file(number), part / name_file(number))


def probe(folder: Path, index: Path, *more: str) -> dict[str, Any]:
    """Run scan_probe.py; return what it prints."""
    command = [sys.executable, "-m", "benchmarks.parts.scan_probe", str(folder), str(index), *more]
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


def scan_first(folder: Path, index: Path, *, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Decode the pictures and scan them without an index, in turn.

    Returns:
        What `probe` said each time of the decoding, of scans that do not look for near duplicates,
        and of whole scans.
    """
    decode_all(folder)  # into the system's cache
    # The last one leaves its index behind.
    sides = {"decoded": ("--baseline",), "plain": ("--no-near-duplicates",), "whole": ()}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, options in sides.items():
            index.unlink(missing_ok=True)
            found[name].append(probe(folder, index, *options))
            click.echo(f"{name}: {found[name][-1]['seconds']:.1f} s", err=True)
    return found


def compare_first(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return whole scans against decoding, and under `plain` those without near duplicates."""
    seconds = {name: [each["seconds"] for each in runs] for name, runs in found.items()}
    sides = [
        summarise(seconds[name], seconds["decoded"], ASKED["first"]) for name in ("whole", "plain")
    ]
    return sides[0] | {"plain": sides[1]}


def measure_photographs(folder: Path, place: Path, *, rounds: int) -> dict[str, Any]:
    """Return how long a first scan of larger pictures takes; see `summarise`.

    Args:
        folder: Of the pictures.
        place: For the index.
        rounds: First scans.
    """
    found = scan_first(folder, place / "photographs.sqlite", rounds=rounds)
    files = found["whole"][-1]["files"]
    return {"files": files, "sides_px": list(PHOTOGRAPHS_PX), **compare_first(found)}


@click.command(help=record.help_text(__doc__))
@click.option("--files", default=100_000, show_default=True, help="Number of pictures.")
@click.option("--rounds", default=2, show_default=True, help="First scans.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Made if missing, and kept.")
@click.option("--photographs", default=10_000, show_default=True, help="Number of larger ones.")
@click.option("--only-make", is_flag=True, help="Make the pictures and end.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
def main(
    files: int,
    rounds: int,
    pictures: Path | None,
    photographs: int,
    only_make: bool,
    out: Path | None,
) -> None:
    """Measure and write the figures."""
    conditions = get_ready(sys.executable)
    with tempfile.TemporaryDirectory() as made:
        folder = pictures or Path(made) / "pictures"
        larger = folder.with_name(f"{folder.name}-photographs")
        make_pictures(folder, files)
        make_pictures(larger, photographs, PHOTOGRAPHS_PX)
        if only_make:
            return
        index = Path(made) / "index.sqlite"
        found = scan_first(folder, index, rounds=rounds)
        first = found["whole"][-1]
        memory = []
        again = probe(folder, index, "--rounds", "9")
        size = index.stat().st_size
        for share in (4, 2):
            part = Path(made) / f"part{share}"
            link_part(folder, part, files // share)
            steps = [probe(part, Path(made) / f"{share}.sqlite") for _ in range(2)]
            memory.append(_memory_row(*steps))
        memory.append(_memory_row(first, again))
        of_photographs = measure_photographs(larger, Path(made), rounds=rounds)
    if again["files_read"] or again["manifest_sha256"] != first["manifest_sha256"]:
        raise click.ClickException("the second scan read files, or found something else")
    second = summarise(again["scan_seconds"], again["stat_seconds"], ASKED["second"])
    once = compare_first(found)
    figures = {
        "conditions": conditions,
        "files": files,
        "index_bytes": size,
        "sides_px": list(SMALL_PX),
        "first": once,
        "second": second,
        "memory": memory,
        "photographs": of_photographs,
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
