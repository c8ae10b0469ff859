"""`mnv2tl cache show|clear`: look at the feature cache, or clear it."""

from __future__ import annotations

import click

from mnv2tl.cli import log_options, print_json


@click.group()
def cache() -> None:
    """Look at the feature cache, or clear it."""


@cache.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_cache(as_json: bool) -> None:
    """Print where the features lie and how much room they take."""
    from mnv2tl.cache_folder import cache_folder
    from mnv2tl.feature_cache import list_packs

    folder = cache_folder("features")
    packs = list_packs(folder)
    size = sum(bytes_ for _, _, bytes_ in packs)
    if as_json:
        print_json({"path": str(folder), "packs": len(packs), "bytes": size})
    else:
        click.echo(f"{size / 1e6:.1f} MB in {len(packs)} packs in {folder}")


@cache.command("clear")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def clear_cache(as_json: bool) -> None:
    """Remove all features; base weights and the index of known images stay."""
    from mnv2tl.cache_folder import cache_folder
    from mnv2tl.feature_cache import clear

    folder = cache_folder("features")
    freed = clear(folder)
    if as_json:
        print_json({"path": str(folder), "bytes": freed})
    else:
        click.echo(f"freed {freed / 1e6:.1f} MB in {folder}")
