"""The commands of this package: `mnv2tl export`, `mnv2tl predict` and `mnv2tl selftest`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import click

from mnv2tl.backend import BACKENDS, choose_backend, use_backend
from mnv2tl.cli import log_options, print_json, usage_errors
from mnv2tl.data.images import MAX_PIXELS
from mnv2tl.memory import explain_shortage
from mnv2tl.progress import is_json, is_quiet, say, tell_error, track
from mnv2tl_export.defaults import (
    ACCURACY_BUDGET,
    BATCH_SIZE,
    FORMATS,
    PROVIDERS,
    ROADS,
    TOP,
)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the images, if it moved.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="What to write; may be given several times.  "
    "[default: onnx, and savedmodel where TensorFlow is installed]",
)
@click.option(
    "--via",
    type=click.Choice(ROADS),
    default=ROADS[0],
    show_default=True,
    help="What writes the graph of ONNX files: mnv2tl itself, or TensorFlow and tf2onnx.",
)
@click.option(
    "--accuracy-budget",
    type=click.FloatRange(0.0, 100.0),
    default=100 * ACCURACY_BUDGET,
    show_default=True,
    help="Validation accuracy that fp16 and int8 may lose, in points of 100.",
)
@click.option(
    "--no-temperature",
    is_flag=True,
    help="Leave the fitted temperature out of the graph; the metadata say so.",
)
@click.option(
    "--keep-passing", is_flag=True, help="Publish what passes the gate though other formats fail."
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Keras backend of the reference.  [default: KERAS_BACKEND, else the run's if installed]",
)
@click.option("--force", is_flag=True, help="Replace the bundle that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def export(run_folder: Path, out: Path, *, as_json: bool, **values: Any) -> None:
    """Turn RUN into a bundle of files that are deployed.

    Each file is compared with Keras on every validation image. If one answers otherwise, nothing
    is published and the exit code is 6.
    """
    from mnv2tl.checkpoint import load_run

    run = load_run(run_folder)
    with usage_errors():
        use_backend(_choose_backend(values["backend"], run.info["backend"]))
    from mnv2tl_export.export import export_run

    with explain_shortage("the export", fix="close other programs, or give one --format at a time"):
        result = export_run(
            run,
            out,
            data=values["data"],
            formats=values["formats"] or None,
            via=values["via"],
            accuracy_budget=values["accuracy_budget"] / 100,
            with_temperature=not values["no_temperature"],
            keep_passing=values["keep_passing"],
            force=values["force"],
            show=_show_parity,
        )
    if as_json:
        print_json({"bundle": str(result.bundle), "artifacts": list(result.artifacts)})
    else:
        for artifact in result.artifacts:
            if artifact["passed"]:
                line = f"{artifact['path']}: {artifact['bytes']:,} bytes, {artifact['sha256']}"
                if "latency" in artifact:
                    ms, former = artifact["latency"]["ms"], artifact["latency"]["float32_ms"]
                    line += f", {ms:.1f} ms for 16 pictures (float32 {former:.1f} ms)"
                click.echo(line)
        click.echo(f"published {result.bundle}")


def _choose_backend(wanted: str | None, of_run: str) -> str:
    """Return the backend of the reference: the wanted one, the run's, or what is installed."""
    wanted = wanted or os.environ.get("KERAS_BACKEND") or None
    if wanted is None and importlib.util.find_spec(of_run) is None:
        name = choose_backend(None)
        say(f"the run's backend {of_run} is not installed; the reference runs on {name}")
        return name
    return choose_backend(wanted or of_run)


def _show_parity(parity: Any) -> None:
    """Print the gate's table to stderr, where it does not mix with the result."""
    title = f"{parity.format} against Keras, {parity.figures['images']} validation images"
    if is_json():
        say(title, event="gate", **parity.to_json())
    if is_json() or is_quiet():
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    figures = parity.figures
    low, high = figures["val_accuracy_interval"]
    table = Table(title=title, title_justify="left")
    table.add_column("check")
    table.add_column("value", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("", justify="left")
    for check in parity.checks:
        sign = ">=" if check.is_least else "<="
        limit = "any" if check.limit is None else f"{sign} {check.limit:.3g}"
        verdict = "ok" if check.passed else "FAILED"
        table.add_row(Text(check.name), f"{check.value:.3g}", limit, Text(verdict))
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(
        f"accuracy {figures['val_accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f}), "
        f"Keras {figures['keras_accuracy']:.4f}; from file {figures['from_file']['accuracy']:.4f}, "
        f"{figures['from_file']['labels_turned']} labels turned; "
        f"largest difference of a pixel {figures['pixels_max_abs_diff']}"
    )


@click.command()
@click.argument("model", metavar="MODEL.onnx|SAVED_MODEL", type=click.Path(path_type=Path))
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "--top", type=click.IntRange(1), default=TOP, show_default=True, help="Classes named."
)
@click.option(
    "--reject-below",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    show_default=True,
    help="Give no label if the best probability is lower, 0 to 1.",
)
@click.option(
    "--batch",
    "batch_size",
    type=click.IntRange(1, 1024),
    default=BATCH_SIZE,
    show_default=True,
    help="Pictures computed at once. Of 64 or more, an ONNX file of mnv2tl computes one in each "
    "thread, on processors with a thread per core.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads.  [default: one per core]")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    default=PROVIDERS,
    show_default=True,
    help="Execution provider of onnxruntime; may be given several times.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default=True,
    help="Largest picture that is decoded, width times height in pixels.",
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    help="Names of the classes, one a line, for an ONNX file that mnv2tl did not export; it runs "
    "in a process with little memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per picture.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header line.")
