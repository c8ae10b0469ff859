"""`mnv2tl doctor`: what is installed here, what will be used, and what to do about the rest."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from mnv2tl.backend import BACKENDS
from mnv2tl.cli import log_options, print_json
from mnv2tl.errors import MachineError
from mnv2tl.progress import show_step, tell_error
from mnv2tl.text import printable


@click.command()
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Keras backend to judge.  [default: KERAS_BACKEND, else jax if installed, else "
    "tensorflow]",
)
@click.option(
    "--devices",
    "with_devices",
    is_flag=True,
    help="Ask backends and runtimes for their devices; it takes seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
@click.pass_context
def doctor(
    ctx: click.Context, /, *, backend: str | None, with_devices: bool, as_json: bool
) -> None:
    """Say what works here, what will be used, and what to do about what is missing.

    The exit code is 0 if training is possible, and 5 if it is not.
    """
    from mnv2tl.doctor import examine

    with show_step("looking for devices") if with_devices else contextlib.nullcontext():
        found = examine(backend, with_devices=with_devices)
    if as_json:
        print_json(found)
    else:
        for line in _describe(found):
            click.echo(printable(line))
    if not found["can_train"]:
        first = next(each for each in found["problems"] if each["level"] == "error")
        error = MachineError(
            "E508", f"training is not possible here: {first['message']}", fix=first["fix"]
        )
        tell_error(error.line(), **error.to_json())
        ctx.exit(error.exit_code)


def _describe(found: dict[str, Any]) -> list[str]:
    memory = found["memory"]["bytes"]
    lines = [
        f"mnv2tl {found['mnv2tl']}, Python {found['python']['version']}, {found['platform']}",
        f"{found['cores']} cores, {_size(memory)} of memory",
        "",
        "packages:",
        *_describe_packages(found["packages"]),
        "",
        f"backend: {found['backend'] or 'none'}; installed: {_join(found['backends'])}",
        f"frozen layers: {_join([_runtime(each) for each in found['trunk_runtimes']])}",
    ]
    for name, devices in (found["devices"] or {}).items():
        lines.append(f"{name} has {_join(devices)}")
    if found["caches"]:
        lines += ["", *_describe_caches(found["caches"])]
    for folder in found["folders"]:
        kind = f", {folder['file_system']}" if folder["file_system"] else ""
        lines.append(
            f"{folder['name']}: {_size(folder['free_bytes'])} free{kind}: {folder['path']}"
        )
    lines += [""] if found["problems"] else []
    for problem in found["problems"]:
        lines.append(f"{problem['level']}: {problem['message']}. Fix: {problem['fix']}")
    lines += ["", "training is possible" if found["can_train"] else "training is not possible"]
    return lines


def _describe_packages(packages: list[dict[str, Any]]) -> list[str]:
    width = max((len(each["name"]) for each in packages), default=0)
    lines = []
    for each in packages:
        version = each["version"] or "-"
        place = f"extra {each['extra']}" if each["extra"] else "always"
        least = f" (needs {each['least']})" if each["least"] else ""
        lines.append(f"  {each['name']:{width}}  {version:12}  {place}{least}")
    return lines


def _describe_caches(caches: dict[str, Any]) -> list[str]:
    weights, features = caches["weights"], caches["features"]
    lines = [f"base weights: {len(weights['files'])} files in {weights['path']}"]
    lines += [f"  {each['name']}, {_size(each['bytes'])}" for each in weights["files"]]
    lines.append(
        f"features: {_size(features['bytes'])} in {features['packs']} packs in {features['path']}"
    )
    lines.append(f"known images: {_size(caches['index']['bytes'])} in {caches['index']['path']}")
    return lines


def _runtime(runtime: dict[str, Any]) -> str:
    return f"{runtime['name']} {runtime['version']}"


def _join(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _size(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
