"""One process of first_step.py: builds in one way, says when it is ready, and may predict.

`python -m benchmarks.parts.first_step_worker WAY WEIGHTS [OUT]`; OUT is where probabilities go.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASSES = 10
IMAGE_PX = 224
SCALING = "symmetric"

Built = tuple[Any, Callable[[Any], Any]]
"""The model that trains, and a function from uint8 pixels to probabilities."""


def build_default(weights: str) -> Built:
    """Build what a training with the default recipe has before its first step."""
    from mnv2tl.backend import use_backend  # noqa: PLC0415

    use_backend("jax")
    # All that a training imports until then.
    import mnv2tl.finish  # noqa: PLC0415
    import mnv2tl.train  # noqa: F401, PLC0415
    from mnv2tl.config import TrainConfig  # noqa: PLC0415
    from mnv2tl.fit import build_head  # noqa: PLC0415
    from mnv2tl.keras_model import set_arrays  # noqa: PLC0415
    from mnv2tl.metrics import softmax  # noqa: PLC0415
    from mnv2tl.mobilenet import cut_at, list_layers  # noqa: PLC0415
    from mnv2tl.phase import list_phases  # noqa: PLC0415
    from mnv2tl.trunk import choose_runtime, open_trunk  # noqa: PLC0415

    config = TrainConfig(data=Path(), out=Path(), weights=weights)
    layers, phase = list_layers(image_px=IMAGE_PX), list_phases(config)[0]
    arrays = _load(weights) | make_dense()
    trunk = open_trunk(
        layers[: cut_at(layers, phase.trainable_layers)],
        arrays,
        scaling=SCALING,
        runtime=choose_runtime(),
        image_px=IMAGE_PX,
    )
    head = build_head(layers, phase, config, classes=CLASSES, shape=trunk.output_shape)
    _compile(head)
    set_arrays(head, arrays)
    return head, lambda pixels: softmax(head.predict_on_batch(trunk.run(pixels)))


def build_whole(weights: str) -> Built:
    """Build the whole network by mnv2tl."""
    from mnv2tl.backend import use_backend  # noqa: PLC0415

    use_backend("jax")
    from mnv2tl.keras_model import build_model, set_arrays  # noqa: PLC0415
    from mnv2tl.mobilenet import list_layers  # noqa: PLC0415

    model = build_model(
        list_layers(image_px=IMAGE_PX),
        classes=CLASSES,
        input_shape=(IMAGE_PX, IMAGE_PX, 3),
        scaling=SCALING,
        to_save=False,
    )
    _compile(model)
    set_arrays(model, _load(weights) | make_dense())
    return model, model.predict_on_batch


def build_stock(weights: str) -> Built:
    """Build what the classic notebook builds."""
    from benchmarks.parts.seed_recipe import build_classifier  # noqa: PLC0415

    model = build_classifier(CLASSES, weights)
    model.optimizer.build(model.trainable_variables)

    def predict(pixels: Any) -> Any:
        kernel, bias = make_dense().values()
        model.layers[-1].set_weights([kernel, bias])
        return model.predict_on_batch(pixels / 127.5 - 1)

    return model, predict


WAYS = {"default": build_default, "whole": build_whole, "stock": build_stock}


def make_dense() -> dict[str, Any]:
    """Return arrays of the Dense layer that all ways predict with."""
    import numpy as np  # noqa: PLC0415  imports are timed

    kernel = np.random.default_rng(0).normal(0, 0.03, (1280, CLASSES)).astype(np.float32)
    return {"predictions/kernel": kernel, "predictions/bias": np.zeros(CLASSES, np.float32)}


def _load(weights: str) -> dict[str, Any]:
    from mnv2tl.weights import load  # noqa: PLC0415

    return dict(load(weights, alpha=1.0, image_px=IMAGE_PX, seed=0).arrays)


def _compile(model: Any) -> None:
    import keras  # noqa: PLC0415

    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)


def main(way: str, weights: str, out: str | None = None) -> None:
    """Build, print when that was done, and predict if asked."""
    model, predict = WAYS[way](weights)
    ready = time.monotonic()
    if not model.optimizer.built:
        raise RuntimeError("a step would have to build its optimiser first")
    if out is not None:
        import numpy as np  # noqa: PLC0415

        pixels = np.random.default_rng(0).integers(0, 256, (16, IMAGE_PX, IMAGE_PX, 3), np.uint8)
        np.save(out, np.asarray(predict(pixels.astype(np.uint8))), allow_pickle=False)
    print(json.dumps({"ready": ready, "tensorflow": "tensorflow" in sys.modules}))


if __name__ == "__main__":
    main(*sys.argv[1:])
