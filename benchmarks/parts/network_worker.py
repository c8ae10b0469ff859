"""One backend's part of whole_network.py: builds networks, then answers or trains when asked."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.parts.worker import serve
from mnv2tl.backend import list_versions, use_backend
from mnv2tl.keras_model import build_model, freeze, set_arrays
from mnv2tl.mobilenet import DENSE, list_layers
from mnv2tl.store import write_file

Arrays = dict[str, NDArray[Any]]

_MOMENTUM_DECAY = 0.9


def build_stock(image_px: int, classes: int) -> keras.Model:
    """Return Keras' own MobileNetV2 with a new Dense layer, as its guides build it."""
    base = keras.applications.MobileNetV2(
        input_shape=(image_px, image_px, 3), include_top=False, pooling="avg", weights=None
    )
    outputs = keras.layers.Dense(classes, activation="softmax", name=DENSE)(base.output)
    return keras.Model(base.input, outputs)


def build_ours(image_px: int, classes: int) -> keras.Model:
    """Return the whole network as a training of all layers has it."""
    layers = list_layers(image_px=image_px)
    model = build_model(layers, classes=classes, input_shape=(image_px, image_px, 3), to_save=False)
    freeze(model, [layer.name for layer in layers], batch_norm="train")
    return model


def compile_model(model: keras.Model) -> None:
    """Compile a model with the classic recipe's optimiser and loss."""
    model.compile(
        keras.optimizers.Adam(1e-3, beta_1=_MOMENTUM_DECAY), loss="categorical_crossentropy"
    )


class Networks:
    """The networks of this process, by name."""

    def __init__(self) -> None:
        self.models: dict[str, keras.Model] = {}
        self.inputs: dict[str, NDArray[Any]] = {}
        self.arrays: Arrays = {}

    def answer(self, do: str, **values: Any) -> dict[str, Any]:
        """Do what is asked."""
        found: dict[str, Any] = getattr(self, do)(**values)
        return found

    def open(self, network: str, weights: str, image_px: int, classes: int) -> dict[str, Any]:
        """Build a network and fill it with the arrays of a file.

        Ours gets the settings of the process that every command of mnv2tl makes. They hold for
        the whole process, so a stock network that is timed needs another one.
        """
        if network == "ours":
            use_backend(keras.backend.backend())
        with np.load(weights) as arrays:
            self.arrays = dict(arrays)
        build = {"ours": build_ours, "stock": build_stock}[network]
        model = build(image_px, classes)
        compile_model(model)
        model.optimizer.build(model.trainable_variables)
        set_arrays(model, self.arrays)
        self.models[network] = model
        return {}

    def describe(self) -> dict[str, Any]:
        """Return what is installed here."""
        return list_versions()

    def take(self, inputs: str) -> dict[str, Any]:
        """Read the images and one-hot labels that the next calls get."""
        with np.load(inputs) as arrays:
            self.inputs = dict(arrays)
        return {}

    def forward(self, network: str, out: str | None = None, count: int = 1) -> dict[str, Any]:
        """Predict, several times; return the seconds of one, on the wall and of all cores.

        With `out` it is from the first weights, and leaves the probabilities there.
        """
        model, images = self.models[network], self.inputs["images"]
        if out is not None:
            self._start_over(model)
        wall, cores = time.perf_counter(), time.process_time()
        for _ in range(count):
            probabilities = model.predict_on_batch(images)
        wall, cores = time.perf_counter() - wall, time.process_time() - cores
        if out is not None:
            _save(out, {"probabilities": np.asarray(probabilities)})
        return {"wall": wall / count, "cores": cores / count}

    def train(self, network: str, out: str | None = None) -> dict[str, Any]:
        """Train one step; return its seconds and loss.

        With `out` it starts from the first weights, and leaves the gradients there: after its
        first step, Adam's mean is a tenth of them.
        """
        model = self.models[network]
        if out is not None:
            self._start_over(model)
        wall, cores = time.perf_counter(), time.process_time()
        loss = float(model.train_on_batch(self.inputs["images"], self.inputs["labels"]))
        wall, cores = time.perf_counter() - wall, time.process_time() - cores
        if out is not None:
            _save(out, _gradients(model))
        return {"wall": wall, "cores": cores, "loss": loss}

    def _start_over(self, model: keras.Model) -> None:
        set_arrays(model, self.arrays)
        for variable in model.optimizer.variables:
            if variable.name != "learning_rate":
                variable.assign(np.zeros(variable.shape, variable.dtype))


def _gradients(model: keras.Model) -> Arrays:
    means = [each for each in model.optimizer.variables if each.name.endswith("_momentum")]
    names = {
        id(weight): f"{layer.name}/{weight.name}"
        for layer in model.layers
        for weight in layer.weights
    }
    return {
        names[id(weight)]: np.asarray(keras.ops.convert_to_numpy(mean)) / (1 - _MOMENTUM_DECAY)
        for weight, mean in zip(model.trainable_variables, means, strict=True)
    }


def _save(path: str, arrays: Arrays) -> None:
    write_file(Path(path), lambda file: np.savez(file, allow_pickle=False, **arrays), durable=False)


if __name__ == "__main__":
    if os.environ["KERAS_BACKEND"] != keras.backend.backend():
        raise SystemExit("Keras has another backend")
    serve(Networks().answer)
