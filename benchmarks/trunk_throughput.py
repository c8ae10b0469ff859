"""The frozen layers by our road against the bare runtime, fed the same pixels by the same graph.

These ways, in turn, on pictures that are decoded and resized already:

- bare: OpenVINO or onnxruntime, opened with its own defaults (and float32), called once for each
  picture; of OpenVINO also its mode for throughput, with as many pictures on their way as it likes;
- trunk: `mnv2tl.trunk.Trunk.run_in_threads`, which asks onnxruntime;
- features: `mnv2tl.features.prepare`, which also rounds to float16, checks that all is finite, and
  writes the cache with its hashes.

    python -m benchmarks.trunk_throughput

Leaves OpenVINO out where it is not installed. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.parts import record
from benchmarks.parts.timing import (
    get_ready,
    largest_difference,
    make_bar,
    show_bar,
    spread,
    time_in_turn,
)
from mnv2tl.data.augment import PRESETS
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.views import PLAIN, ViewMaker
from mnv2tl.feature_jobs import Jobs
from mnv2tl.features import FeatureSource, prepare
from mnv2tl.mobilenet import INPUT, cut_at, list_layers
from mnv2tl.onnx_graph import write_trunk
from mnv2tl.progress import set_quiet
from mnv2tl.trunk import Trunk, open_trunk
from mnv2tl.weights import load

BARE = {
    "openvino": "bare openvino, one picture at a time",
    "openvino-throughput": "bare openvino, in its mode for throughput",
    "onnxruntime": "bare onnxruntime, one picture at a time",
}
"""Way of a bare runtime, a package's name or one with more behind it -> what it is called."""
ASKED = 0.9
IMAGE_PX = 224
SCALING = "symmetric"
TRAINED_LAYERS = 4
LIMIT = 1e-5
"""Largest allowed difference of a feature, as a share of the largest one: runtimes add in another
order."""
ROUNDING = 2**-11
"""Relative error of a number that is rounded to float16."""

