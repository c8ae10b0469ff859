"""Where a setting comes from: the flag, else a settings file, else the recipe, else the default."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource


def fill_in(
    ctx: click.Context, values: dict[str, Any], sources: Sequence[Mapping[str, Any]]
) -> None:
    """Replace values that no flag gave by those of the sources; the first source wins.

    Args:
        ctx: The command's context.
        values: Parameter name -> value, changed in place.
        sources: Option name with underscores (or parameter name) -> value.

    Raises:
        click.UsageError: A source names an unknown option or a value that it does not take.
    """
    parameters = {parameter.name: parameter for parameter in ctx.command.params}
    names = {name: name for name in parameters if name is not None}
    for parameter in ctx.command.params:
        names |= {_plain(option): str(parameter.name) for option in parameter.opts}
    for source in reversed(sources):
        for key, value in source.items():
            if key not in names:
                allowed = sorted(
                    _plain(parameter.opts[0])
                    for parameter in ctx.command.params
                    if parameter.name in (*values, "recipe")
                )
                near = "".join(f"; did you mean {n}?" for n in get_close_matches(key, allowed, n=1))
                message = f"unknown setting {key!r}{near}; allowed are {', '.join(allowed)}"
                raise click.UsageError(message)
            name = names[key]
            if name not in values:
                raise click.UsageError(f"{key!r} is no setting of a file; give it as a flag")
            if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
                continue
            parameter = parameters[name]
            values[name] = None if value is None else parameter.type_cast_value(ctx, value)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a TOML file or of a former `run.json`.

    Raises:
        click.UsageError: It cannot be read, or is neither.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".json":
            return flatten(json.loads(content)["config"])
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise click.UsageError(f"--config {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        message = f"--config {path}: neither TOML nor a run.json: {error}"
        raise click.UsageError(message) from error


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in a `run.json` as option values; not where data and run lie."""
    values = {key: value for key, value in config.items() if not isinstance(value, dict)}
    values |= config["scan"]
    values |= config["augment"]
    for name in ("data", "backend", "index", "workers", "rehash", "start_from"):
        values.pop(name, None)
    if config.get("start_from") is not None:
        values["from"] = config["start_from"]
    return values


def _plain(option: str) -> str:
    return option.lstrip("-").replace("-", "_")
