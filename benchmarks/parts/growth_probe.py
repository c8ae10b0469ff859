"""Features of some pictures in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.parts.peak_memory import peak_mb
from benchmarks.parts.scan_pictures import CLASSES, name_file
from mnv2tl.data.augment import PRESETS
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.views import PLAIN, ViewMaker
from mnv2tl.feature_jobs import Jobs
from mnv2tl.features import prepare
from mnv2tl.mobilenet import cut_at, list_layers
from mnv2tl.progress import set_quiet
from mnv2tl.store import sha256_file
from mnv2tl.trunk import choose_runtime, open_trunk
from mnv2tl.weights import load

TRAINED_LAYERS = 4
_WARM_UP = 32


def list_jobs(folder: Path, count: int) -> Jobs:
    """Return the plain view of each of the first pictures, as a training asks for them."""
    entries = Entries(
        Entry(
            path=name_file(number),
            label=number % CLASSES,
            split="train",
            sha256=sha256_file(folder / name_file(number)),
            bytes=1,
            width=1,
            height=1,
        )
        for number in range(count)
    )
    return Jobs(entries, [(PLAIN,)] * count)


def measure(folder: Path, count: int, *, image_px: int, weights: str) -> dict[str, Any]:
    """Return seconds of the features of the first pictures, and what they take.

    Args:
        folder: Made by scan_speed.make_pictures.
        count: How many.
        image_px: Side of the network's input.
        weights: Base weights.
    """
    layers = list_layers(image_px=image_px)
    layers = layers[: cut_at(layers, TRAINED_LAYERS)]
    runtime = choose_runtime()
    arrays = load(weights).arrays
    trunk = open_trunk(layers, arrays, scaling="symmetric", runtime=runtime, image_px=image_px)
    maker = ViewMaker(root=folder, image_px=image_px, augment=PRESETS["none"], seed=0)
    jobs = list_jobs(folder, count)
    with tempfile.TemporaryDirectory() as made:
        warm, cache = Path(made) / "warm", Path(made) / "cache"
        prepare(maker, trunk, jobs[:_WARM_UP], cache_root=warm, limit_bytes=10**12)
        before = peak_mb()
        start = time.perf_counter()
        prepare(maker, trunk, jobs, cache_root=cache, limit_bytes=10**12)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    return {
        "pictures": count,
        "runtime": runtime,
        "feature_shape": list(trunk.output_shape),
        "seconds": seconds,
        "ms_per_picture": 1000 * seconds / count,
        "peak_mb_before": before,
        "peak_mb": peak_mb(),
        "cache_bytes": size,
    }


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("count", type=int)
@click.option("--image-px", default=96, show_default=True)
@click.option("--weights", default="imagenet-dogs", show_default=True)
def main(folder: Path, count: int, image_px: int, weights: str) -> None:
    """Print the figures as JSON."""
    set_quiet(True)
    click.echo(json.dumps(measure(folder, count, image_px=image_px, weights=weights)))


if __name__ == "__main__":
    main()
