"""`mnv2tl evaluate RUN [DATA]`: accuracy with its interval, loss, and figures per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mnv2tl.backend import BACKENDS, choose_backend, list_versions, use_backend
from mnv2tl.cli import print_json, usage_errors
from mnv2tl.progress import set_quiet


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="val",
    show_default=True,
    help="Which images of the run's manifest.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Keras backend.  [default: KERAS_BACKEND, else jax if installed, else tensorflow]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def evaluate(
    run_folder: Path, data: Path | None, split: str, backend: str | None, **flags: bool
) -> None:
    """Measure RUN, a run folder, on images of its manifest; DATA if their folder moved.

    Images are taken only if their SHA-256 is that of the manifest.
    """
    set_quiet(flags["quiet"])
    with usage_errors():
        name = choose_backend(backend)
    from mnv2tl.checkpoint import load_run

    run = load_run(run_folder)
    use_backend(name)
    from mnv2tl.evaluate import evaluate_run

    summary = evaluate_run(run, data=data, split=split).summary()
    if flags["as_json"]:
        runtime = f"keras {list_versions()['keras']} on {name}"
        print_json({"runtime": runtime, "split": split, **summary})
    else:
        _show(summary)


def _show(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("class")
    for heading in ("precision", "recall", "F1", "images"):
        table.add_column(heading, justify="right")
    for row in summary["per_class"]:
        figures = (
            "-" if row[n] is None else f"{row[n]:.3f}" for n in ("precision", "recall", "f1")
        )
        name = ascii(row["class_name"])[1:-1] if not row["class_name"].isprintable() else None
        table.add_row(Text(name or row["class_name"]), *figures, str(row["support"]))
    Console(highlight=False, markup=False, soft_wrap=True).print(table)
    low, high = summary["accuracy_interval"]
    click.echo(
        f"accuracy {summary['accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f}), "
        f"loss {summary['loss']:.4f}, {summary['images']} images"
    )
