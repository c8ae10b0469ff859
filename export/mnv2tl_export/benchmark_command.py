"""`mnv2tl benchmark BUNDLE [DATA]`: how fast, how large and how right each artifact is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from mnv2tl.cli import log_options, print_json, usage_errors
from mnv2tl.data.images import MAX_PIXELS
from mnv2tl.progress import say

_TABLE_WIDTH = 140


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--run",
    "run_folder",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="The run that was exported: Keras on each installed backend and the other road to ONNX "
    "are timed too.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1, 1024),
    multiple=True,
    default=(1, 16),
    show_default=True,
    help="Pictures per call; may be given several times.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    multiple=True,
    help="Cores that a runtime may use; may be given several times.  [default: 1, and all]",
)
@click.option(
    "--rounds",
    type=click.IntRange(2),
    default=10,
    show_default=True,
    help="How often each has its turn, 5 calls each time.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    help="Largest image that is decoded, width times height in pixels.  "
    f"[default: that of the training with --run, else {MAX_PIXELS:,}]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result as JSON file too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def benchmark(bundle: Path, data: Path | None, *, as_json: bool, **values: Any) -> None:
    """Time every artifact of BUNDLE, in turn, each in its own process.

    DATA is the folder of the images: accuracy on the validation split is measured too. Times are
    those of the model alone, on pictures that are decoded and resized; what decoding takes is told
    apart.
    """
    from mnv2tl import machine, store
    from mnv2tl.parallel import count_workers
    from mnv2tl_export.benchmark import Plan, list_subjects, read_pixels
    from mnv2tl_export.benchmark import benchmark as measure

    cores = count_workers()
    threads = values["threads"] or tuple(dict.fromkeys((1, cores)))
    if max(threads) > cores:
        raise click.UsageError(f"--threads must be at most {cores} here, got {max(threads)}")
    with usage_errors():
        plan = Plan(batches=values["batches"], threads=threads, rounds=values["rounds"])
    with tempfile.TemporaryDirectory(prefix="mnv2tl-") as folder:
        subjects, left_out = list_subjects(bundle)
        if values["run_folder"] is not None:
            from mnv2tl_export.benchmark_run import list_more

            more, missing = list_more(values["run_folder"], subjects, folder=Path(folder))
            subjects, left_out = subjects + more, left_out + missing
        for line in left_out:
            say(f"left out: {line}")
        max_pixels = values["max_pixels"] or _max_pixels_of(values["run_folder"])
        pictures = read_pixels(bundle, data, max_pixels=max_pixels)
        result = {
            **machine.describe(),
            "images": None if pictures.labels is None else len(pictures.labels),
            "decode_ms": pictures.decode_ms,
            "left_out": left_out,
            "rows": measure(subjects, pictures, plan),
        }
    if values["out"] is not None:
        store.write_json(values["out"], result)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _max_pixels_of(run_folder: Path | None) -> int:
    """Return the limit of a run's training, or the default where no run is given."""
    if run_folder is None:
        return MAX_PIXELS
    from mnv2tl.checkpoint import load_run

    return int(load_run(run_folder).info["config"]["scan"]["max_pixels"])


def _show(result: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in (
        *("threads", "batch", "p50 ms", "p99 ms", "images/s", "start ms", "peak MB", "file MB"),
        *("accuracy", "max diff"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result["rows"]:
        accuracy, memory = row["val_accuracy"], row["peak_rss_mb"]
        road = f" via {row['via']}" if row["runtime"] == "onnxruntime" else ""
        name = row["runtime"] if row["format"] == "keras" else row["format"] + road
        table.add_row(
            *(name, str(row["threads"]), str(row["batch"])),
            *(f"{row[f'p{share}_ms']:.1f}" for share in (50, 99)),
            f"{row['images_per_s']:.0f}",
            f"{row['import_ms'] + row['load_ms']:.0f}",
            "-" if memory is None else f"{memory:.0f}",
            f"{row['bytes'] / 1e6:.1f}",
            "-" if accuracy is None else f"{accuracy:.4f}",
            f"{row['max_abs_diff']:.0e}",
        )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, _TABLE_WIDTH)
    console.print(table)
    if result["decode_ms"] is not None:
        click.echo(f"reading and resizing one picture: {result['decode_ms']:.1f} ms")
