"""Does a long training grow? Resident memory after each of 1,000 epochs of a small run.

A training of drawn pictures runs as a command of its own. After each epoch that it reports, its
resident memory is read from the system. The slope is that of a line through the means of equal
blocks of epochs, after a warm-up; its interval is Student's, of 95 %.

    python -m benchmarks.memory --backend jax

The history itself grows by a row per epoch: what a row takes in memory stands beside the slope, and
is not taken off it.

Steps are told apart, and all are listed: an epoch with more than 1 MB. There the C library's heap
grew by one large block, since small ones had come to lie where it was before; one step may be
Python 3.11's table of interned names, which grows from 1.9 to 3.8 MB (`sys.intern` in pathlib.py).
The exit status is 1 if the whole interval of the slope without steps lies above what is allowed,
or if all steps together do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from benchmarks.parts import record
from benchmarks.parts.timing import MNV2TL
from mnv2tl.backend import BACKENDS

ALLOWED_KB_PER_EPOCH = 2.0
"""Half a page of memory: a row of the history, and no more than that again of the libraries."""
ALLOWED_STEPS_KB = 32 * 1024
"""What all steps after the warm-up may add."""
STEP_KB = 1024
"""What changes by more in one epoch does not grow with epochs."""
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
        row = json.loads((folder / "run" / "run.json").read_bytes())["history"][-1]
    slope, low, high = fit_slope(rss_kb[warm_up:])
    steps = find_steps(rss_kb)
    flat, flat_low, flat_high = fit_slope(take_steps_off(rss_kb, steps)[warm_up:])
    steps = {epoch: step for epoch, step in steps.items() if epoch > warm_up}
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
        "steps_kb": {str(epoch): step for epoch, step in steps.items()},
        "kb_per_epoch_without_steps": round(flat, 2),
        "kb_per_epoch_without_steps_interval": [round(flat_low, 2), round(flat_high, 2)],
        "history_row_kb": round(count_bytes(row) / 1024, 2),
        "allowed_kb_per_epoch": ALLOWED_KB_PER_EPOCH,
        "allowed_steps_kb": ALLOWED_STEPS_KB,
        "every_tenth_rss_kb": rss_kb[::10],
    }
    record.write(out or record.RESULTS / f"memory-{backend}.json", figures)
    interval = f"{low:.2f} to {high:.2f}"
    click.echo(f"{backend}: {slope:.2f} KB per epoch ({interval}), {rss_kb[-1] / 1024:.0f} MB")
    click.echo(f"steps of KB at epoch: {figures['steps_kb']}; without them {flat:.2f} KB per epoch")
    click.echo(f"a row of the history takes {figures['history_row_kb']} KB")
    if flat_low > ALLOWED_KB_PER_EPOCH or sum(steps.values()) > ALLOWED_STEPS_KB:
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


def find_steps(rss_kb: Sequence[int]) -> dict[int, int]:
    """Return epoch, counted from 1, -> by how much it grew or shrank if more than `STEP_KB`.

    >>> find_steps([5, 6, 3006, 3007])
    {3: 3000}
    """
    grown = {n + 2: after - before for n, (before, after) in enumerate(pairwise(rss_kb))}
    return {epoch: step for epoch, step in grown.items() if abs(step) > STEP_KB}


def take_steps_off(rss_kb: Sequence[int], steps: Mapping[int, int]) -> list[int]:
    """Return the memory after each epoch as it were without the steps.

    >>> take_steps_off([5, 6, 3006, 3007], {3: 3000})
    [5, 6, 6, 7]
    """
    gone = accumulate(steps.get(epoch, 0) for epoch in range(1, len(rss_kb) + 1))
    return [each - taken for each, taken in zip(rss_kb, gone, strict=True)]


def count_bytes(row: Mapping[str, Any]) -> int:
    """Return what a row of the history takes in memory, and its place in the list; keys are shared.

    >>> count_bytes({"loss": 0.5}) > count_bytes({}) + sys.getsizeof(0.5)
    True
    """
    small = range(-5, 257)  # one object each in the whole process
    values = [each for each in row.values() if not (isinstance(each, int) and each in small)]
    return sys.getsizeof(row) + sum(map(sys.getsizeof, values)) + np.dtype(np.intp).itemsize


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
