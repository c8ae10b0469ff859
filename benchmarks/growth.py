"""Do time per picture and memory of the features stay the same from 1,000 to 50,000 pictures?

Each count runs in a process of its own, in turn, from an empty feature cache: reading, decoding,
resizing, the frozen layers, and writing the cache. The network reads small pictures (96 px), so
that this takes minutes; the time at 224 px is another, its growth is not.

    python -m benchmarks.growth --count 1000 --count 10000 --count 50000
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.scan_probe import decode_all
from benchmarks.parts.timing import get_ready, run_process
from benchmarks.scan_speed import make_pictures

ASKED = 1.1
"""The largest count takes at most so many times as much per picture, and in memory."""


def growth(rows: Sequence[dict[str, Any]], key: str) -> dict[str, float]:
    """Return a figure's median per count, over that of the smallest count.

    Args:
        rows: One per run, with `pictures`.
        key: Name of the figure.

    >>> growth([{"pictures": 1, "mb": 4}, {"pictures": 9, "mb": 5}], "mb")
    {'1': 1.0, '9': 1.25}
    """
    values: dict[int, list[float]] = {}
    for row in rows:
        values.setdefault(row["pictures"], []).append(row[key])
    medians = {count: statistics.median(each) for count, each in sorted(values.items())}
    first = next(iter(medians.values()))
    return {str(count): each / first for count, each in medians.items()}


@click.command(help=record.help_text(__doc__))
@click.option(
    "--count",
    "counts",
    type=int,
    multiple=True,
    default=(1000, 10_000, 50_000),
    show_default=True,
    help="Number of pictures; give it several times.",
)
@click.option("--rounds", default=1, show_default=True, help="Runs of each count but the last.")
@click.option("--image-px", default=96, show_default=True, help="Side of the network's input.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
@click.option("--pictures", type=click.Path(path_type=Path), help="Made if missing, and kept.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
def main(
    counts: tuple[int, ...],
    rounds: int,
    image_px: int,
    weights: str,
    pictures: Path | None,
    out: Path | None,
) -> None:
    """Run each count and write what came."""
    conditions = get_ready(sys.executable)
    order = [*(sorted(counts)[:-1] * rounds), max(counts)]
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = pictures or Path(made) / "pictures"
        make_pictures(folder, max(counts))
        decode_all(folder)  # into the system's cache
        for count in order:
            command = [
                sys.executable,
                "-m",
                "benchmarks.parts.growth_probe",
                str(folder),
                str(count),
            ]
            command += ["--image-px", str(image_px), "--weights", weights]
            row = json.loads(run_process(command)[1].splitlines()[-1])
            rows.append(row)
            told = f"{row['ms_per_picture']:.3f} ms each, peak {row['peak_mb']:.0f} MB"
            click.echo(f"{count} pictures: {told}", err=True)
    figures = {
        "conditions": conditions,
        "image_px": image_px,
        "weights": weights,
        "asked": ASKED,
        "time_growth": growth(rows, "ms_per_picture"),
        "memory_growth": growth(rows, "peak_mb"),
        "runs": rows,
    }
    record.write(out or record.RESULTS / "growth.json", figures)


if __name__ == "__main__":
    main()
