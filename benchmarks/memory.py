"""Does a long training grow? Resident memory after each of 1,000 epochs of a small run.

A training of drawn pictures runs as a command of its own. After each epoch that it reports, its
resident memory is read from the system. The slope is that of a line through the means of equal
blocks of epochs, after a warm-up; its interval is Student's, of 95 %.

    python -m benchmarks.memory --backend jax

The history itself grows: a row per epoch, in memory and in state.json, about 1 KB. The exit status
is 1 if the whole interval lies above what is allowed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks import record
from benchmarks.timing import MNV2TL
from mnv2tl.backend import BACKENDS

ALLOWED_KB_PER_EPOCH = 4.0
"""One page of memory."""
BLOCKS = 18
_T_95 = {16: 2.120}
"""Degrees of freedom -> two-sided 95 % quantile of Student's distribution."""
_SETTINGS = (
    *("--weights", "none", "--alpha", "0.35", "--image-px", "96", "--batch-size", "8"),
    *("--views", "2", "--no-near-duplicates", "--no-index"),
)


@click.command(help=record.help_text(__doc__))
@click.option("--backend", type=click.Choice(BACKENDS), required=True, help="Keras backend.")
@click.option("--epochs", default=1000, show_default=True, help="Epochs of the training.")
@click.option("--warm-up", default=100, show_default=True, help="First epochs that do not count.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.  [default: results]")
def main(backend: str, epochs: int, warm_up: int, out: Path | None) -> None:
    """Train, sample, and write the slope."""
    if epochs - warm_up < 2 * BLOCKS:
        raise click.BadParameter(f"epochs must be at least {2 * BLOCKS} above --warm-up")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        draw_pictures(folder / "data")
        rss_kb = list(sample_training(folder, backend, epochs))
    slope, low, high = fit_slope(rss_kb[warm_up:])
    figures = {
        "backend": backend,
        "epochs": len(rss_kb),
        "warm_up": warm_up,
        "rss_mb": {
            "after_warm_up": round(rss_kb[warm_up] / 1024, 1),
            "last": round(rss_kb[-1] / 1024, 1),
            "largest": round(max(rss_kb) / 1024, 1),
        },
        "kb_per_epoch": round(slope, 2),
        "kb_per_epoch_interval": [round(low, 2), round(high, 2)],
        "allowed_kb_per_epoch": ALLOWED_KB_PER_EPOCH,
        "every_tenth_rss_kb": rss_kb[::10],
    }
    record.write(out or record.RESULTS / f"memory-{backend}.json", figures)
    interval = f"{low:.2f} to {high:.2f}"
    click.echo(f"{backend}: {slope:.2f} KB per epoch ({interval}), {rss_kb[-1] / 1024:.0f} MB")
    if low > ALLOWED_KB_PER_EPOCH:
        sys.exit(1)


def draw_pictures(folder: Path, *, count: int = 12) -> None:
    """Write three classes of noise, each with a channel of its own."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 90, (64, 64, 3), np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def sample_training(folder: Path, backend: str, epochs: int) -> Iterator[int]:
    """Train in a process of its own; yield its resident memory in KB after each epoch."""
    words = ["train", str(folder / "data"), "--out", str(folder / "run"), *_SETTINGS]
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "MNV2TL_CACHE": str(folder / "cache"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, *MNV2TL, *words, "--epochs", str(epochs)]
    with subprocess.Popen(
        command, cwd=record.ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        notes = process.stderr or ()
        for line in notes:
            if line.startswith("epoch "):
                yield read_rss_kb(process.pid)
    if process.returncode:
        raise click.ClickException(f"the training ended with {process.returncode}: {line}")


def read_rss_kb(pid: int) -> int:
    """Return the resident memory of a process, without files that it maps, in KB."""
    for line in Path("/proc", str(pid), "status").read_text("ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise ValueError("the system tells no RssAnon; this needs Linux")


def fit_slope(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the slope per value of a line through the means of blocks, and its 95 % interval.

    Neighbours depend on each other, means of long blocks hardly.
    """
    length = len(values) // BLOCKS
    used = np.asarray(values[-BLOCKS * length :], np.float64)
    means = used.reshape(BLOCKS, length).mean(axis=1)
    x = np.arange(BLOCKS) * length
    x = x - x.mean()
    slope = float(x @ means / (x @ x))
    rest = means - means.mean() - slope * x
    error = float(np.sqrt(rest @ rest / (BLOCKS - 2) / (x @ x)))
    margin = _T_95[BLOCKS - 2] * error
    return slope, slope - margin, slope + margin


if __name__ == "__main__":
    main()
