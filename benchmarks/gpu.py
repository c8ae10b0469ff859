"""The whole network on a graphics card, Keras on JAX: all layers train, or the first are frozen.

For float32 and for Keras' mixed_bfloat16, in turn: mnv2tl's network and the stock
`keras.applications.MobileNetV2`, images per second of `train_on_batch` with Adam and BatchNorm in
training mode, on a batch that lies in the card's memory already. Losses of the first step must be
equal. Then the frozen layers as `mnv2tl train` runs them there, from uint8 pixels in the computer's
memory.

The share of peak counts the operations of convolutions (three times forward for a step) over what
a large matrix product of the same type reaches on this device. JAX computes float32 products on
NVIDIA cards in TensorFloat-32 where it may; both sides and the peak do.

    KERAS_BACKEND=jax python -m benchmarks.gpu

It runs on any device of JAX; `--batch 4 --image-px 96` is for a try on a CPU.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import keras
import numpy as np

from benchmarks.parts import record
from benchmarks.parts.floor import TRAINING, count_multiply_adds
from benchmarks.parts.network_worker import build_ours, build_stock, compile_model
from benchmarks.parts.timing import (
    get_ready,
    largest_difference,
    make_bar,
    show_bar,
    spread,
    time_in_turn,
)
from mnv2tl.keras_model import set_arrays
from mnv2tl.mobilenet import DENSE, cut_at, list_layers
from mnv2tl.scaling import SCALINGS
from mnv2tl.trunk import CHUNK_IMAGES, open_trunk
from mnv2tl.weights import load

CLASSES = 10
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
LIMITS = {"float32": 1e-2, "bfloat16": 1e-1}
"""Allowed difference of the first step's loss, which is about 2.3; bfloat16 keeps eight bits."""
SCALING = "symmetric"


def measure_peak(dtype: str, side: int) -> float:
    """Return the operations per second of a matrix product of this type on JAX's device."""
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a, b: a @ b)
    seconds = time_in_turn(
        {"product": lambda: product(matrix, matrix).block_until_ready()}, rounds=5, count=5
    )
    return float(2 * side**3 / seconds["product"].min())


def measure_training(
    policy: str, arrays: dict[str, Any], *, batch: int, image_px: int, rounds: int
) -> dict[str, Any]:
    """Return the figures of one policy.

    Args:
        policy: A key of `POLICIES`.
        arrays: All weights.
        batch: Images in a step.
        image_px: Side of the pictures.
        rounds: Counted turns of five steps each.
    """
    keras.config.set_dtype_policy(POLICIES[policy])
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (batch, image_px, image_px, 3)).astype(np.float32)
    images = jax.device_put(pixels)
    labels = jax.device_put(np.eye(CLASSES, dtype=np.float32)[rng.integers(CLASSES, size=batch)])
    calls: dict[str, Callable[[], object]] = {}
    losses = {}
    for name, build in {"ours": build_ours, "stock": build_stock}.items():
        model = build(image_px, CLASSES)
        compile_model(model)
        set_arrays(model, arrays)
        losses[name] = float(model.train_on_batch(images, labels))
        calls[name] = functools.partial(_train, model, images, labels)
    keras.config.set_dtype_policy("float32")
    difference = largest_difference(losses["ours"], losses["stock"], limit=LIMITS[policy])
    seconds = time_in_turn(calls, rounds=rounds, count=5)
    rates = {name: (batch / each).mean(axis=1).tolist() for name, each in seconds.items()}
    return {
        "images_per_second": {name: spread(each) for name, each in rates.items()},
        "max_abs_diff": difference,
        "bars": [
            make_bar(
                f"training of all layers, {policy}, {jax.devices()[0].device_kind}, batch {batch}",
                "stock Keras on JAX",
                kind="rate",
                ours=rates["ours"],
                theirs=rates["stock"],
                unit="images/s",
                asked=None,
            )
        ],
    }


