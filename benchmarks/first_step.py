"""From process start to the moment before the first training step on JAX: imports and building.

- default: what `mnv2tl train` needs by default: base weights, the frozen layers in their runtime,
  the last layers as a compiled Keras model;
- whole: the whole network by mnv2tl, compiled, as a training of all layers has it;
- stock: the classic notebook's calls, `keras.applications.MobileNetV2` and a Dense layer, compiled.

Each is a process of its own, in turn. Afterwards, untimed, all three predict the same images with
the same weights. With --both-python, an interpreter that has TensorFlow too, the three are timed
there again, and a whole `mnv2tl train` on JAX is run under `-X importtime` to show that it imports
TensorFlow nowhere.

    python -m benchmarks.first_step --python P --both-python Q

Run it on a machine that does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from benchmarks.parts import record
from benchmarks.parts.timing import (
    MNV2TL,
    get_ready,
    largest_difference,
    make_bar,
    make_environment,
    run_in_turn,
    run_process,
    show_bar,
    spread,
)

WAYS = ("default", "whole", "stock")
ASKED_SECONDS = 5.0
LIMIT = 1e-4
"""Allowed difference of a probability."""


def start(python: str, way: str, weights: str, out: Path | None = None) -> dict[str, Any]:
    """Run one process; return its seconds and whether it imported TensorFlow.

    Args:
        python: Interpreter.
        way: One of `WAYS`.
        weights: Base weights.
        out: Where it leaves its probabilities; None ends it before the first step.
    """
    words = [python, "-m", "benchmarks.parts.first_step_worker", way, weights]
    began = time.monotonic()  # one clock for all processes
    _, output = run_process([*words, *([str(out)] if out else [])], KERAS_BACKEND="jax")
    answer = json.loads(output.splitlines()[-1])
    return {"seconds": answer["ready"] - began, "tensorflow": answer["tensorflow"]}


def compare_answers(python: str, weights: str) -> dict[str, float]:
    """Return how far our probabilities are from those of the stock calls.

    Raises:
        UnequalError: By more than `LIMIT`.
    """
    rows = {}
    with tempfile.TemporaryDirectory() as made:
        for way in WAYS:
            start(python, way, weights, Path(made) / f"{way}.npy")
            rows[way] = np.load(Path(made) / f"{way}.npy", allow_pickle=False)
    return {
        way: largest_difference(rows[way], rows["stock"], limit=LIMIT)
        for way in WAYS
        if way != "stock"
    }


def find_tensorflow(report: str) -> list[str]:
    r"""Return the lines of an import report that name TensorFlow.

    >>> find_tensorflow("import time: 9 | 9 | jax\nimport time: 9 | 9 |   tensorflow.python")
    ['import time: 9 | 9 |   tensorflow.python']
    """
    lines = report.splitlines()
    return [line for line in lines if line.rpartition("|")[2].strip().startswith("tensorflow")]


def train_traced(python: str, weights: str) -> list[str]:
    """Train on drawn pictures, to the finished run; return its imports of TensorFlow."""
    with tempfile.TemporaryDirectory() as made:
        _draw(Path(made, "drawn"))
        words = ["train", "drawn", "--out", "run", "--epochs", "2", "--weights", weights]
        done = subprocess.run(
            [python, "-X", "importtime", *MNV2TL, *words, "--backend", "jax", "--quiet"],
            check=True,
            cwd=made,
            env=make_environment(KERAS_BACKEND="jax", PYTHONPATH=_python_path()),
            capture_output=True,
            text=True,
        )
    if "mnv2tl.train\n" not in done.stderr:
        raise click.ClickException("the import report names no module of mnv2tl")
    return find_tensorflow(done.stderr)


def _python_path() -> str:
    return ":".join([str(record.ROOT), str(record.ROOT / "export")])


def _draw(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, channel in (("red", 0), ("green", 1)):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 100, (48, 48, 3), np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def measure(python: str, weights: str, *, rounds: int, place: str) -> dict[str, Any]:
    """Return the figures of one interpreter.

    Args:
        python: The interpreter.
        weights: Base weights.
        rounds: Counted rounds.
        place: Names what is installed there.
    """
    differences = compare_answers(python, weights)
    imported: dict[str, bool] = {}

    def time_way(way: str) -> float:
        found = start(python, way, weights)
        imported[way] = found["tensorflow"]
        return float(found["seconds"])

    calls = {way: lambda way=way: time_way(way) for way in WAYS}
    taken = run_in_turn(calls, rounds=rounds)
    words = {"default": "before the first step, default recipe", "whole": "the same, all layers"}
    return {
        "place": place,
        "max_abs_diff": differences,
        "limit": LIMIT,
        "seconds": {way: spread(each) for way, each in taken.items()},
        "tensorflow_imported": imported,
        "bars": [
            make_bar(
                f"{words[way]}, {place}",
                "stock Keras calls",
                kind="value",
                ours=taken[way],
                theirs=taken["stock"],
                unit="s",
                asked=ASKED_SECONDS,
            )
            for way in words
        ],
    }


@click.command(help=record.help_text(__doc__))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "speed-first-step.json",
    show_default="benchmarks/results/speed-first-step.json",
    help="JSON file.",
)
@click.option("--python", default=sys.executable, help="Interpreter that has JAX.")
@click.option("--both-python", help="Interpreter that has JAX and TensorFlow.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
def main(out: Path, python: str, both_python: str | None, rounds: int, weights: str) -> None:
    """Time all ways in turn and write the figures."""
    conditions = get_ready(python, *([both_python] if both_python else []))
    found = [measure(python, weights, rounds=rounds, place="JAX")]
    traced = None
    if both_python:
        found.append(measure(both_python, weights, rounds=rounds, place="JAX beside TensorFlow"))
        traced = train_traced(both_python, weights)
    ours = [each["tensorflow_imported"][way] for each in found for way in ("default", "whole")]
    if any(ours) or traced:
        raise click.ClickException(f"TensorFlow was imported on JAX: {traced or found}")
    bars = [bar for figures in found for bar in figures.pop("bars")]
    settings = {"weights": weights, "rounds": rounds, "conditions": conditions}
    whole_training = None if traced is None else {"imports_of_tensorflow": len(traced)}
    record.write(out, settings | {"places": found, "training": whole_training, "bars": bars})
    for bar in bars:
        click.echo(show_bar(bar))
    click.echo(f"imports of TensorFlow in a training on JAX: {whole_training}")


if __name__ == "__main__":
    main()
