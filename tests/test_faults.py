from __future__ import annotations

import importlib.util
import shutil
import sys
from typing import Any

import pytest

pytest.importorskip("keras")
pytest.importorskip("onnx")

from benchmarks.fault_points.shim import Outcome
from benchmarks.fault_points.sweep import BrokenError, check_outcome
from benchmarks.faults import run_part, summarize

_FAULTS = ["kill", "no space"]
_AT_LEAST = {
    "cache file": 4,
    "cache file, first": 4,
    "file": 6,
    "file, first": 6,
    "manifest": 6,
    "manifest, first": 6,
    "history": 6,
    "run.json": 6,
    "feature cache": 12,
    "stat index": 12,
    "training state": 50,
    "bundle": 25,
    "bundle --force": 30,
    "bundle --force, no exchange": 30,
}
"""Writer -> system calls that it makes at least."""

needs_shim = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)
needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="Keras' NumPy backend needs JAX"
)


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """Let each call of each writer be its last one, and let the disk be full from there on."""
    return run_part("writers", names=list(_AT_LEAST), faults=_FAULTS)


@pytest.mark.slow
@needs_shim
@pytest.mark.parametrize("name", _AT_LEAST)
def test_rows_28_and_30_a_writer_survives_a_fault_at_any_call(
    tables: dict[str, Any], name: str
) -> None:
    """Nothing is lost, damaged or left over, and the next run gives what it would have given."""
    table = tables[name]

    assert not any(table["broken"].values()), table["examples"]
    assert table["points"]["kill"] == table["points"]["no space"] >= _AT_LEAST[name]


@needs_shim
@needs_jax
def test_rows_28_and_30_a_run_folder_survives_faults() -> None:
    """Some calls of all that a training writes; no saved epoch is lost, the run is bit-equal."""
    table = run_part("writers", names=["run folder"], faults=_FAULTS, points=12)["run folder"]

    assert not any(table["broken"].values()), table["examples"]
    assert table["points"] == dict.fromkeys(_FAULTS, 12)


@needs_shim
@needs_jax
def test_a_writer_that_loses_its_file_is_found() -> None:
    """Keras writes on the final name: from its first call until its last there is no whole file."""
    name = "Model.save over a good file"

    table = run_part("plain_keras", names=[name], faults=["kill"])[name]

    assert table["broken"]["lost"] >= table["points"]["kill"] - 2
    assert "neither the old file nor the new one" in table["examples"][0]


def _outcome(code: str, *, struck: str = "write", exit_code: int = 5) -> Outcome:
    return Outcome(calls=9, struck=struck, code=code, exit_code=exit_code, text="text", said=())


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (_outcome("killed", struck="", exit_code=-9), "kill"),
        (_outcome("", struck="", exit_code=0), "kill"),
        (_outcome("E501"), "no space"),
        (_outcome("E502"), "I/O error"),
        (_outcome("", struck="remove", exit_code=0), "I/O error"),
    ],
)
def test_an_end_as_it_must_be_is_taken(outcome: Outcome, fault: str) -> None:
    """A failed removal may be passed over, since the next run removes what is left."""
    check_outcome(outcome, fault=fault, may_cope=False)


@pytest.mark.parametrize(
    ("outcome", "fault", "message"),
    [
        (_outcome("bug", exit_code=1), "no space", "bug: text"),
        (_outcome("E502"), "no space", "E502: text"),
        (_outcome("E501"), "I/O error", "E501: text"),
        (_outcome("E501", exit_code=4), "no space", "exit 4"),
        (_outcome("", struck="sync", exit_code=0), "I/O error", "a call to sync failed"),
        (_outcome("E403", exit_code=4), "kill", "E403"),
    ],
)
def test_another_end_is_told(outcome: Outcome, fault: str, message: str) -> None:
    """A bug, the error of another fault, another exit code, or silence."""
    with pytest.raises(BrokenError, match=message) as caught:
        check_outcome(outcome, fault=fault, may_cope=False)

    assert caught.value.kind == "wrong error"


def test_a_cache_may_pass_over_a_fault() -> None:
    """It is not needed, so that nothing failed."""
    check_outcome(_outcome("", exit_code=0), fault="no space", may_cope=True)


def test_the_summary_counts_what_is_broken() -> None:
    """Points, kills and damaged files of the project count; those of plain Keras do not."""
    table = {"all_points": 10, "broken": {"lost": 1, "corrupt": 2}}
    harmed = {"found": 5, "harmless": 1, "silent": 2, "bug": 1}
    figures = {
        "writers": {"a": table, "b": table},
        "training": table,
        "plain_keras": {"c": table},
        "kills": {"killed": 4, "equal": 3},
        "damage": {"d": {"bytes": 3, "flips": harmed, "truncations": harmed}},
    }

    summary = summarize(figures)

    assert (summary["points"], summary["broken_points"]) == (30, 9)
    assert (summary["plain_keras_points"], summary["plain_keras_broken_points"]) == (10, 3)
    assert (summary["damaged"], summary["damaged_silent_or_bug"]) == (18, 6)
    assert summary["broken"] == 9 + 6 + 1
