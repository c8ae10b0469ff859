"""Write a run's network as ONNX on one road, in a process of its own; roads.py asks.

    KERAS_BACKEND=jax python -m benchmarks.parts.road_writer RUN --road keras-jax --out MODEL.onnx

The last line on stdout is JSON: the seconds that the writing itself took.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.parts import record
from mnv2tl import store
from mnv2tl.backend import use_backend
from mnv2tl.checkpoint import Run, load_run

Write = Callable[[Path], None]


def prepare_ours(run: Run, *, via: str) -> Write:
    """Return what writes our file, without metadata, from arrays that are read already."""
    from mnv2tl_export import onnx_model, tf2onnx_model  # noqa: PLC0415

    writer = onnx_model if via == "native" else tf2onnx_model
    arrays = run.read_arrays()
    network = {key: run.info["config"][key] for key in ("alpha", "image_px", "scaling")}

    def write(path: Path) -> None:
        content: bytes = writer.write_model(
            arrays, **network, temperature=run.info["temperature"], metadata={}
        )
        store.write_bytes(path, content)

    return write


def prepare_keras(run: Run, *, backend: str) -> Write:
    """Return what lets Keras write its own file: float pixels (n, px, px, 3) to logits."""
    use_backend(backend)
    from mnv2tl.keras_model import build_model, set_arrays  # noqa: PLC0415
    from mnv2tl.mobilenet import list_layers  # noqa: PLC0415

    config = run.info["config"]
    shape = (config["image_px"], config["image_px"], 3)
    model = build_model(
        list_layers(alpha=config["alpha"], image_px=config["image_px"]),
        classes=len(run.class_names),
        input_shape=shape,
        scaling=config["scaling"],
        activation=None,
    )
    set_arrays(model, run.read_arrays())
    model(np.zeros((1, *shape), np.float32))  # Keras exports only what was called once

    def write(path: Path) -> None:
        model.export(path, format="onnx", verbose=False)

    return write


ROADS: dict[str, tuple[Callable[..., Write], dict[str, Any]]] = {
    "native": (prepare_ours, {"via": "native"}),
    "tf2onnx": (prepare_ours, {"via": "tf2onnx"}),
    "keras-tensorflow": (prepare_keras, {"backend": "tensorflow"}),
    "keras-jax": (prepare_keras, {"backend": "jax"}),
}
"""Name -> what prepares it, and with what."""


@click.command(help=record.help_text(__doc__))
@click.argument("run_folder", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.option("--road", type=click.Choice(list(ROADS)), required=True, help="Which one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write.")
def main(run_folder: Path, road: str, out: Path) -> None:
    """Write the file."""
    prepare, options = ROADS[road]
    write = prepare(load_run(run_folder), **options)
    start = time.perf_counter()
    write(out)
    seconds = time.perf_counter() - start
    click.echo(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
