"""Whole processes, start to exit: `mnv2tl train` against the classic notebook as a script.

Both train on the same split folder with the same Keras backend, in turn, each several times;
mnv2tl starts from an empty feature cache every time. The classic script stops after its last
epoch; mnv2tl also assembles, writes and evaluates its checkpoint. Everything is compiled to
bytecode first, and Python may write bytecode. The floor of a training on this machine is the time
that all its cores computed, over their number: about the least that the same work takes.

    python -m benchmarks.end_to_end DATA --backend tensorflow --repeats 5

Run it on a machine that does nothing else.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.folds import has_own_split, read_data, write_fold
from benchmarks.parts.timing import MNV2TL, NAMES, get_ready, make_bar, run_process
from mnv2tl.backend import BACKENDS
from mnv2tl.cache_folder import cache_folder
from mnv2tl.parallel import count_workers

ASKED = {"jax": 20.0, "tensorflow": 5.0}
"""Backend -> how many times as fast as the classic script a training shall be."""


def time_classic(
    python: str, folder: Path, backend: str, *, epochs: int, weights: str
) -> dict[str, Any]:
    """Run the classic script; return its seconds and its best validation accuracy."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "result.json"
        arguments = ["-m", "benchmarks.parts.seed_recipe", str(folder), "--out", str(out)]
        arguments += ["--epochs", str(epochs), "--weights", weights, "--no-predict"]
        found, _ = _run(python, arguments, backend, cache_folder("weights").parent)
        history = json.loads(out.read_bytes())["history"]
    return {**found, "val_accuracy": max(history["val_accuracy"])}


def time_ours(
    python: str, folder: Path, backend: str, *, epochs: int, weights: str
) -> dict[str, Any]:
    """Run `mnv2tl train` with an empty feature cache; return its seconds and accuracy."""
    with tempfile.TemporaryDirectory() as made:
        cache = Path(made) / "cache"
        shutil.copytree(cache_folder("weights"), cache / "weights")
        arguments = [*MNV2TL, "train", str(folder), "--out", str(Path(made) / "run")]
        arguments += ["--epochs", str(epochs), "--weights", weights, "--backend", backend]
        found, output = _run(python, [*arguments, "--json", "--quiet"], backend, cache)
    summary = json.loads(output.splitlines()[-1])
    inside = {name: summary["seconds"][name] for name in ("scan", "features", "fit", "total")}
    return {**found, "val_accuracy": summary["val_accuracy"], "inside": inside}


def ask_versions(python: str) -> dict[str, str]:
    """Return the versions of what an interpreter has; it need not be this one."""
    code = "import json; from mnv2tl.backend import list_versions as v; print(json.dumps(v()))"
    versions: dict[str, str] = json.loads(run_process([python, "-c", code])[1])
    return versions


def _run(
    python: str, arguments: list[str], backend: str, cache: Path
) -> tuple[dict[str, float], str]:
    """Return the seconds of a process, on the wall and of all cores, and what it printed."""
    before = _ask_cores()
    seconds, output = run_process(
        [python, *arguments], KERAS_BACKEND=backend, MNV2TL_CACHE=str(cache)
    )
    return {"seconds": seconds, "core_seconds": _ask_cores() - before}, output


def _ask_cores() -> float:
    """Return the seconds that all ended processes below this one have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@click.command(help=record.help_text(__doc__))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    show_default="benchmarks/results/end-to-end-BACKEND.json",
    help="JSON file.",
)
@click.option("--backend", type=click.Choice(BACKENDS), default="tensorflow", show_default=True)
@click.option("--python", default=sys.executable, help="Interpreter that has the backend.")
@click.option("--repeats", default=5, show_default=True, help="Runs of each.")
@click.option("--epochs", default=10, show_default=True, help="Epochs of each training.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
@click.option("--folds", default=5, show_default=True, help="Fold 0 of this many is validated on.")
def main(
    data: Path,
    out: Path | None,
    backend: str,
    python: str,
    repeats: int,
    epochs: int,
    weights: str,
    folds: int,
) -> None:
    """Time both in turn and write the medians."""
    conditions = get_ready(python)
    results: dict[str, list[dict[str, Any]]] = {"classic": [], "mnv2tl": []}
    with tempfile.TemporaryDirectory() as made:
        folder = data.resolve()
        if not has_own_split(data):
            folder = Path(made)
            write_fold(read_data(data), folder, fold=0, folds=folds)
        for number in range(repeats):
            for name, run in (("classic", time_classic), ("mnv2tl", time_ours)):
                results[name].append(run(python, folder, backend, epochs=epochs, weights=weights))
                seconds = results[name][-1]["seconds"]
                click.echo(f"{number + 1}/{repeats} {name}: {seconds:.1f} s", err=True)
    medians = {n: statistics.median(run["seconds"] for run in runs) for n, runs in results.items()}
    figures = {
        "data": data.name,
        "backend": backend,
        "repeats": repeats,
        "epochs": epochs,
        "weights": weights,
        "conditions": conditions,
        "versions": ask_versions(python),
        "median_seconds": medians,
        "floor_seconds": statistics.median(run["core_seconds"] for run in results["mnv2tl"])
        / count_workers(),
        "ratio": medians["classic"] / medians["mnv2tl"],
        "runs": results,
        "bars": [
            make_bar(
                f"`mnv2tl train` on {NAMES[backend]}, empty cache",
                "the classic script",
                kind="speed",
                ours=[run["seconds"] for run in results["mnv2tl"]],
                theirs=[run["seconds"] for run in results["classic"]],
                unit="s",
                asked=ASKED[backend],
            )
        ],
    }
    record.write(out or record.RESULTS / f"end-to-end-{backend}.json", figures)
    click.echo(f"classic / mnv2tl: {figures['ratio']:.2f}")


if __name__ == "__main__":
    main()
