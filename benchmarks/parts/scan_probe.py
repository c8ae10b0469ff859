"""One scan in a process of its own, so that its peak memory is its own; see scan_speed.py."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
from PIL import Image

from benchmarks.parts.peak_memory import peak_mb
from mnv2tl.data.scan import inspect
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.parallel import count_workers
from mnv2tl.progress import set_quiet


def list_files(folder: Path) -> list[str]:
    """Return the files of all class folders."""
    return [
        entry.path for inner in os.scandir(folder) if inner.is_dir() for entry in os.scandir(inner)
    ]


def stat_all(folder: Path) -> int:
    """Ask the system for the status of each file, in one thread; return how many there are."""
    count = 0
    for inner in os.scandir(folder):
        if inner.is_dir():
            with os.scandir(inner) as entries:
                for entry in entries:
                    entry.stat(follow_symlinks=False)
                    count += 1
    return count


def decode_all(folder: Path) -> int:
    """Decode each file once with Pillow, in one process per core; return how many there are."""
    files = list_files(folder)
    with ProcessPoolExecutor(count_workers()) as pool:
        return sum(pool.map(decode, files, chunksize=100))


def decode(file: str) -> int:
    """Decode a file to RGB and forget it."""
    with Image.open(file) as image:
        image.convert("RGB")
    return 1


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--rounds", default=0, show_default=True, help="Stat and scan in turn so often.")
@click.option("--baseline", is_flag=True, help="Decode with Pillow instead of a scan.")
@click.option("--no-near-duplicates", is_flag=True, help="Do not look for them.")
def main(folder: Path, index: Path, rounds: int, baseline: bool, no_near_duplicates: bool) -> None:
    """Scan once, or stat and scan in turn; print seconds and peak memory as JSON."""
    set_quiet(True)
    if baseline:
        click.echo(json.dumps({"seconds": time_call(lambda: decode_all(folder))}))
        return
    config = ScanConfig(index=index, near_duplicates=not no_near_duplicates)
    start = time.perf_counter()
    scan = inspect(folder, config)
    found = {
        "seconds": time.perf_counter() - start,
        "files": scan.files,
        "files_read": scan.files_read,
        "manifest_sha256": scan.manifest.sha256,
    }
    del scan
    # Of children the system counts what they shared with this process when they were started.
    found["peak_mb"] = peak_mb()
    pairs = [
        (time_call(lambda: stat_all(folder)), time_call(lambda: inspect(folder, config)))
        for _ in range(rounds)
    ]
    found["stat_seconds"] = [each[0] for each in pairs]
    found["scan_seconds"] = [each[1] for each in pairs]
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
