"""The whole network on a graphics card, Keras on JAX: all layers train, or the first are frozen.

PART `float32` or `bfloat16` (Keras' mixed_bfloat16): all layers train. mnv2tl's network and the
stock `keras.applications.MobileNetV2` in turn, images per second of `train_on_batch` with Adam and
BatchNorm in training mode, on a batch that lies in the card's memory already. Losses of the first
step must be equal. Both train with the matrix products that JAX takes by default, which on NVIDIA
cards are TensorFloat-32 for float32.

PART `frozen`: the frozen layers from uint8 pixels in the computer's memory. As `mnv2tl train` runs
them on the card for many images, in full float32; the stock network cut at the same layer, as Keras
runs it; and onnxruntime on all processors, which few images get. Features must be equal.

Shares of peak and of bandwidth count the operations of convolutions and the bytes of activations
(three times forward for a step) over what a large matrix product of the same type, and a sweep
over a large array, reach on this device.

    KERAS_BACKEND=jax python -m benchmarks.gpu float32

It runs on any device of JAX; `--batch 4 --image-px 96 --matrix 512` is for a try on a CPU.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import jax
import keras
import numpy as np

from benchmarks.parts import record
from benchmarks.parts.floor import TRAINING, count_moved_bytes, count_multiply_adds
from benchmarks.parts.network_worker import build_ours, build_stock, compile_model
from benchmarks.parts.timing import (
    largest_difference,
    make_bar,
    show_bar,
    spread,
    time_in_turn,
)
from mnv2tl.backend import training_precision, use_backend
from mnv2tl.keras_model import set_arrays
from mnv2tl.mobilenet import DENSE, cut_at, list_layers
from mnv2tl.scaling import SCALINGS
from mnv2tl.trunk import open_trunk
from mnv2tl.weights import load

CLASSES = 10
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
LIMITS = {"float32": 1e-2, "bfloat16": 1e-1}
"""Allowed difference of the first step's loss, which is about 2.3; bfloat16 keeps eight bits."""
SCALING = "symmetric"
_SWEEP_BYTES = 2**29

Figures = dict[str, Any]


def measure_peak(dtype: str, side: int) -> float:
    """Return the operations per second of a matrix product of this type on JAX's device."""
    matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
    product = jax.jit(lambda a, b: a @ b)
    with training_precision("jax"):
        seconds = time_in_turn(
            {"product": lambda: product(matrix, matrix).block_until_ready()}, rounds=5, count=5
        )
    return float(2 * side**3 / seconds["product"].min())


def measure_bandwidth() -> float:
    """Return the bytes per second, read and written, of a sweep over a large array."""
    array = jax.random.normal(jax.random.key(0), (_SWEEP_BYTES // 4,))
    sweep = jax.jit(lambda a: a + 1)
    seconds = time_in_turn({"sweep": lambda: sweep(array).block_until_ready()}, rounds=5, count=5)
    return float(2 * _SWEEP_BYTES / seconds["sweep"].min())


def measure_training(
    policy: str, arrays: Mapping[str, Any], *, batch: int, image_px: int, rounds: int, matrix: int
) -> Figures:
    """Return the figures of one policy.

    Args:
        policy: A key of `POLICIES`.
        arrays: All weights.
        batch: Images in a step.
        image_px: Side of the pictures.
        rounds: Counted turns of five steps each.
        matrix: Side of the peak's matrices.
    """
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (batch, image_px, image_px, 3)).astype(np.float32)
    images = jax.device_put(pixels)
    labels = jax.device_put(np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=batch)])
    keras.config.set_dtype_policy(POLICIES[policy])
    models = {"ours": build_ours(image_px, CLASSES), "stock": build_stock(image_px, CLASSES)}
    calls: dict[str, Callable[[], float]] = {}
    for name, model in models.items():
        compile_model(model)
        set_arrays(model, arrays)
        calls[name] = functools.partial(_train, model, images, labels)
    keras.config.set_dtype_policy("float32")
    losses = {name: call() for name, call in calls.items()}
    difference = largest_difference(losses["ours"], losses["stock"], limit=LIMITS[policy])
    seconds = time_in_turn(calls, rounds=rounds, count=5)
    rates = {name: (batch / each).mean(axis=1).tolist() for name, each in seconds.items()}
    layers = list_layers(image_px=image_px)
    bytes_per_value = 2 if policy == "bfloat16" else 4
    work = {
        "peak": TRAINING * 2 * count_multiply_adds(layers, classes=CLASSES),
        "bandwidth": TRAINING * count_moved_bytes(layers) * bytes_per_value // 4,
    }
    limits = {"peak": measure_peak(policy, matrix), "bandwidth": measure_bandwidth()}
    return {
        "images_per_second": {name: spread(each) for name, each in rates.items()},
        "shares": _share(work, limits, rates),
        "limits": limits,
        "max_abs_diff": difference,
        "bars": [
            make_bar(
                f"training of all layers, {policy}, {_name_device()}, batch {batch}",
                "stock Keras on JAX",
                kind="rate",
                ours=rates["ours"],
                theirs=rates["stock"],
                unit="images/s",
                asked=None,
            )
        ],
    }


