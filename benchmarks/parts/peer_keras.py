"""A plain Keras script with a frozen base, as Keras' own guide to transfer learning has it.

Pictures are read by `image_dataset_from_directory` and kept in memory after the first epoch;
flips and rotations are drawn anew in each epoch; the base runs in inference mode; global average,
dropout, one Dense layer, Adam 1e-3. It prints each epoch's validation accuracy.

    KERAS_BACKEND=tensorflow python -m benchmarks.parts.peer_keras FOLDER --arrays WEIGHTS.npz
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.parts import record

IMAGE_PX = 224
BATCH_SIZE = 16
DROPOUT = 0.2
LEARNING_RATE = 1e-3
ROTATION = 0.1  # of a full turn, both ways


def build_base(arrays: Path) -> Any:
    """Return Keras' MobileNetV2 without its top, with base weights from an array file."""
    import keras  # noqa: PLC0415  --help must not wait for it

    base = keras.applications.MobileNetV2(
        input_shape=(IMAGE_PX, IMAGE_PX, 3), include_top=False, weights=None
    )
    with np.load(arrays) as stored:
        for layer in base.layers:
            layer.set_weights([stored[f"{layer.name}/{each.name}"] for each in layer.weights])
    base.trainable = False
    return base


def train(folder: Path, arrays: Path, *, seed: int, epochs: int) -> None:
    """Train the head and print a line of JSON after each epoch."""
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    keras.utils.set_random_seed(seed)
    settings: dict[str, Any] = {
        "image_size": (IMAGE_PX, IMAGE_PX),
        "batch_size": None,
        "verbose": False,
    }
    read = keras.utils.image_dataset_from_directory
    train_set = read(folder / "train", shuffle=False, **settings)
    val_set = read(folder / "val", shuffle=False, **settings)
    classes = len(train_set.class_names)
    vary = keras.Sequential(
        [keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(ROTATION)]
    )
    train_set = train_set.cache().shuffle(10_000, seed=seed).batch(BATCH_SIZE)
    train_set = train_set.map(
        lambda pixels, label: (vary(pixels, training=True), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)
    val_set = val_set.batch(BATCH_SIZE).cache().prefetch(tf.data.AUTOTUNE)

    inputs = keras.Input((IMAGE_PX, IMAGE_PX, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = build_base(arrays)(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(classes)(keras.layers.Dropout(DROPOUT)(x))
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def tell(epoch: int, logs: dict[str, float]) -> None:
        line = {"epoch": epoch, "val_accuracy": float(logs["val_accuracy"])}
        click.echo(json.dumps(line))

    told = keras.callbacks.LambdaCallback(on_epoch_end=tell)
    model.fit(train_set, validation_data=val_set, epochs=epochs, callbacks=[told], verbose=0)


@click.command(help=record.help_text(__doc__))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--arrays", type=click.Path(path_type=Path), required=True, help="Base weights.")
@click.option("--seed", default=0, show_default=True, help="Of weights, order, augmentation.")
@click.option("--epochs", default=10, show_default=True, help="Passes over the training images.")
@click.option("--features", type=click.Path(path_type=Path), help="Write those of PIXELS instead.")
@click.option("--pixels", type=click.Path(path_type=Path), help="Array file of scaled pixels.")
def main(
    folder: Path, arrays: Path, seed: int, epochs: int, features: Path | None, pixels: Path | None
) -> None:
    """Train, or compute features to compare scripts by."""
    if features is not None and pixels is not None:
        np.save(features, np.asarray(build_base(arrays)(np.load(pixels), training=False)))
        return
    train(folder, arrays, seed=seed, epochs=epochs)


if __name__ == "__main__":
    main()
