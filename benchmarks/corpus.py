"""Every test image of Pillow's source archive through the scan's workers: what is refused and why.

The archive holds broken, truncated and oversized files, odd modes and files that once crashed a
decoder. pip fetches it (47 MB) and asks its build system for its name and version, but builds
nothing; --archive names one that is there already. Its SHA-256 is pinned.

    python -m benchmarks.corpus --archive pillow-13.0.0.tar.gz

The exit status is 1 if a file ended or held up a worker, or raised what it must not.
"""

from __future__ import annotations

import collections
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from mnv2tl import store
from mnv2tl.data import scan_worker
from mnv2tl.data.images import MAX_PIXELS
from mnv2tl.data.worker_pool import DIED, TIMEOUT, read_files
from mnv2tl.errors import Mnv2tlError
from mnv2tl.fetch import check_sha256

VERSION = "13.0.0"
SHA256 = "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510"
HANG_SECONDS = 5.0
_OPTIONS = {"max_pixels": MAX_PIXELS, "hash": True}


@click.command(help=record.help_text(__doc__))
@click.option("--archive", type=click.Path(path_type=Path), help="The source archive of Pillow.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "corpus.json",
    show_default="benchmarks/results/corpus.json",
    help="JSON file.",
)
def main(archive: Path | None, out: Path) -> None:
    """Read the images and write what became of them."""
    with tempfile.TemporaryDirectory() as made:
        archive = archive or fetch(Path(made))
        check_sha256(store.sha256_file(archive), SHA256, what=archive.name)
        files = unpack(archive, Path(made) / "images")
        figures = {"archive": f"pillow {VERSION}", "sha256": SHA256} | try_files(files)
    click.echo(json.dumps(figures, indent=1))
    record.write(out, figures)
    if figures["crashes"] or figures["hangs"] or figures["other_exceptions"]:
        sys.exit(1)


def fetch(folder: Path) -> Path:
    """Let pip download the source archive; return it."""
    # Only Pillow's own archive: what its build system needs may come as wheels.
    words = ["--no-deps", "--no-binary", "pillow", "--dest", str(folder), f"pillow=={VERSION}"]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *words], check=True)
    return next(folder.glob("*.tar.gz"))


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Write the test images of an archive into a folder, numbered; return them.

    Names and links of the archive are not used.
    """
    folder.mkdir()
    files: list[Path] = []
    with tarfile.open(archive) as content:
        for member in content:
            is_image = member.isreg() and "/Tests/images/" in member.name
            source = content.extractfile(member) if is_image else None
            if source is not None:
                name = member.name.rpartition("/")[2]
                files.append(folder / f"{len(files):04}-{name}")
                files[-1].write_bytes(source.read())
    return files


def try_files(files: list[Path]) -> dict[str, Any]:
    """Read files as a scan does, then each alone under a clock, and count what comes out."""
    names = [str(file) for file in files]
    records = list(read_files(names, _OPTIONS, seconds=HANG_SECONDS))
    alone, other = [], []
    for file in names:
        started = time.perf_counter()
        try:
            scan_worker.describe_file(file, max_pixels=MAX_PIXELS, needs_dhash=True)
        except Exception as error:  # any but one kind is a finding
            other.append(f"{Path(file).name}: {error!r}")
        alone.append(time.perf_counter() - started)
    slowest = max(range(len(files)), key=alone.__getitem__)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    refused = collections.Counter(each.code for each in records if each.code)
    return {
        "files": len(files),
        "decoded": sum(not each.code for each in records),
        "refused": dict(sorted(refused.items())),
        "crashes": refused[DIED],
        "hangs": refused[TIMEOUT],
        "hang_seconds": HANG_SECONDS,
        "other_exceptions": other,
        "slowest_seconds": round(alone[slowest], 3),
        "slowest_file": files[slowest].name,
        "peak_mb": round(max(each.ru_maxrss for each in usage) / 1024),
        "limit_mb": round(scan_worker.count_bytes(MAX_PIXELS) / 2**20),
    }


if __name__ == "__main__":
    try:
        main()
    except Mnv2tlError as failed:
        sys.exit(failed.line())
