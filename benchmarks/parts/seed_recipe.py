"""The classic MobileNetV2 notebook as a script: the yardstick of accuracy and of time.

Keras' legacy ImageDataGenerator (x/255, rotation 20 degrees, shift 0.1, zoom 0.1, horizontal
flip; pictures are resized by nearest neighbour, its default), MobileNetV2 without top, all but its
last four layers frozen (Conv_1_bn among them trains), a new Dense layer, Adam 1e-3, categorical
cross-entropy, ten epochs of batches of 16, the epoch of the best validation accuracy kept by
ModelCheckpoint.

One thing is unlike the notebook, in its favour: validation pictures are not augmented. Base
weights come from the cache of mnv2tl, since the notebook's own download needs the network.

    KERAS_BACKEND=tensorflow python -m benchmarks.parts.seed_recipe DATA --fold 0 --out RESULT.json

It needs SciPy beside Keras.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.pooled import list_predictions

START = time.perf_counter()

AUGMENTATION = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.1,
    "horizontal_flip": True,
}
BATCH_SIZE = 16
IMAGE_PX = 224
TRAINED_LAYERS = 4


def build_classifier(classes: int, weights: str) -> Any:
    """Return the compiled Keras model of the notebook.

    Args:
        classes: Number of outputs.
        weights: Base weights, a name that `mnv2tl.weights.load` knows.
    """
    import keras  # noqa: PLC0415  --help must not wait for it

    from mnv2tl.weights import load  # noqa: PLC0415

    base = keras.applications.MobileNetV2(
        input_shape=(IMAGE_PX, IMAGE_PX, 3), include_top=False, pooling="avg", weights=None
    )
    arrays = load(weights).arrays
    for layer in base.layers:
        layer.set_weights([arrays[f"{layer.name}/{weight.name}"] for weight in layer.weights])
    for layer in base.layers[:-TRAINED_LAYERS]:
        layer.trainable = False
    outputs = keras.layers.Dense(classes, activation="softmax")(base.output)
    model = keras.Model(base.input, outputs)
    model.compile(
        keras.optimizers.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def open_generators(folder: Path, *, seed: int, workers: int) -> tuple[Any, Any]:
    """Return the generators of training and validation batches.

    Args:
        folder: Holds train/ and val/, one sub-folder per class in each.
        seed: Of order and augmentation.
        workers: Threads that read and augment; the notebook has one.
    """
    from keras.src.legacy.preprocessing.image import ImageDataGenerator  # noqa: PLC0415

    size = (IMAGE_PX, IMAGE_PX)
    train = ImageDataGenerator(rescale=1 / 255, **AUGMENTATION).flow_from_directory(
        folder / "train", target_size=size, batch_size=BATCH_SIZE, seed=seed
    )
    val = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        folder / "val", target_size=size, batch_size=BATCH_SIZE, shuffle=False
    )
    train.workers = val.workers = workers
    return train, val


def run_recipe(
    folder: Path, *, weights: str, seed: int, epochs: int, workers: int = 1, predict: bool = True
) -> dict[str, Any]:
    """Train on a split folder; return history and the best epoch's prediction of each picture.

    Args:
        folder: Holds train/ and val/.
        weights: Base weights.
        seed: Of first weights, order and augmentation.
        epochs: Passes over the training images.
        workers: Threads that read and augment.
        predict: False stops after the training, as timings want it.
    """
    import keras  # noqa: PLC0415

    keras.utils.set_random_seed(seed)
    train, val = open_generators(folder, seed=seed, workers=workers)
    model = build_classifier(train.num_classes, weights)
    with tempfile.TemporaryDirectory() as made:
        best = Path(made) / "best.keras"
        keep = keras.callbacks.ModelCheckpoint(best, monitor="val_accuracy", save_best_only=True)
        history = model.fit(
            train, validation_data=val, epochs=epochs, callbacks=[keep], verbose=0
        ).history
        fitted = time.perf_counter() - START
        if predict:
            model.load_weights(best)
    predictions = []
    if predict:
        probabilities = model.predict(val, verbose=0)
        predictions = list_predictions(val.filenames, val.classes, probabilities)
    return {
        "backend": keras.backend.backend(),
        "history": {name: [float(v) for v in values] for name, values in history.items()},
        "predictions": predictions,
        "seconds": {"until_fitted": fitted, "total": time.perf_counter() - START},
    }


@click.command(help=record.help_text(__doc__))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file.")
@click.option(
    "--fold", type=int, help="Validate on this fold; not for a DATA with train/ and val/."
)
@click.option("--folds", default=5, show_default=True, help="Number of folds.")
@click.option("--seed", default=0, show_default=True, help="Of weights, order, augmentation.")
@click.option("--epochs", default=10, show_default=True, help="Passes over the training images.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
@click.option("--workers", default=1, show_default=True, help="Threads that read pictures.")
@click.option("--predict/--no-predict", default=True, help="Answer the validation pictures.")
def main(
    data: Path,
    out: Path,
    fold: int | None,
    folds: int,
    seed: int,
    epochs: int,
    weights: str,
    workers: int,
    predict: bool,
) -> None:
    """Run the recipe on one split."""
    from benchmarks.parts.folds import has_own_split, read_data, write_fold  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as made:
        folder = data
        if not has_own_split(data):
            if fold is None:
                raise click.UsageError("DATA has no train/ and val/, so give --fold")
            folder = Path(made)
            write_fold(read_data(data), folder, fold=fold, folds=folds)
        result = run_recipe(
            folder, weights=weights, seed=seed, epochs=epochs, workers=workers, predict=predict
        )
    settings = {"data": data.name, "fold": fold, "folds": folds, "seed": seed, "epochs": epochs}
    record.write(out, {"recipe": "classic", **settings, "weights": weights, **result})


if __name__ == "__main__":
    main()
