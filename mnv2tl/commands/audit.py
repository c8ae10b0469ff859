"""`mnv2tl audit DATA`: what a folder of images holds, its split, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mnv2tl.cli import log_options, print_json
from mnv2tl.commands.options import data_argument, scan_options, take_scan_config
from mnv2tl.errors import show
from mnv2tl.text import printable

if TYPE_CHECKING:
    from mnv2tl.data.manifest import Manifest
    from mnv2tl.data.scan import Scan

_CLASSES = 50
_FILES = 20


@click.command()
@data_argument
@scan_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the manifest to this file, outside of DATA.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def audit(data: Path, out: Path | None, as_json: bool, **values: Any) -> None:
    """Check a folder of images, one sub-folder per class, and show how it is split.

    Nothing in DATA is changed. Exit 3: the folder cannot be used as it is, and why.
    """
    config = take_scan_config(values)
    if out is not None and Path(os.path.realpath(out.parent)).is_relative_to(
        os.path.realpath(data)
    ):
        raise click.UsageError(f"--out must lie outside of DATA, got {show(out)}")

    from mnv2tl.data.scan import check_share, inspect

    scan = inspect(data, config)
    if not as_json:
        _show(scan.manifest)
    check_share(scan.manifest, config.max_bad, data)
    if out is not None:
        scan.manifest.save(out)
    if as_json:
        print_json(_to_json(scan))


def _to_json(scan: Scan) -> dict[str, Any]:
    manifest = scan.manifest
    counts = manifest.counts()
    return {
        "images": len(manifest.entries),
        "classes": [
            {"class_name": name, **count, "val_share": _share(count["val"], sum(count.values()))}
            for name, count in zip(manifest.class_names, counts, strict=True)
        ],
        "left_out": [dataclasses.asdict(each) for each in manifest.left_out],
        "duplicates": manifest.duplicates,
        "split": {
            **manifest.split_rule,
            **{name: sum(count[name] for count in counts) for name in counts[0]},
        },
        "near_duplicates": manifest.near_duplicates,
        "warnings": list(manifest.warnings),
        "root": os.fspath(manifest.root),
        "sha256": manifest.sha256,
        "files_read": scan.files_read,
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _show(manifest: Manifest) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    counts = manifest.counts()
    table = Table(title=Text(f"{len(manifest.entries)} images in {len(counts)} classes"))
    table.add_column("class")
    for heading in ("train", "val", "test", "val share"):
        table.add_column(heading, justify="right")
    rows = list(zip(manifest.class_names, counts, strict=True))
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    for name, count in [*rows[:_CLASSES], ("all", total)]:
        if name == "all" and count is total:
            table.add_section()
        share = f"{100 * _share(count['val'], sum(count.values())):.1f} %"
        figures = (str(count["train"]), str(count["val"]), str(count["test"]), share)
        table.add_row(Text(printable(name)), *figures)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    if len(rows) > _CLASSES:
        console.print(f"{len(rows) - _CLASSES} more classes: --json shows them")
    for warning in manifest.warnings:
        console.print(f"warning: {printable(warning)}")
    for each in manifest.left_out[:_FILES]:
        console.print(f"left out: {printable(each.path)}: {each.code}, {printable(each.reason)}")
    if len(manifest.left_out) > _FILES:
        console.print(f"{len(manifest.left_out) - _FILES} more files left out: --json shows them")
