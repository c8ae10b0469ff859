"""How long until a plain Keras script and a plain PyTorch script are as accurate as mnv2tl?

All train a head on the same frozen base weights, on the same split of the same pictures, on the
same machine, in turn, from process start; mnv2tl has an empty feature cache. Each counts until the
end of the first epoch whose validation accuracy is at least T, the lesser of the two's best.
Beside it stands mnv2tl's whole run, with its checkpoint and self-check, against the peer's time.

    python -m benchmarks.peers DATA --seeds 3 --keras-python K --torch-python T
"""

from __future__ import annotations

import collections
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import click
import numpy as np

from benchmarks.parts import record
from benchmarks.parts.folds import has_own_split, read_data, write_fold
from benchmarks.parts.timing import (
    MNV2TL,
    get_ready,
    largest_difference,
    make_environment,
    run_process,
)
from mnv2tl.cache_folder import cache_folder
from mnv2tl.weights import load

ASKED = 5.0
"""A peer takes at least so many times as long."""
_FEATURE_LIMIT = 1e-3


def seconds_to(epochs: Sequence[dict[str, float]], target: float) -> float:
    """Return the seconds of the first epoch that is as accurate as the target.

    >>> seconds_to([{"seconds": 3, "val_accuracy": 0.5}, {"seconds": 5, "val_accuracy": 0.8}], 0.7)
    5
    """
    # Accuracies are counts over the same pictures; one side may have been rounded.
    return next(e["seconds"] for e in epochs if e["val_accuracy"] >= target - 1e-6)


