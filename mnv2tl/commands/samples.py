"""`mnv2tl samples`: list sample data sets, and fetch one."""

from __future__ import annotations

from pathlib import Path

import click

from mnv2tl.cli import log_options, print_json, usage_errors


@click.group()
def samples() -> None:
    """List sample data sets, or fetch one."""


@samples.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_samples(as_json: bool) -> None:
    """List the sample data sets with their licences."""
    from mnv2tl import samples as data

    if as_json:
        rows = [{"name": name, "about": about} for name, about in data.SOURCES.items()]
        print_json({"samples": rows})
        return
    for name, about in data.SOURCES.items():
        click.echo(f"{name}: {about}")


@samples.command("fetch")
@click.argument("name")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--package",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A Debian package that was downloaded before, for the stamps.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def fetch_sample(name: str, folder: Path, package: Path | None, as_json: bool) -> None:
    """Write the data set NAME to DIR, one folder per class; DIR must be missing or empty.

    patches needs no network; stamps and stamps-objects use apt-get, flowers the public network.
    """
    from mnv2tl import samples as data

    with usage_errors():
        info = data.fetch(name, folder, package=package)
    for line in info.left_out:
        click.echo(f"warning: left out {ascii(line)[1:-1]}", err=True)
    if as_json:
        print_json(
            {
                "name": info.name,
                "path": str(info.folder),
                "images": info.images,
                "class_names": list(info.classes),
                "left_out": list(info.left_out),
            }
        )
    else:
        click.echo(f"{name}: {info.images} images in {len(info.classes)} classes in {folder}")
