"""The whole MobileNetV2 in Keras: forward, and training of all layers, ms per image.

- ours: the network as mnv2tl builds it on JAX, with the layers of `mnv2tl.jax_layers`, in a process
  that is set up as that of a command is;
- stock: `keras.applications.MobileNetV2` on JAX;
- tensorflow: the same on TensorFlow.

Each lives in a process of its own; all three are asked in turn, with equal weights and
images. Training is `train_on_batch` with Adam and BatchNorm in training mode, forward is
`predict_on_batch`. Probabilities, loss and the gradients of the first step must be equal, or no
speed is reported. Beside wall time stands that of all cores together. The floor says what
operations and bytes would take on this machine at its measured peak and bandwidth.

    python -m benchmarks.whole_network --jax-python P --tensorflow-python P

Run it on a machine that does nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.parts import record
from benchmarks.parts.floor import describe_floor
from benchmarks.parts.timing import (
    get_ready,
    largest_difference,
    make_bar,
    show_bar,
    spread,
)
from benchmarks.parts.worker import Worker
from mnv2tl.mobilenet import DENSE, list_layers
from mnv2tl.weights import load

CLASSES = 10
LIMITS = {"probabilities": 1e-4, "loss": 1e-3, "gradients": 5e-2}
"""Largest allowed difference from stock on JAX; of all gradients as the length of the difference
over their own. BatchNorm over a batch makes much of rounding: stock Keras on TensorFlow and on JAX
differ by a hundredth there."""
TASKS = ("forward", "training")
CLOCKS = ("wall", "cores")
ASKED = {
    ("forward", "stock"): 5.0,
    ("forward", "tensorflow"): 1.0,
    ("training", "stock"): 5.0,
    ("training", "tensorflow"): None,
}
NAMES = {"stock": "stock Keras on JAX", "tensorflow": "stock Keras on TensorFlow"}


class Side:
    """One network in one process."""

    def __init__(self, name: str, worker: Worker, network: str) -> None:
        self.name, self.worker, self.network = name, worker, network

    def open(self, weights: Path, image_px: int) -> None:
        """Build the network."""
        self.worker.ask(
            do="open",
            network=self.network,
            weights=str(weights),
            image_px=image_px,
            classes=CLASSES,
        )

    def predict(self, folder: Path) -> NDArray[Any]:
        """Return the probabilities of the images."""
        out = folder / f"{self.name}.npz"
        self.worker.ask(do="forward", network=self.network, out=str(out))
        with np.load(out) as arrays:
            probabilities: NDArray[Any] = arrays["probabilities"]
        return probabilities

    def step(self, folder: Path) -> tuple[float, dict[str, NDArray[Any]]]:
        """Return loss and gradients of the first step from the first weights."""
        out = folder / f"{self.name}.npz"
        loss = self.worker.ask(do="train", network=self.network, out=str(out))["loss"]
        with np.load(out) as arrays:
            return loss, dict(arrays)

    def time(self, task: str, *, count: int) -> dict[str, float]:
        """Return ms per call, on the wall and of all cores."""
        if task == "forward":
            taken = self.worker.ask(do="forward", network=self.network, count=count)
        else:
            taken = self.worker.ask(do="train", network=self.network)
        return {clock: 1000 * taken[clock] for clock in CLOCKS}


def compare_answers(sides: Sequence[Side], folder: Path) -> dict[str, dict[str, float]]:
    """Return how far each side's answers are from those of stock Keras on JAX.

    Raises:
        UnequalError: They differ by more than `LIMITS`.
    """
    answers = {}
    for side in sides:
        probabilities = side.predict(folder)
        loss, gradients = side.step(folder)
        answers[side.name] = {
            "probabilities": probabilities,
            "loss": np.array(loss),
            "gradients": np.concatenate(
                [gradients[name].reshape(-1) for name in sorted(gradients)]
            ),
        }
    expected = answers.pop("stock")
    return {
        name: {
            "probabilities": _differ(each, expected, "probabilities"),
            "loss": _differ(each, expected, "loss"),
            "gradients": largest_difference(
                _length(each["gradients"] - expected["gradients"]) / _length(expected["gradients"]),
                0.0,
                limit=LIMITS["gradients"],
            ),
        }
        for name, each in answers.items()
    }


def _differ(ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]], what: str) -> float:
    return largest_difference(ours[what], theirs[what], limit=LIMITS[what])


def _length(gradients: NDArray[Any]) -> float:
    return float(np.linalg.norm(gradients.astype(np.float64)))


def time_sides(sides: Sequence[Side], *, rounds: int, count: int) -> dict[str, Any]:
    """Return the ms per call of each task, side and clock, a value per round."""
    rng = np.random.default_rng(0)
    taken: dict[str, Any] = {
        task: {side.name: {clock: [] for clock in CLOCKS} for side in sides} for task in TASKS
    }
    for number in range(rounds + 1):
        for place in rng.permutation(len(sides)):
            side = sides[place]
            for task in TASKS:
                ms = side.time(task, count=count)
                for clock in CLOCKS if number else ():  # the first round is to get warm
                    taken[task][side.name][clock].append(ms[clock])
    return taken


def make_bars(taken: dict[str, Any], batch: int) -> list[dict[str, Any]]:
    """Return each task against each other side.

    Args:
        taken: ms per image, of `time_sides`.
        batch: Names the rows.
    """
    words = {"forward": "whole network, forward", "training": "training of all layers"}
    return [
        make_bar(
            f"{words[task]}, JAX, batch {batch}",
            NAMES[name],
            kind="speed",
            ours=taken[task]["ours"]["wall"],
            theirs=taken[task][name]["wall"],
            unit="ms/image",
            asked=asked,
        )
        for (task, name), asked in ASKED.items()
    ]


def measure(
    sides: Sequence[Side], folder: Path, *, batch: int, image_px: int, rounds: int, count: int
) -> dict[str, Any]:
    """Return the figures of one batch size."""
    rng = np.random.default_rng(batch)
    images = rng.uniform(-1, 1, (batch, image_px, image_px, 3)).astype(np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=batch)]
    inputs = folder / "inputs.npz"
    np.savez(inputs, images=images, labels=labels)
    for side in sides:
        side.worker.ask(do="take", inputs=str(inputs))
    differences = compare_answers(sides, folder)
    taken = time_sides(sides, rounds=rounds, count=count)
    per_image = {
        task: {
            name: {clock: [ms / batch for ms in values] for clock, values in clocks.items()}
            for name, clocks in names.items()
        }
        for task, names in taken.items()
    }
    return {
        "batch": batch,
        "max_abs_diff": differences,
        "ms_per_image": {
            task: {
                name: {clock: spread(values) for clock, values in clocks.items()}
                for name, clocks in names.items()
            }
            for task, names in per_image.items()
        },
        "bars": make_bars(per_image, batch),
    }


@click.command(help=record.help_text(__doc__))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "speed-network.json",
    show_default="benchmarks/results/speed-network.json",
    help="JSON file.",
)
@click.option("--jax-python", default=sys.executable, help="Interpreter that has JAX.")
@click.option("--tensorflow-python", default=sys.executable, help="Interpreter that has it.")
@click.option("--batch", "batches", multiple=True, type=int, default=(16, 32), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option("--count", default=2, show_default=True, help="Forward calls in a turn.")
@click.option("--image-px", default=224, show_default=True, help="Side of the pictures.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
def main(
    out: Path,
    jax_python: str,
    tensorflow_python: str,
    batches: tuple[int, ...],
    rounds: int,
    count: int,
    image_px: int,
    weights: str,
) -> None:
    """Check the answers, time all three in turn and write the figures."""
    conditions = get_ready(jax_python, tensorflow_python)
    layers = list_layers(image_px=image_px)
    floor = describe_floor(layers, classes=CLASSES)
    arrays = dict(load(weights, alpha=1.0, image_px=image_px, seed=0).arrays)
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.03, (layers[-1].channels, CLASSES)).astype(np.float32)
    dense = {f"{DENSE}/kernel": kernel, f"{DENSE}/bias": np.zeros(CLASSES, np.float32)}
    module = "benchmarks.parts.network_worker"
    with (
        tempfile.TemporaryDirectory() as made,
        Worker(jax_python, module, KERAS_BACKEND="jax") as ours,
        Worker(jax_python, module, KERAS_BACKEND="jax") as jax,
        Worker(tensorflow_python, module, KERAS_BACKEND="tensorflow") as tensorflow,
    ):
        folder = Path(made)
        np.savez(folder / "weights.npz", allow_pickle=False, **(arrays | dense))
        sides = [
            Side("ours", ours, "ours"),
            Side("stock", jax, "stock"),
            Side("tensorflow", tensorflow, "stock"),
        ]
        for side in sides:
            side.open(folder / "weights.npz", image_px)
        versions = tensorflow.ask(do="describe") | jax.ask(do="describe")
        found = []
        for batch in batches:
            options = {"batch": batch, "image_px": image_px, "rounds": rounds, "count": count}
            found.append(measure(sides, folder, **options))
            for bar in found[-1]["bars"]:
                click.echo(show_bar(bar))
    bars = [bar for figures in found for bar in figures.pop("bars")]
    settings: dict[str, Any] = {
        "weights": weights,
        "image_px": image_px,
        "rounds": rounds,
        "limits": LIMITS,
    }
    settings |= {"conditions": conditions, "versions": versions}
    figures = {"floor": floor, "batches": found, "bars": bars}
    record.write(out, settings | figures)


if __name__ == "__main__":
    main()
