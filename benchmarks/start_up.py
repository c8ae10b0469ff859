"""What a whole process costs over the least that it could: `mnv2tl --help` and `mnv2tl predict`.

Process start to exit, in turn with

- `python -c pass`, for `mnv2tl --help`;
- a short script that reads a picture with Pillow, resizes it, asks onnxruntime about the same file
  and prints the likeliest class, for `mnv2tl predict MODEL.onnx PICTURE`.

Both name the same class with the same probability. The bars are the differences in ms. The imports
that cost most stand in the result file, from `python -X importtime`.

    python -m benchmarks.start_up MODEL.onnx PICTURE
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.timing import (
    MNV2TL,
    get_ready,
    largest_difference,
    make_bar,
    make_environment,
    run_in_turn,
    run_process,
    show_bar,
    spread,
)

ASKED_MS = {"help": 150.0, "predict": 100.0}
LIMIT = 1e-3
"""Allowed difference of the probability: resizing rounds in between, or not."""

BARE = """
import json, sys
import numpy as np, onnxruntime
from PIL import Image
model, picture = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
names, px = (json.loads(about["mnv2tl." + key]) for key in ("class_names", "image_px"))
image = Image.open(picture).convert("RGB").resize((px, px), Image.Resampling.BILINEAR)
row = session.run(None, {"image": np.asarray(image)[None]})[0][0]
print(json.dumps([names[row.argmax()], float(row.max())]))
"""


def list_imports(report: str, *, count: int = 15) -> list[dict[str, Any]]:
    """Return the modules whose own code took longest to import.

    Args:
        report: What `python -X importtime` writes to stderr.
        count: How many at most.

    >>> list_imports("import time:      1500 |       2000 |   json")
    [{'module': 'json', 'own_ms': 1.5, 'with_others_ms': 2.0}]
    """
    rows = []
    for line in report.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        together, _, module = rest.partition("|")
        if line.startswith("import time:") and own.strip().isdecimal():
            rows.append((int(own), int(together), module.strip()))
    rows.sort(reverse=True)
    return [
        {"module": module, "own_ms": own / 1000, "with_others_ms": together / 1000}
        for own, together, module in rows[:count]
    ]


def profile_imports(python: str, words: Sequence[str]) -> list[dict[str, Any]]:
    """Return the costliest imports of a process."""
    command = [python, "-X", "importtime", *words]
    done = subprocess.run(
        command,
        check=True,
        cwd=record.ROOT,
        env=make_environment(),
        capture_output=True,
        text=True,
    )
    return list_imports(done.stderr)


@click.command(help=record.help_text(__doc__))
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("picture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "speed-start-up.json",
    show_default="benchmarks/results/speed-start-up.json",
    help="JSON file.",
)
@click.option("--python", default=sys.executable, help="Interpreter that has onnxruntime.")
@click.option("--rounds", type=click.IntRange(1), default=40, show_default=True)
def main(model: Path, picture: Path, out: Path, python: str, rounds: int) -> None:
    """Time all four in turn and write the differences."""
    conditions = get_ready(python)
    files = [str(model.resolve()), str(picture.resolve())]
    commands = {
        "pass": ["-c", "pass"],
        "help": [*MNV2TL, "--help"],
        "bare": ["-c", BARE, *files],
        "predict": [*MNV2TL, "predict", *files, "--json"],
    }
    ours = json.loads(run_process([python, *commands["predict"]])[1])
    label, probability = json.loads(run_process([python, *commands["bare"]])[1])
    if label != ours["label"]:
        raise click.ClickException(f"no speed is reported: {ours['label']} against {label}")
    difference = largest_difference(ours["probability"], probability, limit=LIMIT)

    def time_ms(name: str) -> float:
        return 1000 * run_process([python, *commands[name]])[0]

    calls = {name: lambda name=name: time_ms(name) for name in commands}
    taken = run_in_turn(calls, rounds=rounds)
    pairs = {
        "help": ("`mnv2tl --help`", "pass", "`python -c pass`"),
        "predict": ("`mnv2tl predict` of one picture", "bare", "bare onnxruntime script"),
    }
    bars = [
        make_bar(
            what,
            against,
            kind="difference",
            ours=taken[name],
            theirs=taken[other],
            unit="ms",
            asked=ASKED_MS[name],
        )
        for name, (what, other, against) in pairs.items()
    ]
    figures = {
        "rounds": rounds,
        "conditions": conditions,
        "max_abs_diff": difference,
        "limit": LIMIT,
        "milliseconds": {name: spread(each) for name, each in taken.items()},
        "imports": {name: profile_imports(python, words) for name, words in commands.items()},
        "bars": bars,
    }
    record.write(out, figures)
    for bar in bars:
        click.echo(show_bar(bar))


if __name__ == "__main__":
    main()
