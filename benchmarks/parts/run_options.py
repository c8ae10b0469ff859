"""The command line of benchmarks that take a finished run and time its files in turn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def run_options(name: str, *, rounds: int) -> Decorator:
    """Return what adds RUN, --data, --out, --rounds and --calls to a command.

    Args:
        name: Of the result file, without its ending.
        rounds: How often each file has its turn if nothing else is said.
    """
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    options = (
        click.argument("run", type=folder),
        click.option("--data", type=folder, help="Folder of the images, if it moved."),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=record.RESULTS / f"{name}.json",
            show_default=f"benchmarks/results/{name}.json",
            help="JSON file.",
        ),
        click.option(
            "--rounds",
            type=click.IntRange(2),
            default=rounds,
            show_default=True,
            help="Turns of each file; one more comes first and is not counted.",
        ),
        click.option(
            "--calls",
            type=click.IntRange(1),
            default=5,
            show_default=True,
            help="Counted calls in one turn.",
        ),
    )
    return lambda command: functools.reduce(lambda made, add: add(made), reversed(options), command)