def measure_frozen(
    arrays: Mapping[str, Any], *, batch: int, image_px: int, rounds: int, matrix: int
) -> Figures:
    """Return images per second of the frozen layers, from pixels in memory.

    Args:
        arrays: All weights.
        batch: Images that the stock network gets at once; eight times as many are timed.
        image_px: Side of the pictures.
        rounds: Counted turns.
        matrix: Side of the peak's matrices.
    """
    layers = list_layers(image_px=image_px)
    layers = layers[: cut_at(layers, 4)]
    shape = (8 * batch, image_px, image_px, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    calls: dict[str, Callable[[], Any]] = {}
    opened = {}
    for runtime in ("keras", "onnxruntime"):
        began = time.perf_counter()
        trunk = open_trunk(layers, arrays, scaling=SCALING, runtime=runtime, image_px=image_px)
        run = trunk.run if runtime == "keras" else trunk.run_in_threads
        run(pixels[:1])
        opened[runtime] = time.perf_counter() - began
        calls[runtime] = functools.partial(run, pixels)
    predict = _open_stock(layers[-1].name, arrays, image_px)
    began = time.perf_counter()
    predict(pixels[:batch])
    opened["stock"] = time.perf_counter() - began
    calls["stock"] = lambda: np.concatenate(
        [predict(pixels[i : i + batch]) for i in range(0, len(pixels), batch)]
    )
    expected = calls["onnxruntime"]()
    largest = float(np.abs(expected).max())
    # TensorFloat-32, which the stock network has, keeps ten bits.
    differences = {
        name: largest_difference(calls[name](), expected, limit=limit * largest) / largest
        for name, limit in {"keras": 1e-4, "stock": 2e-2}.items()
    }
    seconds = time_in_turn(calls, rounds=rounds, count=1)
    rates = {name: (len(pixels) / each[:, 0]).tolist() for name, each in seconds.items()}
    bars = [
        make_bar(
            f"frozen layers, float32, {_name_device()}",
            against,
            kind="rate",
            ours=rates["keras"],
            theirs=rates[name],
            unit="images/s",
            asked=None,
        )
        for name, against in {
            "stock": f"stock Keras on JAX in TensorFloat-32, batch {batch}",
            "onnxruntime": f"onnxruntime on {os.cpu_count()} processors",
        }.items()
    ]
    return {
        "images": len(pixels),
        "seconds_to_open": opened,
        "share_of_largest_feature": differences,
        "images_per_second": {name: spread(each) for name, each in rates.items()},
        "limits": {"peak": measure_peak("float32", matrix)},
        "bars": bars,
    }


def _share(
    work: Mapping[str, float], limits: Mapping[str, float], rates: Mapping[str, list[float]]
) -> Figures:
    """Return the part of each limit that each side reaches at its median rate."""
    return {
        name: {limit: float(np.median(each)) * work[limit] / limits[limit] for limit in limits}
        for name, each in rates.items()
    }


def _open_stock(
    last: str, arrays: Mapping[str, Any], image_px: int
) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    stock = keras.applications.MobileNetV2(
        input_shape=(image_px, image_px, 3), include_top=False, weights=None
    )
    set_arrays(stock, arrays)
    image = keras.Input((image_px, image_px, 3))
    cut = keras.Model(stock.input, stock.get_layer(last).output)
    model = keras.Model(image, cut(keras.layers.Rescaling(*SCALINGS[SCALING])(image)))

    def predict(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with training_precision("jax"):
            return np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(pixels)))

    return predict


def _train(model: keras.Model, images: jax.Array, labels: jax.Array) -> float:
    with training_precision("jax"):
        return float(model.train_on_batch(images, labels))


def _name_device() -> str:
    return str(jax.devices()[0].device_kind)


@click.command(help=record.help_text(__doc__))
@click.argument("part", type=click.Choice([*POLICIES, "frozen"]))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    show_default="benchmarks/results/gpu-PART.json",
    help="JSON file.",
)
@click.option("--batch", default=256, show_default=True, help="Images in a step.")
@click.option("--image-px", default=224, show_default=True, help="Side of the pictures.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--matrix", default=8192, show_default=True, help="Side of the peak's matrices.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
def main(
    part: str, out: Path | None, batch: int, image_px: int, rounds: int, matrix: int, weights: str
) -> None:
    """Measure one part and write its figures."""
    if keras.backend.backend() != "jax":
        raise click.UsageError("set KERAS_BACKEND=jax")
    use_backend("jax")
    layers = list_layers(image_px=image_px)
    rng = np.random.default_rng(0)
    arrays: Figures = dict(load(weights, alpha=1.0, image_px=image_px, seed=0).arrays)
    arrays[f"{DENSE}/kernel"] = rng.normal(0, 0.03, (layers[-1].channels, CLASSES))
    arrays[f"{DENSE}/bias"] = np.zeros(CLASSES, np.float32)
    settings: Figures = {"batch": batch, "image_px": image_px, "rounds": rounds, "matrix": matrix}
    measure = measure_frozen if part == "frozen" else functools.partial(measure_training, part)
    figures = measure(arrays, **settings)
    for bar in figures["bars"]:
        click.echo(show_bar(bar))
    device = {"platform": jax.default_backend(), "name": _name_device()}
    settings |= {"part": part, "device": device, "weights": weights}
    record.write(out or record.RESULTS / f"gpu-{part}.json", settings | figures)


if __name__ == "__main__":
    main()
