"""How long do many pictures take from their files to their classes, beside a plain script?

Process start to exit, in turn: `mnv2tl predict MODEL.onnx FOLDER --json`, and a short script that
reads and resizes the same pictures with Pillow, asks onnxruntime as it is by default about 16 at a
time, and prints the likeliest classes. Both name the same classes with the same probabilities.

    python -m benchmarks.predict_folder MODEL.onnx FOLDER

The folder may have as many files as fit on the script's command line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.timing import (
    MNV2TL,
    get_ready,
    largest_difference,
    make_bar,
    run_in_turn,
    run_process,
    show_bar,
    spread,
)
from mnv2tl_export.defaults import BATCH_SIZE
from mnv2tl_export.predict import list_files

LIMIT = 1e-5
"""Allowed difference of a probability: both resize by one rule, width before height."""

BARE = """
import json, sys
import numpy as np, onnxruntime
from PIL import Image
model, batch, *files = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
names, px = (json.loads(about["mnv2tl." + key]) for key in ("class_names", "image_px"))
for start in range(0, len(files), int(batch)):
    pixels = []
    for file in files[start : start + int(batch)]:
        image = Image.open(file).convert("RGB")
        for size in ((px, image.height), (px, px)):
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels.append(np.asarray(image))
    for row in session.run(None, {"image": np.stack(pixels)})[0]:
        print(json.dumps([names[row.argmax()], float(row.max())]))
"""


def compare(ours: str, bare: str) -> float:
    """Return the largest difference of a probability in what both have printed.

    Raises:
        ClickException: They name other classes for a picture.
        UnequalError: A probability differs by more than `LIMIT`.

    >>> compare('{"label": "a", "probability": 0.75}', '["a", 0.75]')
    0.0
    """
    rows: list[dict[str, Any]] = [json.loads(line) for line in ours.splitlines()]
    theirs = [json.loads(line) for line in bare.splitlines()]
    if [row["label"] for row in rows] != [label for label, _ in theirs]:
        raise click.ClickException("no speed is reported: the two name other classes")
    return largest_difference(
        [row["probability"] for row in rows], [each for _, each in theirs], limit=LIMIT
    )


@click.command(help=record.help_text(__doc__))
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "speed-predict-folder.json",
    show_default="benchmarks/results/speed-predict-folder.json",
    help="JSON file.",
)
@click.option("--python", default=sys.executable, help="Interpreter that has onnxruntime.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
def main(model: Path, folder: Path, out: Path, python: str, rounds: int) -> None:
    """Time both in turn and write the ratio."""
    conditions = get_ready(python)
    files = [str(file) for file in list_files([str(folder.resolve())])]
    commands = {
        "bare": ["-c", BARE, str(model.resolve()), str(BATCH_SIZE), *files],
        "predict": [*MNV2TL, "predict", str(model.resolve()), str(folder.resolve()), "--json"],
    }
    printed = {name: run_process([python, *words])[1] for name, words in commands.items()}
    difference = compare(printed["predict"], printed["bare"])

    def time_seconds(name: str) -> float:
        return run_process([python, *commands[name]])[0]

    calls = {name: lambda name=name: time_seconds(name) for name in commands}
    taken = run_in_turn(calls, rounds=rounds)
    bar = make_bar(
        f"`mnv2tl predict` of {len(files)} files",
        f"bare onnxruntime script, {BATCH_SIZE} at a time",
        kind="speed",
        ours=taken["predict"],
        theirs=taken["bare"],
        unit="s",
        asked=None,
    )
    figures = {
        "files": len(files),
        "data": folder.name,
        "rounds": rounds,
        "conditions": conditions,
        "max_abs_diff": difference,
        "limit": LIMIT,
        "seconds": {name: spread(each) for name, each in taken.items()},
        "bars": [bar],
    }
    record.write(out, figures)
    click.echo(show_bar(bar))


if __name__ == "__main__":
    main()
