"""What the gate's limits catch, and how much room they leave a sound export.

A sound ONNX file of a run is held against Keras on the validation split; then faults are planted
in it, one at a time, at places drawn by a seeded generator:

- zero: one weight of one convolution, among the largest hundredth of its kernel, becomes 0;
- scale: all weights of one channel of one convolution grow by 1 %;
- bias: the bias of one channel of one convolution moves by 0.01.

Written: the largest differences of the sound file, and how many faults each pair of limits on
probabilities and logits finds.

    KERAS_BACKEND=jax python -m benchmarks.gate RUN
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.parts import record
from mnv2tl.checkpoint import load_run
from mnv2tl.metrics import softmax
from mnv2tl_export.artifacts import Workshop
from mnv2tl_export.gate import ask_reference
from mnv2tl_export.onnx_candidate import ask_logits
from mnv2tl_export.source import open_source

LIMITS = ((1e-5, 1e-4), (5e-5, 2e-4), (1e-4, 1e-3), (1e-3, 1e-2))
"""Pairs of a limit on probabilities and one on logits."""

Fault = Callable[[NDArray[np.float32], np.random.Generator], None]


def zero(kernel: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Set one of the largest weights to 0, in place."""
    flat = kernel.reshape(-1)
    largest = np.argsort(-np.abs(flat))[: max(1, flat.size // 100)]
    flat[rng.choice(largest)] = 0


def scale(kernel: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Let the weights of one channel grow by 1 %, in place."""
    kernel[rng.integers(len(kernel))] *= 1.01


def shift(bias: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Move one bias by 0.01, in place."""
    bias[rng.integers(len(bias))] += 0.01


FAULTS: dict[str, tuple[str, Fault]] = {
    "zero": ("/weight", zero),
    "scale": ("/weight", scale),
    "bias": ("/bias", shift),
}
"""Name -> end of the names of the constants that it changes, and how."""


def plant(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Return an ONNX file with one fault in it."""
    model = onnx.load_from_string(content)
    ending, change = FAULTS[kind]
    tensors = [each for each in model.graph.initializer if each.name.endswith(ending)]
    tensor = tensors[rng.integers(len(tensors))]
    values = numpy_helper.to_array(tensor).copy()
    change(values, rng)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    planted: bytes = model.SerializeToString()
    return planted


@click.command(help=record.help_text(__doc__))
@click.argument("run_folder", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option("--trials", default=40, show_default=True, help="Faults of each kind.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
def main(run_folder: Path, trials: int, out: Path | None) -> None:
    """Plant faults and count what is found."""
    source = open_source(load_run(run_folder))
    pictures = source.pictures("val")
    expected = ask_reference(source.reference, pictures)
    chunks = list(pictures.resized_chunks())
    temperature = source.temperature or 1.0

    def differ(content: bytes) -> tuple[float, float]:
        """Return the largest difference of a probability and of a logit."""
        ask = ask_logits(content)
        logits = np.concatenate([ask(pixels) for pixels in chunks])
        rows = [softmax(each, temperature=temperature) for each in (logits, expected)]
        return float(np.abs(rows[0] - rows[1]).max()), float(np.abs(logits - expected).max())

    sound = Workshop(source, run_folder, via="native", accuracy_budget=0.0).float32
    probability, logit = differ(sound)
    figures: dict[str, Any] = {
        "backend": keras.backend.backend(),
        "images": len(expected),
        "sound": {"probability": probability, "logit": logit},
        "trials": trials,
        "found": {},
    }
    for kind in FAULTS:
        rng = np.random.default_rng(0)
        found = [differ(plant(sound, kind, rng)) for _ in range(trials)]
        figures["found"][kind] = [
            {
                "limits": [p, q],
                "found": sum(a > p or b > q for a, b in found),
                "by_probability_alone": sum(a > p for a, _ in found),
            }
            for p, q in LIMITS
        ]
    name = f"gate-{figures['backend']}.json"
    record.write(out or record.RESULTS / name, figures)
    click.echo(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