Pixels = NDArray[np.uint8]
Features = NDArray[np.float32]
Ask = Callable[[Pixels], Features]
"""From all pictures, shape (n, px, px, 3), to their features."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodedPictures(ViewMaker):
    """Gives pixels that lie in memory in place of those of files."""

    pixels: Pixels
    """Shape (n, px, px, 3)."""

    def load(self, entry: Entry) -> Pixels:
        """Return the pixels that an entry names by its number."""
        picture: Pixels = self.pixels[int(entry.path)]
        return picture


def open_bare(way: str, content: bytes) -> Ask:
    """Return a bare runtime with its defaults.

    Args:
        way: A key of `BARE`.
        content: An ONNX file.
    """
    if way == "onnxruntime":
        import onnxruntime  # noqa: PLC0415

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return lambda pixels: np.concatenate(
            [session.run(None, {INPUT: each[None]})[0] for each in pixels]
        )
    # Without this package OpenVINO reports to nobody.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # noqa: PLC0415

    core = openvino.Core()
    model = core.read_model(content)
    model.reshape([1, IMAGE_PX, IMAGE_PX, 3])
    options = {"INFERENCE_PRECISION_HINT": "f32"}  # equal on processors that have bfloat16
    if way == "openvino":
        compiled = core.compile_model(model, "CPU", options)
        return lambda pixels: np.concatenate([compiled(each[None])[0] for each in pixels])
    compiled = core.compile_model(model, "CPU", options | {"PERFORMANCE_HINT": "THROUGHPUT"})
    queue = openvino.AsyncInferQueue(compiled)  # as many requests as the runtime advises

    def ask_many(pixels: Pixels) -> Features:
        made = np.empty((len(pixels), *compiled.output(0).shape[1:]), np.float32)

        def keep(request: Any, number: int) -> None:
            made[number] = request.get_output_tensor().data[0]

        queue.set_callback(keep)
        for number, each in enumerate(pixels):
            queue.start_async({INPUT: each[None]}, number)
        queue.wait_all()
        return made

    return ask_many


def compute_features(trunk: Trunk, pixels: Pixels) -> FeatureSource:
    """Return the features of all pictures, computed anew into a cache that is dropped."""
    maker = DecodedPictures(
        root=Path(), image_px=IMAGE_PX, augment=PRESETS["none"], seed=0, pixels=pixels
    )
    jobs = Jobs(list_entries(len(pixels)), [(PLAIN,)] * len(pixels))
    with tempfile.TemporaryDirectory() as made:
        return prepare(maker, trunk, jobs, cache_root=Path(made), limit_bytes=10**10)


def list_entries(count: int) -> Entries:
    """Return an entry for each of the pictures in memory."""
    size = {"bytes": 1, "width": IMAGE_PX, "height": IMAGE_PX}
    return Entries(
        Entry(path=str(at), label=0, split="train", sha256=f"{at:064x}", **size)
        for at in range(count)
    )


def measure(way: str, pixels: Pixels, *, weights: str, rounds: int) -> dict[str, Any]:
    """Return our figures beside those of a bare runtime.

    Args:
        way: A key of `BARE`.
        pixels: Of all pictures.
        weights: Base weights.
        rounds: Counted rounds.
    """
    layers = list_layers(image_px=IMAGE_PX)
    layers = layers[: cut_at(layers, TRAINED_LAYERS)]
    arrays = load(weights, alpha=1.0, image_px=IMAGE_PX, seed=0).arrays
    trunk = open_trunk(layers, arrays, scaling=SCALING, runtime="onnxruntime", image_px=IMAGE_PX)
    bare = open_bare(way, write_trunk(layers, arrays, scaling=SCALING))
    expected = bare(pixels)
    source = compute_features(trunk, pixels)
    stored = source.read(list_entries(len(pixels)), PLAIN)
    largest = float(np.abs(expected).max())
    limits = {"trunk": LIMIT * largest, "features": (LIMIT + ROUNDING) * largest}
    differences = {
        "trunk": largest_difference(trunk.run_in_threads(pixels), expected, limit=limits["trunk"]),
        "features": largest_difference(stored, expected, limit=limits["features"]),
    }
    calls = {
        "bare": lambda: bare(pixels),
        "trunk": lambda: trunk.run_in_threads(pixels),
        "features": lambda: compute_features(trunk, pixels),
    }
    seconds = time_in_turn(calls, rounds=rounds, count=1)
    rates = {name: (len(pixels) / each[:, 0]).tolist() for name, each in seconds.items()}
    return {
        "images_per_second": {name: spread(each) for name, each in rates.items()},
        "max_abs_diff": differences,
        "limits": limits,
        "bars": [
            make_bar(
                f"{name}, without decoding",
                BARE[way],
                kind="rate",
                ours=rates[key],
                theirs=rates["bare"],
                unit="images/s",
                asked=ASKED,
            )
            for key, name in (("trunk", "frozen layers"), ("features", "features and their cache"))
        ],
    }


@click.command(help=record.help_text(__doc__))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "speed-trunk.json",
    show_default="benchmarks/results/speed-trunk.json",
    help="JSON file.",
)
@click.option("--images", default=128, show_default=True, help="Pictures.")
@click.option("--rounds", type=click.IntRange(2), default=15, show_default=True)
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
def main(out: Path, images: int, rounds: int, weights: str) -> None:
    """Time ours against each installed runtime and write the figures."""
    set_quiet(True)
    conditions = get_ready(sys.executable)
    shape = (images, IMAGE_PX, IMAGE_PX, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = {}
    for way in BARE:
        if importlib.util.find_spec(way.partition("-")[0]) is not None:
            found[way] = measure(way, pixels, weights=weights, rounds=rounds)
    bars = [bar for figures in found.values() for bar in figures.pop("bars")]
    settings = {"images": images, "rounds": rounds, "weights": weights, "conditions": conditions}
    record.write(out, settings | {"runtimes": found, "bars": bars})
    for bar in bars:
        click.echo(show_bar(bar))


if __name__ == "__main__":
    main()