def measure_trunk(arrays: dict[str, Any], *, images: int, image_px: int) -> dict[str, Any]:
    """Return images per second of the frozen layers in Keras, from pixels in memory."""
    layers = list_layers(image_px=image_px)
    layers = layers[: cut_at(layers, 4)]
    trunk = open_trunk(layers, arrays, scaling=SCALING, runtime="keras", image_px=image_px)
    pixels = np.random.default_rng(0).integers(0, 256, (images, image_px, image_px, 3), np.uint8)
    factor, offset = SCALINGS[SCALING]
    stock = keras.applications.MobileNetV2(
        input_shape=(image_px, image_px, 3), include_top=False, weights=None
    )
    set_arrays(stock, arrays)
    cut = keras.Model(stock.input, stock.get_layer(layers[-1].name).output)
    floats = pixels.astype(np.float32) * factor + offset
    expected = np.asarray(keras.ops.convert_to_numpy(cut.predict(floats, verbose=0)))
    found = trunk.run(pixels)
    # TensorFloat-32 keeps ten bits.
    limit = 1e-2 * float(np.abs(expected).max())
    difference = largest_difference(found, expected, limit=limit)
    seconds = time_in_turn({"trunk": lambda: trunk.run(pixels)}, rounds=5, count=1)
    return {
        "chunk_images": CHUNK_IMAGES,
        "max_abs_diff_from_stock": difference,
        "limit": limit,
        "images_per_second": spread(images / seconds["trunk"]),
    }


def _train(model: keras.Model, images: jax.Array, labels: jax.Array) -> float:
    return float(model.train_on_batch(images, labels))


@click.command(help=record.help_text(__doc__))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "speed-gpu.json",
    show_default="benchmarks/results/speed-gpu.json",
    help="JSON file.",
)
@click.option("--batch", default=256, show_default=True, help="Images in a step.")
@click.option("--image-px", default=224, show_default=True, help="Side of the pictures.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
@click.option("--matrix", default=8192, show_default=True, help="Side of the peak's matrices.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
def main(out: Path, batch: int, image_px: int, rounds: int, matrix: int, weights: str) -> None:
    """Measure all of it and write the figures."""
    if keras.backend.backend() != "jax":
        raise click.UsageError("set KERAS_BACKEND=jax")
    conditions = get_ready(sys.executable)
    layers = list_layers(image_px=image_px)
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = dict(load(weights, alpha=1.0, image_px=image_px, seed=0).arrays)
    arrays[f"{DENSE}/kernel"] = rng.normal(0, 0.03, (layers[-1].channels, CLASSES))
    arrays[f"{DENSE}/bias"] = np.zeros(CLASSES, np.float32)
    operations = 2 * count_multiply_adds(layers, classes=CLASSES)
    training, bars = {}, []
    for policy in POLICIES:
        peak = measure_peak(policy, matrix)
        found = measure_training(policy, arrays, batch=batch, image_px=image_px, rounds=rounds)
        bars += found.pop("bars")
        median = {name: each["median"] for name, each in found["images_per_second"].items()}
        shares = {name: TRAINING * operations * rate / peak for name, rate in median.items()}
        training[policy] = found | {"peak_tflops": peak / 1e12, "share_of_peak": shares}
        click.echo(f"{show_bar(bars[-1])}; share of peak {shares['ours']:.3f}")
    trunk = measure_trunk(arrays, images=batch, image_px=image_px)
    trunk["share_of_peak"] = (
        operations
        * trunk["images_per_second"]["median"]
        / 1e12
        / training["float32"]["peak_tflops"]
    )
    device = {"platform": jax.default_backend(), "name": jax.devices()[0].device_kind}
    settings = {"device": device, "batch": batch, "image_px": image_px, "weights": weights}
    figures = {"training": training, "trunk": trunk, "bars": bars}
    record.write(out, settings | {"conditions": conditions, "rounds": rounds} | figures)
    click.echo(f"frozen layers: {trunk['images_per_second']['median']:.0f} images/s")


if __name__ == "__main__":
    main()
