"""The default recipe against the classic notebook, every picture predicted once for each seed.

Both recipes train on the same folds. In both, the best epoch is chosen on the fold's validation
pictures, which are also those that are counted: accuracies are a little too good, on both sides.
The classic recipe's script is seed_recipe.py, ours is `mnv2tl.train` (our_recipe.py). Intervals
are paired: pictures are resampled, each with the answers of both recipes.

    python -m benchmarks.accuracy DATA --pieces DIR --jax-python P --tensorflow-python P

Each finished training is kept in --pieces, so a stopped run goes on where it was.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.folds import read_data
from benchmarks.parts.our_recipe import count_folds, piece_path
from benchmarks.parts.pooled import Pooled, compare, pool, read_pieces
from benchmarks.parts.settings import SETTINGS, make_config
from mnv2tl.metrics import wilson_interval

ROWS = ("classic/tensorflow", "default/tensorflow", "default/jax", "classic/jax")
"""Recipe and backend. The classic recipe on JAX takes hours, so it is run on demand."""


def run_ours(python: str, data: Path, setting: str, backend: str, options: dict[str, Any]) -> None:
    """Train what is missing by mnv2tl, in one process."""
    arguments = [str(data.resolve()), "--setting", setting, "--backend", backend]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    _run(python, "benchmarks.parts.our_recipe", arguments, backend)


def list_ours(data: Path, setting: str, backend: str, options: dict[str, Any]) -> list[Path]:
    """Return where the pieces of a setting lie."""
    manifest, folds = read_data(data), count_folds(data, options["folds"])
    more = {"epochs": options["epochs"], "weights": options["weights"], "backend": backend}
    return [
        piece_path(
            options["pieces"],
            make_config(SETTINGS[setting], seed=seed, **more),
            manifest,
            fold=fold,
            folds=folds,
            name=setting,
        )
        for seed in range(options["seeds"])
        for fold in range(folds)
    ]


def run_classic(
    python: str, data: Path, backend: str, options: dict[str, Any], *, workers: int
) -> None:
    """Train what is missing by the classic script, a process for each fold and seed."""
    folds = count_folds(data, options["folds"])
    for number, path in enumerate(list_classic(data, backend, options)):
        seed, fold = divmod(number, folds)
        if path.is_file():
            continue
        click.echo(f"{data.name}: classic on {backend}, fold {fold}, seed {seed}", err=True)
        arguments = [str(data.resolve()), "--out", str(path), "--seed", str(seed)]
        arguments += ["--epochs", str(options["epochs"]), "--weights", options["weights"]]
        arguments += ["--workers", str(workers)]
        if folds > 1:
            arguments += ["--folds", str(folds), "--fold", str(fold)]
        _run(python, "benchmarks.parts.seed_recipe", arguments, backend)


def list_classic(data: Path, backend: str, options: dict[str, Any]) -> list[Path]:
    """Return where the pieces of the classic recipe lie."""
    folds = count_folds(data, options["folds"])
    about = f"{data.name}-e{options['epochs']}-{Path(options['weights']).name}"
    return [
        options["pieces"] / f"classic-{backend}-{about}-f{fold}of{folds}-s{seed}.json"
        for seed in range(options["seeds"])
        for fold in range(folds)
    ]


def describe(pooled: Pooled) -> dict[str, Any]:
    """Return the figures of one row."""
    pictures = len(pooled.paths)
    return {
        "accuracy": pooled.accuracy,
        # Seeds answer alike, so they do not count as further pictures.
        "accuracy_interval": wilson_interval(round(pooled.accuracy * pictures), pictures),
        "accuracy_by_seed": pooled.by_seed,
        "error": 1 - pooled.accuracy,
        "log_loss": float(pooled.losses.mean()),
        "pictures": pictures,
    }


def summarise(rows: dict[str, Pooled]) -> dict[str, Any]:
    """Return all rows and the comparison of each with those before it."""
    names = list(rows)
    return {
        "rows": {name: describe(pooled) for name, pooled in rows.items()},
        "comparisons": {
            f"{name} against {other}": compare(rows[name], rows[other])
            for index, name in enumerate(names)
            for other in names[:index]
        },
    }


def _run(python: str, module: str, arguments: list[str], backend: str) -> None:
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, "-m", module, *arguments]
    subprocess.run(command, check=True, cwd=record.ROOT, env=environment)


@click.command(help=record.help_text(__doc__))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pieces", type=click.Path(path_type=Path, resolve_path=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
@click.option("--row", "names", multiple=True, default=ROWS[:3], show_default=True)
@click.option("--jax-python", default=sys.executable, help="Interpreter that has JAX.")
@click.option("--tensorflow-python", default=sys.executable, help="Interpreter that has it.")
@click.option("--folds", default=5, show_default=True, help="Number of folds.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@click.option("--epochs", default=10, show_default=True, help="Epochs of each training.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
@click.option("--workers", default=1, show_default=True, help="Threads of the classic generator.")
def main(
    data: Path,
    out: Path | None,
    names: tuple[str, ...],
    jax_python: str,
    tensorflow_python: str,
    workers: int,
    **options: Any,
) -> None:
    """Run what is missing, then write the figures."""
    rows = {}
    for name in names:
        recipe, _, backend = name.partition("/")
        if backend not in ("jax", "tensorflow") or recipe not in ("classic", *SETTINGS):
            raise click.BadParameter(f"a row is RECIPE/BACKEND, got {name!r}")
        python = jax_python if backend == "jax" else tensorflow_python
        if recipe == "classic":
            run_classic(python, data, backend, options, workers=workers)
            paths = list_classic(data, backend, options)
        else:
            run_ours(python, data, recipe, backend, options)
            paths = list_ours(data, recipe, backend, options)
        rows[name] = pool(read_pieces(paths))
        click.echo(f"{name}: accuracy {rows[name].accuracy:.4f}", err=True)
    figures = {name: value for name, value in options.items() if name != "pieces"}
    figures |= {"data": data.name, **summarise(rows)}
    record.write(out or record.RESULTS / f"accuracy-{data.name}.json", figures)


if __name__ == "__main__":
    main()
