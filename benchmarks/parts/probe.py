"""Answer one question about a run, in a process of its own backend; backends.py asks.

KERAS_BACKEND=jax python -m benchmarks.parts.probe RUN --out PROBABILITIES.npz
KERAS_BACKEND=jax python -m benchmarks.parts.probe RUN --out HASHES.json --inputs
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.parts import record
from mnv2tl import store
from mnv2tl.backend import use_backend
from mnv2tl.checkpoint import Run, load_run

BATCH_IMAGES = 32


def predict_twice(run: Run) -> dict[str, Any]:
    """Return the probabilities on all validation images, by mnv2tl and by plain Keras."""
    import keras  # noqa: PLC0415

    from mnv2tl.data.augment import PRESETS  # noqa: PLC0415
    from mnv2tl.data.views import ViewMaker  # noqa: PLC0415
    from mnv2tl.evaluate import evaluate_run  # noqa: PLC0415

    image_px = run.info["config"]["image_px"]
    manifest = run.manifest
    maker = ViewMaker(root=manifest.root, image_px=image_px, augment=PRESETS["none"], seed=0)
    model = keras.models.load_model(run.best_path)
    val = manifest.of_split("val")
    plain = []
    for start in range(0, len(val), BATCH_IMAGES):
        pixels = np.stack([maker.load(entry) for entry in val[start : start + BATCH_IMAGES]])
        plain.append(np.asarray(model.predict_on_batch(pixels.astype(np.float32))))
    ours = evaluate_run(run).probabilities
    # The temperature is no part of best.keras: take it back.
    powers = ours ** run.info["temperature"]
    return {
        "mnv2tl": powers / powers.sum(axis=1, keepdims=True),
        "keras": np.concatenate(plain).astype(np.float64),
    }


def hash_inputs(run: Run) -> dict[str, str]:
    """Return hashes of what this backend's training saw: images, batches, augmented pixels."""
    from mnv2tl.batches import order_of_epoch  # noqa: PLC0415
    from mnv2tl.data.augment import AugmentConfig  # noqa: PLC0415
    from mnv2tl.data.views import ViewMaker  # noqa: PLC0415

    config, manifest = run.info["config"], run.manifest
    augment = AugmentConfig(**config["augment"])
    maker = ViewMaker(
        root=manifest.root, image_px=config["image_px"], augment=augment, seed=config["seed"]
    )
    train = manifest.of_split("train")
    orders = [
        order_of_epoch(config["seed"], epoch, len(train)).tolist()
        for epoch in range(run.info["epochs"])
    ]
    views = [
        store.sha256_bytes(maker.vary(maker.load(entry), entry, view).tobytes())
        for entry in train
        for view in range(min(config["views"], run.info["epochs"]))
    ]
    return {
        "manifest": manifest.sha256,
        "batches": store.sha256_json(orders),
        "augmented_pixels": store.sha256_json(views),
    }


@click.command(help=record.help_text(__doc__))
@click.argument("run_folder", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--inputs", is_flag=True, help="Hash the training's inputs instead of predicting.")
def main(run_folder: Path, out: Path, inputs: bool) -> None:
    """Write the answer."""
    use_backend(os.environ["KERAS_BACKEND"])
    run = load_run(run_folder)
    if inputs:
        store.write_json(out, hash_inputs(run))
        return
    arrays = predict_twice(run)
    store.write_file(out, lambda file: np.savez(file, allow_pickle=False, **arrays))


if __name__ == "__main__":
    main()
