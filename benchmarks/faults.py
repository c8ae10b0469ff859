"""What survives a kill, a full disk, a failing disk and damaged files: points tried, points broken.

- writers: each writer of the project, at each of its system calls that change files: the process is
  killed there, or after half a write; the disk is full from there on; the call fails once. Then the
  work is done again in the same folder, and what is there is compared with a run without a fault.
- plain_keras: the same for what Keras offers: `Model.save`, `BackupAndRestore`.
- training: the same for some calls of a whole training on JAX.
- kills: whole trainings on JAX, killed at random moments and resumed, bit for bit.
- damage: flipped bits and lost ends of every kind of file.

Needs Linux and a C compiler, but for the last two. Parts that are not asked for stay in the result
file as they are.

    python -m benchmarks.faults --part writers --part plain_keras

The exit status is 1 if a point of the project is broken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.fault_points import shim
from benchmarks.fault_points.__main__ import PARTS
from benchmarks.parts import record
from mnv2tl.errors import Mnv2tlError

_NEED_SHIM = ("writers", "plain_keras", "training")


@click.command(help=record.help_text(__doc__))
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(list(PARTS)), help="One of them; else all."
)
@click.option("--points", default=25, show_default=True, help="Per fault, of a whole training.")
@click.option("--runs", default=200, show_default=True, help="Trainings that are killed.")
@click.option("--trials", default=1000, show_default=True, help="Flipped bits of each file.")
@click.option("--seed", default=0, show_default=True, help="Draws moments and bits.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "faults.json",
    show_default="benchmarks/results/faults.json",
    help="JSON file.",
)
def main(parts: tuple[str, ...], points: int, runs: int, trials: int, seed: int, out: Path) -> None:
    """Run the parts, each in a process of its own, and write what they found."""
    options: dict[str, dict[str, Any]] = {
        "writers": {},
        "plain_keras": {},
        "training": {"points": points},
        "kills": {"runs": runs, "seed": seed},
        "damage": {"trials": trials, "seed": seed},
    }
    figures = json.loads(out.read_bytes()) if out.exists() else {}
    for part in parts or PARTS:
        click.echo(f"part: {part}", err=True)
        figures[part] = run_part(part, **options[part])
    figures["summary"] = summarize(figures)
    click.echo(json.dumps(figures["summary"], indent=1))
    known = {key: figures[key] for key in (*PARTS, "summary") if key in figures}
    record.write(out, known)
    if figures["summary"]["broken"]:
        sys.exit(1)


def run_part(part: str, **options: Any) -> dict[str, Any]:
    """Run one part in a process of its own, with the shim where it needs one.

    Raises:
        ClickException: The shim cannot be made here, or the part failed.
    """
    with tempfile.TemporaryDirectory() as made:
        library = shim.build(Path(made)) if part in _NEED_SHIM else None
        if part in _NEED_SHIM and library is None:
            raise click.ClickException(f"the part {part} needs Linux and a C compiler")
        out = Path(made) / "found.json"
        command = ["-m", "benchmarks.fault_points", part, str(out), json.dumps(options)]
        environment = _environment(part, Path(made), library)
        status = subprocess.run(
            [sys.executable, *command], cwd=record.ROOT, env=environment, check=False
        ).returncode
        if status:
            raise click.ClickException(f"the part {part} ended with {status}")
        found: dict[str, Any] = json.loads(out.read_bytes())
    return found


def _environment(part: str, folder: Path, library: Path | None) -> dict[str, str]:
    is_whole = part in ("training", "kills", "damage")
    places = (str(record.ROOT), str(record.ROOT / "export"), os.environ.get("PYTHONPATH", ""))
    environment = os.environ | {
        "KERAS_BACKEND": "jax" if is_whole else "numpy",
        "OPENBLAS_NUM_THREADS": "1",  # a process with threads must not fork
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "MPLBACKEND": "agg",
    }
    if library is not None:
        environment["LD_PRELOAD"] = str(library)
    return environment


def summarize(figures: dict[str, Any]) -> dict[str, Any]:
    """Return all points of the project and of plain Keras, and how many are broken."""
    tables = [*figures.get("writers", {}).values(), *filter(None, [figures.get("training")])]
    plain = figures.get("plain_keras", {}).values()
    harmed = [each[way] for each in figures.get("damage", {}).values() for way in _WAYS]
    kills = figures.get("kills", {"killed": 0, "equal": 0})
    summary = {
        "points": sum(each["all_points"] for each in tables),
        "broken_points": sum(sum(each["broken"].values()) for each in tables),
        "plain_keras_points": sum(each["all_points"] for each in plain),
        "plain_keras_broken_points": sum(sum(each["broken"].values()) for each in plain),
        "kills": kills["killed"],
        "kills_equal": kills["equal"],
        "damaged": sum(sum(each.values()) for each in harmed),
        "damaged_silent_or_bug": sum(each["silent"] + each["bug"] for each in harmed),
    }
    summary["broken"] = (
        summary["broken_points"]
        + summary["damaged_silent_or_bug"]
        + summary["kills"]
        - summary["kills_equal"]
    )
    return summary


_WAYS = ("flips", "truncations")


if __name__ == "__main__":
    try:
        main()
    except Mnv2tlError as failed:
        sys.exit(failed.line())