@log_options
@click.pass_context
def predict(ctx: click.Context, /, model: Path, paths: tuple[str, ...], **values: Any) -> None:
    """Classify pictures with a file or SavedModel that mnv2tl export wrote.

    PATH is a picture, a folder of pictures, or - for stdin: a picture, or paths, one a line. A
    picture that cannot be read is reported and the others are answered; the exit code is then 3.
    """
    if values["as_json"] and values["as_csv"]:
        raise click.UsageError("--json and --csv exclude each other")
    if values["classes"] is not None and values["providers"] != PROVIDERS:
        raise click.UsageError(
            "--provider does not go with --classes: foreign files run on the CPU"
        )
    from mnv2tl.errors import DataError
    from mnv2tl_export.listing import open_listing
    from mnv2tl_export.predict import list_files, predict_files

    classifier = _open_classifier(ctx, model, values)
    files = list_files(paths)
    if not files:
        raise DataError("E301", "no picture was found", fix="name pictures or a folder of them")
    answers = predict_files(
        classifier,
        files,
        top=values["top"],
        reject_below=values["reject_below"],
        max_pixels=values["max_pixels"],
    )
    form = "json" if values["as_json"] else "csv" if values["as_csv"] else "text"
    listing = open_listing(form, top=min(values["top"], len(classifier.class_names)))
    bad = 0
    # On a terminal the answers themselves show how far it is.
    if not sys.stdout.isatty():
        answers = track(answers, "predict", total=len(files), unit="pictures")
    for answer in answers:
        for line in listing(answer):
            click.echo(line)
        if answer.error is not None:
            bad += 1
            is_large = answer.error.reason == "too-many-pixels"
            fix = "raise --max-pixels, or make the picture smaller" if is_large else None
            error = DataError("E309", answer.error.message, path=answer.path, fix=fix)
            tell_error(error.line(), **error.to_json())
    if bad:
        tell_error(f"{bad} of {len(files)} pictures could not be read", bad=bad, total=len(files))
        ctx.exit(DataError.exit_code)


def _open_classifier(ctx: click.Context, model: Path, values: dict[str, Any]) -> Any:
    """Open a file of ours here, or a foreign one in another process that ends with the command."""
    options = {"batch_size": values["batch_size"], "threads": values["threads"]}
    if values["classes"] is None and model.is_dir():
        return _open_saved_model(ctx, model, batch_size=values["batch_size"])
    if values["classes"] is None:
        from mnv2tl_export.classifier import Classifier

        return Classifier(model, providers=values["providers"], **options)
    from mnv2tl_export.foreign import ForeignClassifier, read_class_names

    say(f"{model} is run as a foreign file: what it does to pictures is not known here")
    classifier = ForeignClassifier(model, read_class_names(values["classes"]), **options)
    ctx.call_on_close(classifier.close)
    return classifier


def _open_saved_model(ctx: click.Context, folder: Path, **options: Any) -> Any:
    """Open a SavedModel of ours, in a process that ends with the command."""
    from mnv2tl_export.saved_model import SavedModel

    model = SavedModel(folder, **options)
    ctx.call_on_close(model.close)
    return model


@click.command()
@click.argument("model", metavar="MODEL.onnx|SAVED_MODEL", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(1), help="Threads.  [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
@click.pass_context
def selftest(ctx: click.Context, /, model: Path, threads: int | None, as_json: bool) -> None:
    """Show that an exported file answers here as it did where it was made.

    A small picture and its probabilities travel in the file. If an answer differs, the exit code
    is 6.
    """
    from mnv2tl.errors import ArtifactError, ResultError
    from mnv2tl_export.classifier import Classifier

    is_folder = model.is_dir()
    classifier = _open_saved_model(ctx, model) if is_folder else Classifier(model, threads=threads)
    try:
        found = classifier.selftest()
    except ValueError as error:
        raise ArtifactError("E412", str(error), path=model) from error
    if not found.passed:
        message = f"answers otherwise than where it was made, by {found.max_abs_diff:.1e}, "
        raise ResultError("E601", message + f"allowed {found.tolerance:.0e}", path=model)
    if as_json:
        figures = {"resized_diff": found.resized_diff, "direct_diff": found.direct_diff}
        print_json({"model": str(model), "passed": True, "limit": found.tolerance, **figures})
    else:
        difference = f"largest difference {found.max_abs_diff:.1e}"
        click.echo(f"passed: {difference}, allowed {found.tolerance:.0e}")
