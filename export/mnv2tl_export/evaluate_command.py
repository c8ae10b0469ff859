"""`mnv2tl evaluate RUN|MODEL.onnx|SAVED_MODEL [DATA]`: accuracy, loss, figures per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mnv2tl.backend import BACKENDS, choose_backend, list_versions, use_backend
from mnv2tl.cli import log_options, print_json, usage_errors
from mnv2tl.data.images import MAX_PIXELS
from mnv2tl.errors import ArtifactError
from mnv2tl_export.defaults import FILES


@click.command()
@click.argument("model", metavar="RUN|MODEL.onnx|SAVED_MODEL", type=click.Path(path_type=Path))
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="val",
    show_default=True,
    help="Which images of the run's manifest, or of the bundle's split.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Keras backend for a run.  [default: KERAS_BACKEND, else jax, else tensorflow]",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    help="Largest image that is decoded, width times height in pixels.  "
    f"[default: that of the training for a run, else {MAX_PIXELS:,}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def evaluate(
    model: Path,
    data: Path | None,
    *,
    split: str,
    backend: str | None,
    max_pixels: int | None,
    as_json: bool,
) -> None:
    """Measure a run folder, or the ONNX file or SavedModel of a bundle, on images.

    Of a run, DATA is needed only if its folder of images moved; of a bundle's model it always is.
    Images are taken only if their SHA-256 is that of the manifest or of the bundle's split.
    """
    from mnv2tl_export.saved_model_file import find_folder

    _refuse_bundle(model)
    if model.suffix == ".onnx":
        summary = _evaluate_onnx(model, data, split, max_pixels or MAX_PIXELS)
    elif find_folder(model) is not None:
        summary = _evaluate_saved_model(model, data, split, max_pixels or MAX_PIXELS)
    else:
        with usage_errors():
            name = choose_backend(backend)
        summary = _evaluate_run(model, name, data=data, split=split, max_pixels=max_pixels)
    if as_json:
        print_json({"split": split, **summary})
    else:
        _show(summary)


def _evaluate_run(folder: Path, backend: str, **options: Any) -> dict[str, Any]:
    from mnv2tl.checkpoint import load_run

    run = load_run(folder)
    use_backend(backend)
    from mnv2tl.evaluate import evaluate_run

    runtime = f"keras {list_versions()['keras']} on {backend}"
    return {"runtime": runtime, **evaluate_run(run, **options).summary()}


def _evaluate_onnx(path: Path, data: Path | None, split: str, max_pixels: int) -> dict[str, Any]:
    folder = _needed(data)
    from mnv2tl_export.classifier import Classifier
    from mnv2tl_export.evaluate import evaluate_model, read_split

    classifier = Classifier(path)
    entries = read_split(path, folder, split)
    summary = evaluate_model(classifier, entries, folder, max_pixels=max_pixels)
    return {"runtime": f"onnxruntime {list_versions()['onnxruntime']}", **summary}


def _evaluate_saved_model(
    path: Path, data: Path | None, split: str, max_pixels: int
) -> dict[str, Any]:
    folder = _needed(data)
    from mnv2tl_export.evaluate import evaluate_model, read_split
    from mnv2tl_export.saved_model import SavedModel

    with SavedModel(path) as model:
        entries = read_split(model.path, folder, split)
        summary = evaluate_model(model, entries, folder, max_pixels=max_pixels)
    versions = list_versions()
    version = versions.get("tensorflow", versions.get("tensorflow-cpu", ""))
    return {"runtime": f"tensorflow {version}", **summary}


def _needed(data: Path | None) -> Path:
    if data is None:
        raise click.UsageError("a model of a bundle needs DATA, the folder of the images")
    return data


def _refuse_bundle(path: Path) -> None:
    if (path / "bundle.json").is_file():
        names = " or ".join(name for name in FILES.values() if (path / name).exists())
        fix = f"evaluate one of its models: {names or 'it has none'}"
        raise ArtifactError("E410", "a bundle, which holds models", path=path, fix=fix)


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
