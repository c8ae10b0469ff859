"""What differs between the settings and the versions of several runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_PLACES = {"data", "out", "index", "test_dir", "start_from", "weights"}
"""Settings that are paths, or may be; what lay there is told by hashes and names."""


def flatten_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the settings of a run in words, those of an object with its name before theirs."""
    facts: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            facts |= flatten_settings(value, f"{name} ")
        elif name not in _PLACES:
            facts[f"{prefix}{name}".replace("_", " ")] = say(value)
    return facts


def find_differences(infos: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return setting -> its value in each run, for settings and versions that are not all equal.

    The backend is not among them: it is told with the figures.

    Args:
        infos: Content of each `run.json`.
    """
    tables = [_describe(info) for info in infos]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = {name: tuple(table.get(name, "-") for table in tables) for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def say(value: Any) -> str:
    """Return a setting in words; 20 and 20.0 are the same."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _describe(info: Mapping[str, Any]) -> dict[str, str]:
    weights = info["weights"]
    return {
        "manifest": str(info.get("manifest_sha256", "-"))[:12],
        "base weights": f"{weights['name']}, {weights['sha256'][:12]}",
        **flatten_settings({k: v for k, v in info["config"].items() if k != "backend"}),
        "trunk run by": info["trunk_runtime"],
        **{f"version of {name}": str(each) for name, each in info["versions"].items()},
    }