def compare(ours: dict[str, Any], epochs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the target, both sides' seconds to it, and how many times as long the peer takes.

    Args:
        ours: `seconds` of the whole run, and `epochs` as below.
        epochs: `seconds` and `val_accuracy` of the peer after each epoch.
    """
    best = max(each["val_accuracy"] for each in epochs)
    target = min(best, max(each["val_accuracy"] for each in ours["epochs"]))
    seconds, our_seconds = seconds_to(epochs, target), seconds_to(ours["epochs"], target)
    return {
        "target": target,
        "best_val_accuracy": best,
        "seconds": seconds,
        "our_seconds": our_seconds,
        "ratio": seconds / our_seconds,
        "ratio_to_whole_run": seconds / ours["seconds"],
    }


def run_script(command: Sequence[str], **environment: str) -> tuple[list[dict[str, float]], float]:
    """Run a program that prints a line of JSON after each epoch.

    Args:
        command: Program and arguments; it starts in the checkout.
        environment: Variables to set.

    Returns:
        Seconds and validation accuracy at the end of each epoch, and the seconds to its exit.

    Raises:
        click.ClickException: Its exit status is not 0.
    """
    start = time.perf_counter()
    epochs, last = [], collections.deque[str](maxlen=20)
    with subprocess.Popen(
        command,
        cwd=record.ROOT,
        env=make_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # there mnv2tl tells of epochs
        text=True,
    ) as process:
        for line in cast(IO[str], process.stdout):
            last.append(line)
            if (accuracy := _read_accuracy(line)) is not None:
                seconds = time.perf_counter() - start
                epochs.append({"seconds": seconds, "val_accuracy": accuracy})
    if process.returncode:
        raise click.ClickException(f"exit {process.returncode}: {''.join(last)}")
    return epochs, time.perf_counter() - start


def _read_accuracy(line: str) -> float | None:
    """Return the validation accuracy of a line that tells of an epoch."""
    value = json.loads(line) if line.startswith("{") else {}
    accuracy: float | None = value.get("val_accuracy")
    return accuracy


def run_ours(
    python: str, folder: Path, backend: str, *, weights: str, seed: int, epochs: int
) -> dict[str, Any]:
    """Run `mnv2tl train` with an empty feature cache; return its seconds and its epochs."""
    with tempfile.TemporaryDirectory() as made:
        cache = Path(made) / "cache"
        shutil.copytree(cache_folder("weights"), cache / "weights")
        command = [python, *MNV2TL, "train", str(folder), "--out", str(Path(made) / "run")]
        command += ["--seed", str(seed), "--epochs", str(epochs), "--backend", backend]
        command += ["--weights", weights, "--log-format", "json"]
        found, seconds = run_script(command, KERAS_BACKEND=backend, MNV2TL_CACHE=str(cache))
    return {"seconds": seconds, "epochs": found}


def check_features(peers: dict[str, list[str]], made: Path) -> dict[str, float]:
    """Return the largest difference of each peer's features from those of the first.

    Raises:
        UnequalError: They are not equal, so the peers would not start from the same.
    """
    pixels = np.random.default_rng(0).uniform(-1, 1, (4, 224, 224, 3)).astype(np.float32)
    np.save(made / "pixels.npy", pixels)
    found = {}
    for name, command in peers.items():
        out = made / f"{name}.npy"
        more = ["--features", str(out), "--pixels", str(made / "pixels.npy")]
        run_process([*command, *more], KERAS_BACKEND="tensorflow")
        found[name] = np.load(out)
    first = next(iter(found.values()))
    return {
        name: largest_difference(each, first, limit=_FEATURE_LIMIT) for name, each in found.items()
    }


@click.command(help=record.help_text(__doc__))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
@click.option("--seeds", default=3, show_default=True, help="Runs of each, with another seed.")
@click.option("--epochs", default=10, show_default=True, help="Epochs of each training.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
@click.option("--folds", default=5, show_default=True, help="Fold 0 of this many is validated on.")
@click.option("--backend", default="jax", show_default=True, help="Of mnv2tl.")
@click.option("--python", default=sys.executable, help="Interpreter for mnv2tl.")
@click.option("--keras-python", help="One with Keras and TensorFlow.")
@click.option("--torch-python", help="One with torch, torchvision and click.")
def main(
    data: Path,
    out: Path | None,
    seeds: int,
    epochs: int,
    weights: str,
    folds: int,
    backend: str,
    python: str,
    keras_python: str | None,
    torch_python: str | None,
) -> None:
    """Run all in turn and write what came."""
    pythons = {"keras": keras_python, "torch": torch_python}
    pythons = {name: path for name, path in pythons.items() if path}
    conditions = get_ready(python, *(path for path in pythons.values() if path))
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        folder = data.resolve()
        if not has_own_split(data):
            folder = made / "fold"
            write_fold(read_data(data), folder, fold=0, folds=folds)
        arrays = made / "arrays.npz"
        stored: dict[str, Any] = dict(load(weights).arrays)
        np.savez(arrays, **stored)
        commands = {
            name: [
                *(str(path), "-m", f"benchmarks.parts.peer_{name}"),
                *(str(folder), "--arrays", str(arrays)),
            ]
            for name, path in pythons.items()
        }
        differences = check_features(commands, made)
        versions = {name: _versions(str(path), name) for name, path in pythons.items()}
        for seed in range(seeds):
            row: dict[str, Any] = {"seed": seed}
            row["mnv2tl"] = run_ours(
                python, folder, backend, weights=weights, seed=seed, epochs=epochs
            )
            for name, command in commands.items():
                words = ["--seed", str(seed), "--epochs", str(epochs)]
                each, _ = run_script([*command, *words], KERAS_BACKEND="tensorflow")
                row[name] = {"epochs": each, **compare(row["mnv2tl"], each)}
                click.echo(f"seed {seed} {name}: {row[name]['ratio']:.1f}x", err=True)
            runs.append(row)
            # After each seed, so that what was measured outlives a stop.
            ratios = {n: statistics.median(each[n]["ratio"] for each in runs) for n in commands}
            record.write(
                out or record.RESULTS / "peers.json",
                {
                    "conditions": conditions,
                    "data": data.name,
                    "backend": backend,
                    "epochs": epochs,
                    "weights": weights,
                    "feature_differences": differences,
                    "peer_versions": versions,
                    "asked": ASKED,
                    "median_ratio": ratios,
                    "runs": runs,
                },
            )


def _versions(python: str, name: str) -> dict[str, str]:
    packages = {"keras": ("keras", "tensorflow-cpu"), "torch": ("torch", "torchvision")}[name]
    ask = "import importlib.metadata as m, sys, json; "
    ask += "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    _, output = run_process([python, "-c", ask, *packages])
    found: dict[str, str] = json.loads(output)
    return found


if __name__ == "__main__":
    main()
