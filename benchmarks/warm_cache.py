"""A second training on the same pictures: nothing is read or computed again.

`mnv2tl train` runs twice in each round: with empty caches, then with what the first run left in
them. Scan and features are timed by the run itself, until the first epoch begins; decoding is part
of them. With empty caches that is one view of each picture, the others follow beside the epochs.
The weights of the best epoch must be bit-equal.

Which files are opened is told by strace in one more pair of runs, which are not timed: pictures
opened until best.keras is written, by scan, features and training, and those that its self-check
reads from their files on purpose.

    python -m benchmarks.warm_cache DATA --backend jax

Needs Linux, and strace for the second part.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.timing import (
    MNV2TL,
    NAMES,
    get_ready,
    make_bar,
    run_process,
    show_bar,
    spread,
)
from mnv2tl.backend import BACKENDS
from mnv2tl.cache_folder import cache_folder
from mnv2tl.checkpoint import load_run
from mnv2tl.weights import hash_arrays

ASKED_SECONDS = 0.5
STAGES = ("scan", "features", "fit", "total")

# The call and its result may stand on two lines, with those of other threads between.
_OPENED = re.compile(r"\bopen(?:at2?)?\b.* = \d+<([^>]*)>$")


def count_opened(trace: Iterable[str], pictures: Collection[str]) -> dict[str, int]:
    """Return how many pictures a traced training opened, before best.keras was there and after.

    Args:
        trace: Lines of `strace -f -y` about calls that open files.
        pictures: Absolute paths without links.

    >>> count_opened(['7 openat(AT_FDCWD</>, "1.png", O_RDONLY) = 3</d/1.png>'], {"/d/1.png"})
    {'until best.keras': 1, 'self-check': 0}
    """
    counts = {"until best.keras": 0, "self-check": 0}
    stage = "until best.keras"
    for line in trace:
        match = _OPENED.search(line.rstrip())
        if match is None:
            continue
        if "best.keras" in Path(match[1]).name:
            stage = "self-check"
        counts[stage] += match[1] in pictures
    return counts


class Trainer:
    """Runs `mnv2tl train` with a cache of its own.

    Args:
        data: The pictures; an absolute path without links.
        command: Interpreter and options.
        backend: Keras' backend.
    """

    def __init__(self, data: Path, command: list[str], backend: str) -> None:
        self.pictures = {str(path) for path in data.rglob("*") if path.is_file()}
        self.command, self.backend = command, backend

    def run_twice(self, folder: Path, *, traced: bool = False) -> dict[str, dict[str, Any]]:
        """Train with empty caches, then with filled ones; return the figures of both.

        Args:
            folder: Empty.
            traced: Count opened pictures, which slows the run down.
        """
        shutil.copytree(cache_folder("weights"), folder / "cache" / "weights")
        return {name: self._run(folder, name, traced=traced) for name in ("empty", "warm")}

    def _run(self, folder: Path, name: str, *, traced: bool) -> dict[str, Any]:
        trace, run = folder / f"{name}.trace", folder / name
        tracer = ["strace", "-f", "-y", "-s", "4096", "-e", "trace=open,openat,openat2"]
        command = [*tracer, "-o", str(trace), *self.command] if traced else self.command
        seconds, output = run_process(
            [*command, "--out", str(run)],
            KERAS_BACKEND=self.backend,
            MNV2TL_CACHE=str(folder / "cache"),
        )
        summary = json.loads(output.splitlines()[-1])
        figures = {
            "seconds": {"process": seconds} | {each: summary["seconds"][each] for each in STAGES},
            "val_accuracy": summary["val_accuracy"],
            "weights_sha256": hash_arrays(load_run(run).read_arrays()),
        }
        if traced:
            with trace.open(encoding="utf-8", errors="replace") as lines:
                figures["pictures_opened"] = count_opened(lines, self.pictures)
        return figures


@click.command(help=record.help_text(__doc__))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
@click.option("--backend", type=click.Choice(BACKENDS), default="jax", show_default=True)
@click.option("--python", default=sys.executable, help="Interpreter that has the backend.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Rounds.")
@click.option("--epochs", default=10, show_default=True, help="Epochs of each training.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
def main(
    data: Path, out: Path | None, backend: str, python: str, repeats: int, epochs: int, weights: str
) -> None:
    """Train in turn and write the figures."""
    conditions = get_ready(python)
    data = data.resolve()
    command = [python, *MNV2TL, "train", str(data), "--epochs", str(epochs), "--weights", weights]
    trainer = Trainer(data, [*command, "--backend", backend, "--json", "--quiet"], backend)
    rounds = []
    for number in range(repeats):
        with tempfile.TemporaryDirectory() as made:
            rounds.append(trainer.run_twice(Path(made)))
        seconds = {name: run["seconds"]["process"] for name, run in rounds[-1].items()}
        click.echo(f"{number + 1}/{repeats}: {seconds}", err=True)
    if len({run["weights_sha256"] for pair in rounds for run in pair.values()}) != 1:
        raise click.ClickException("the runs gave different weights: no speed is reported")
    traced = None
    if shutil.which("strace"):
        with tempfile.TemporaryDirectory() as made:
            traced = trainer.run_twice(Path(made), traced=True)
    figures = summarise(rounds, traced, backend)
    settings = {"data": data.name, "backend": backend, "epochs": epochs, "weights": weights}
    record.write(
        out or record.RESULTS / f"speed-warm-cache-{backend}.json",
        settings | {"conditions": conditions, **figures},
    )
    for bar in figures["bars"]:
        click.echo(show_bar(bar))
    click.echo(f"pictures opened: {figures['pictures_opened']}")


def summarise(
    rounds: list[dict[str, dict[str, Any]]],
    traced: dict[str, dict[str, Any]] | None,
    backend: str,
) -> dict[str, Any]:
    """Return spreads of each stage, opened pictures and the bar.

    Args:
        rounds: Figures of the timed pairs of runs.
        traced: Those of the traced pair, if there is one.
        backend: Names the rows.
    """
    names = ("process", *STAGES)
    taken = {
        name: {stage: [pair[name]["seconds"][stage] for pair in rounds] for stage in names}
        for name in ("empty", "warm")
    }
    looks = {
        name: [a + b for a, b in zip(each["scan"], each["features"], strict=True)]
        for name, each in taken.items()
    }
    bars = [
        make_bar(
            f"scan and features until the first epoch, warm cache, {NAMES[backend]}",
            "empty cache",
            kind="value",
            ours=looks["warm"],
            theirs=looks["empty"],
            unit="s",
            asked=ASKED_SECONDS,
        ),
        make_bar(
            f"`mnv2tl train` on {NAMES[backend]}, warm cache",
            "empty cache",
            kind="speed",
            ours=taken["warm"]["process"],
            theirs=taken["empty"]["process"],
            unit="s",
            asked=None,
        ),
    ]
    opened = {name: run["pictures_opened"] for name, run in traced.items()} if traced else None
    return {
        "seconds": {n: {s: spread(v) for s, v in each.items()} for n, each in taken.items()},
        "pictures_opened": opened,
        "weights": "bit-equal",
        "rounds": rounds,
        "bars": bars,
    }


if __name__ == "__main__":
    main()
