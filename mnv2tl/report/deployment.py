"""The report's part on the exported files: what the gate and the benchmark measured of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnv2tl import store
from mnv2tl.checkpoint import Run
from mnv2tl.errors import ArtifactError
from mnv2tl.report.charts import draw_latency
from mnv2tl.report.svg import Chart

CAP = 40
"""Rows of the benchmark that are shown at most."""

_NUMBER = (int, float)
_MAYBE = (int, float, type(None))
_FIGURE = (int, float, str)
"""A number, or the text of one that is not finite."""
_ARTIFACT = {
    **dict.fromkeys(("format", "via", "path", "sha256"), str),
    **{"bytes": int, "passed": bool, "max_abs_diff": _FIGURE},
    **dict.fromkeys(("top1_agreement", "val_accuracy"), _NUMBER),
}
_PARITY = {"format": str, "passed": bool, "checks": list}
_CHECK = {"name": str, "value": _FIGURE, "limit": _MAYBE, "passed": bool, "is_least": bool}
_ROW = {
    **dict.fromkeys(("runtime", "format", "via"), str),
    **dict.fromkeys(("threads", "batch", "bytes"), int),
    **dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "images_per_s"), _NUMBER),
    **dict.fromkeys(("import_ms", "load_ms"), _NUMBER),
    **dict.fromkeys(("peak_rss_mb", "val_accuracy"), _MAYBE),
    "max_abs_diff": _FIGURE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle says of itself."""

    created: str
    """When it was made."""
    artifacts: tuple[Mapping[str, Any], ...]
    """As in `bundle.json`."""
    parities: tuple[Mapping[str, Any], ...]
    """As in `parity.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What a benchmark measured."""

    machine: str
    """Date and processor."""
    rows: tuple[Mapping[str, Any], ...]
    """As `mnv2tl benchmark` wrote them, at most `CAP`."""
    total: int
    """How many there are."""
    charts: tuple[Chart, ...]
    """One for each batch size."""


def read_bundle(folder: Path, run: Run) -> Bundle:
    """Read what a bundle of a run says of itself.

    Raises:
        ArtifactError: It is no bundle (E410), damaged (E412), or made from another checkpoint
            (E413).
    """
    if not (folder / "bundle.json").is_file():
        raise ArtifactError("E410", "not a bundle; it holds no bundle.json", path=folder)
    path = folder / "bundle.json"
    info = _read_object(path)
    artifacts = _check_rows(info.get("artifacts"), _ARTIFACT, path)
    if info.get("checkpoint_sha256") != run.info["files"]["best.keras"]:
        fix = "export this run, or name the run that was exported"
        raise ArtifactError("E413", "made from another checkpoint", path=folder, fix=fix)
    path = folder / "parity.json"
    parities = _check_rows(_read(path), _PARITY, path)
    for parity in parities:
        _check_rows(parity["checks"], _CHECK, path)
    return Bundle(
        created=str(info.get("created", "")),
        artifacts=tuple(artifacts),
        parities=tuple(parities),
    )


def read_benchmark(path: Path) -> Benchmark:
    """Read what `mnv2tl benchmark --out` wrote.

    Raises:
        ArtifactError: It is no such file (E410, E412).
    """
    info = _read_object(path)
    rows = _check_rows(info.get("rows"), _ROW, path)
    rows.sort(key=lambda row: (row["batch"], row["threads"], row["p50_ms"]))
    shown = rows[:CAP]
    batches = dict.fromkeys(row["batch"] for row in shown)
    machine = info.get("machine")
    words = [info.get("date"), machine.get("processor") if isinstance(machine, dict) else None]
    return Benchmark(
        machine=", ".join(str(each) for each in words if each),
        rows=tuple(shown),
        total=len(rows),
        charts=tuple(
            draw_latency([row for row in shown if row["batch"] == batch], batch=batch)
            for batch in batches
        ),
    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError("E410", "there is no such file", path=path) from error
    except OSError as error:
        raise store.machine_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError("E412", "not JSON", path=path) from error


def _read_object(path: Path) -> dict[str, Any]:
    value = _read(path)
    if not isinstance(value, dict):
        raise ArtifactError("E412", "not as mnv2tl writes it", path=path)
    return value


def _check_rows(value: Any, keys: Mapping[str, Any], path: Path) -> list[Mapping[str, Any]]:
    """Return a list of rows if each has the keys with values of their types.

    Raises:
        ArtifactError: One has not (E412).
    """
    rows: Sequence[Any] = value if isinstance(value, list) else [value]
    for row in rows:
        for key, kind in keys.items():
            if not isinstance(row, dict) or key not in row or not _is(row[key], kind):
                message = f"a row has no {key} as mnv2tl writes it"
                raise ArtifactError("E412", message, path=path)
    return list(rows)


def _is(value: Any, kind: Any) -> bool:
    """Tell whether a value is of a kind; JSON of Python may hold numbers that are not finite."""
    return isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))
