"""float16 and 8 bits beside float32: size, accuracy and latency of every recipe on one run.

Tried are the recipes of `mnv2tl_export.onnx_int8` and what they were chosen over: all weights in
8 bits (wrong on processors without VNNI, which this cannot show on one that has it), one scale per
tensor, no layer left out. Calibration pictures come from the training split, all figures from the
validation split, pictures resized by Pillow. The models are asked in turn, round after round; the
first call of each turn is not counted.

    KERAS_BACKEND=jax python -m benchmarks.quantised RUN

Run it on a machine that does nothing else.
"""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.parts import record
from benchmarks.parts.run_options import run_options
from benchmarks.parts.timing import Call, get_ready, time_in_turn
from mnv2tl.checkpoint import load_run
from mnv2tl.metrics import log_loss, top1_accuracy
from mnv2tl.progress import track
from mnv2tl_export.artifacts import Workshop
from mnv2tl_export.defaults import REST_SECONDS
from mnv2tl_export.onnx_fp16 import convert_fp16
from mnv2tl_export.onnx_int8 import CALIBRATION_IMAGES, RECIPES
from mnv2tl_export.onnx_quantise import quantise
from mnv2tl_export.runtime import open_session
from mnv2tl_export.source import Source, open_source

OTHERS = (
    replace(RECIPES[0], name="no layer left out", float_convolutions=0),
    replace(RECIPES[0], name="all 8 bits", seven_bits=False),
    replace(
        RECIPES[0], name="all 8 bits, no layer left out", seven_bits=False, float_convolutions=0
    ),
    replace(RECIPES[0], name="per tensor", per_channel=False),
)
"""Recipes that the search does not try."""
BATCHES, THREADS = (1, 16), (1, 2)

Pixels = NDArray[np.uint8]


def make_models(source: Source) -> dict[str, bytes]:
    """Return name -> ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        float32 = Workshop(source, Path(folder), via="native", accuracy_budget=1.0).float32
    calibration = source.pictures("train", at_most=CALIBRATION_IMAGES)
    pixels = np.concatenate(list(calibration.resized_chunks()))
    models = {"float32": float32, "float16": convert_fp16(float32)}
    recipes = (*RECIPES, *OTHERS)
    for recipe in track(recipes, "quantise", total=len(recipes), unit="recipes"):
        models[f"int8, {recipe.name}"] = quantise(float32, recipe, pixels)
    return models


def measure_answers(
    models: Mapping[str, bytes], pixels: Pixels, labels: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """Return bytes, accuracy, log loss and the largest difference from float32 of each model."""
    rows = {}
    expected = _ask(models["float32"], pixels)
    for name, content in models.items():
        answers = _ask(content, pixels)
        difference = np.abs(answers - expected)
        rows[name] = {
            "bytes": len(content),
            "accuracy": top1_accuracy(answers, labels),
            "loss": log_loss(answers, labels),
            "max_abs_diff": float(difference.max()),
            "mean_abs_diff": float(difference.mean()),
            "top1_agreement": top1_accuracy(answers, expected.argmax(axis=1)),
        }
    return rows


def time_models(
    models: Mapping[str, bytes], pixels: Pixels, *, rounds: int, calls: int
) -> dict[str, dict[str, float]]:
    """Return the median latency in ms of each model, by batch size and threads."""
    rows: dict[str, dict[str, float]] = {name: {} for name in models}
    steps = [(threads, batch) for threads in THREADS for batch in BATCHES]
    for threads, batch in track(steps, "latency", total=len(steps), unit="settings"):
        shown = {"image": np.resize(pixels, (batch, *pixels.shape[1:]))}
        asked: dict[str, Call] = {
            name: functools.partial(open_session(content, threads=threads).run, None, shown)
            for name, content in models.items()
        }
        found = time_in_turn(asked, rounds=rounds, count=calls, rest_seconds=REST_SECONDS)
        for name, seconds in found.items():
            p50 = 1000 * float(np.median(seconds))
            rows[name][f"p50_ms_batch_{batch}_threads_{threads}"] = p50
    return rows


def _ask(content: bytes, pixels: Pixels) -> NDArray[np.float32]:
    session = open_session(content)
    chunks = [pixels[start : start + 16] for start in range(0, len(pixels), 16)]
    return np.concatenate([session.run(None, {"image": chunk})[0] for chunk in chunks])


@click.command(help=record.help_text(__doc__))
@run_options("quantised", rounds=20)
def main(run: Path, data: Path | None, out: Path, rounds: int, calls: int) -> None:
    """Measure and write the figures."""
    conditions = get_ready(sys.executable)
    source = open_source(load_run(run), data=data)
    models = make_models(source)
    pictures = source.pictures("val")
    pixels = np.concatenate(list(pictures.resized_chunks()))
    labels = np.array([entry.label for entry in pictures.entries], np.int64)
    answers = measure_answers(models, pixels, labels)
    latencies = time_models(models, pixels, rounds=rounds, calls=calls)
    slow = latencies["float32"]
    rows: list[dict[str, Any]] = [
        {
            "model": name,
            **answers[name],
            **latencies[name],
            "speed": {key: slow[key] / value for key, value in latencies[name].items()},
        }
        for name in models
    ]
    figures = {
        "data": source.root.name,
        "image_px": source.config["image_px"],
        "alpha": source.config["alpha"],
        "val_images": len(labels),
        "calibration_images": CALIBRATION_IMAGES,
        "rounds": rounds,
        "calls": calls,
        "conditions": conditions,
        "rows": rows,
    }
    record.write(out, figures)
    for row in rows:
        speed = row["speed"]["p50_ms_batch_16_threads_2"]
        line = f"{row['model']:36} {row['bytes']:>9,} bytes  accuracy {row['accuracy']:.4f}  "
        line += f"loss {row['loss']:.4f}  largest difference {row['max_abs_diff']:.3f}  "
        click.echo(line + f"x{speed:.2f} at batch 16, 2 threads")


if __name__ == "__main__":
    main()
