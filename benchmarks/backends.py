"""JAX and TensorFlow side by side: the same checkpoint, the same seed, a resumed training.

Written to the result file, each with what it was compared to:

- one `best.keras` on both backends, opened by mnv2tl and by plain `keras.models.load_model`:
  largest difference of any probability on all validation images (allowed: 1e-5);
- the same seed on both backends: equal manifest, order of the batches and augmented pixels;
- the same seed twice on one backend, and once interrupted and resumed: bit-equal weights.

    python -m benchmarks.backends DATA --jax-python P --tensorflow-python P

The exit status is 1 if one of them does not hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.parts import record
from benchmarks.parts.timing import MNV2TL
from mnv2tl.checkpoint import Run, load_run
from mnv2tl.weights import hash_arrays

ALLOWED_DIFFERENCE = 1e-5
INTERRUPTED_AFTER = 3
"""Epochs that are finished when the training is interrupted."""
EXIT_TERMINATED = 143
"""Exit status of `mnv2tl train` after SIGTERM: 128 + 15."""

Pythons = dict[str, str]
"""Backend -> interpreter that has it."""


@click.command(help=record.help_text(__doc__))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "backends.json",
    show_default="benchmarks/results/backends.json",
    help="JSON file.",
)
@click.option("--jax-python", default=sys.executable, help="Interpreter that has JAX.")
@click.option("--tensorflow-python", default=sys.executable, help="Interpreter that has it.")
@click.option("--epochs", default=10, show_default=True, help="Epochs of each training.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
def main(
    data: Path, out: Path, jax_python: str, tensorflow_python: str, epochs: int, weights: str
) -> None:
    """Train on both backends and compare."""
    pythons = {"jax": jax_python, "tensorflow": tensorflow_python}
    if epochs <= INTERRUPTED_AFTER:
        raise click.BadParameter(f"epochs must be above {INTERRUPTED_AFTER}")
    options = ["--epochs", str(epochs), "--weights", weights, "--quiet"]
    with tempfile.TemporaryDirectory() as made:
        figures = _compare(pythons, data.resolve(), Path(made), options)
    record.write(out, {"data": data.name, "epochs": epochs, "weights": weights, **figures})
    click.echo(json.dumps(figures, indent=1))
    if not figures["passed"]:
        sys.exit(1)


def _compare(pythons: Pythons, data: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    runs = {}
    for name, backend in (("jax", "jax"), ("again", "jax"), ("tensorflow", "tensorflow")):
        click.echo(f"train: {name}", err=True)
        runs[name] = _train(pythons[backend], backend, data, folder / name, options)
    click.echo("train: interrupted and resumed", err=True)
    runs["resumed"] = _train_resumed(pythons["jax"], data, folder / "resumed", options)
    hashes = {name: hash_arrays(run.read_arrays()) for name, run in runs.items()}
    differences = _differences(pythons, runs["jax"], folder)
    inputs = {backend: _inputs(pythons[backend], runs[backend], folder) for backend in pythons}
    checks = {
        "same_checkpoint": max(differences.values()) <= ALLOWED_DIFFERENCE,
        "same_inputs": inputs["jax"] == inputs["tensorflow"],
        "same_seed_twice": hashes["jax"] == hashes["again"],
        "resumed": hashes["jax"] == hashes["resumed"],
    }
    return {
        "max_abs_diff": differences,
        "allowed_diff": ALLOWED_DIFFERENCE,
        "val_images": runs["jax"].info["val_images"],
        "inputs": inputs,
        "weights_sha256": hashes,
        "val_accuracy": {name: run.info["val_accuracy"] for name, run in runs.items()},
        "checks": checks,
        "passed": all(checks.values()),
    }


def _differences(pythons: Pythons, run: Run, folder: Path) -> dict[str, float]:
    """Return the largest difference of each way to open the checkpoint from mnv2tl on JAX."""
    found: dict[str, Any] = {}
    for backend, python in pythons.items():
        out = folder / f"{backend}.npz"
        _probe(python, backend, run, out)
        with np.load(out) as arrays:
            found |= {f"{way} on {backend}": arrays[way] for way in arrays.files}
    first = found.pop("mnv2tl on jax")
    return {name: float(np.abs(each - first).max()) for name, each in found.items()}


def _inputs(python: str, run: Run, folder: Path) -> dict[str, str]:
    out = folder / "inputs.json"
    _probe(python, run.info["backend"], run, out, "--inputs")
    hashes: dict[str, str] = json.loads(out.read_bytes())
    return hashes


def _probe(python: str, backend: str, run: Run, out: Path, *more: str) -> None:
    arguments = ["-m", "benchmarks.parts.probe", str(run.folder), "--out", str(out), *more]
    subprocess.run([python, *arguments], check=True, cwd=record.ROOT, env=_environment(backend))


def _train(python: str, backend: str, data: Path, out: Path, options: list[str]) -> Run:
    command = [python, *MNV2TL, "train", str(data), "--out", str(out), *options]
    subprocess.run(command, check=True, cwd=record.ROOT, env=_environment(backend))
    return load_run(out)


def _train_resumed(python: str, data: Path, out: Path, options: list[str]) -> Run:
    command = [python, *MNV2TL, "train", str(data), "--out", str(out), *options]
    process = subprocess.Popen(command, cwd=record.ROOT, env=_environment("jax"))
    while process.poll() is None and _count_epochs(out) < INTERRUPTED_AFTER:
        time.sleep(0.05)
    process.terminate()  # not SIGINT, which a process in the background may ignore
    status = process.wait()
    if status != EXIT_TERMINATED:
        message = f"the interrupted training ended with {status}, not {EXIT_TERMINATED}"
        raise click.ClickException(message)
    return _train(python, "jax", data, out, [*options, "--resume"])


def _count_epochs(out: Path) -> int:
    try:
        commits = json.loads((out / "state" / "state.json").read_bytes())["commits"]
    except FileNotFoundError:
        return 0
    return len(commits[-1]["history"])


def _environment(backend: str) -> dict[str, str]:
    return os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}


if __name__ == "__main__":
    main()
