from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("keras")
pytest.importorskip("onnx")

from benchmarks.parts.damage import Artifact, damage, judge, make_artifacts
from mnv2tl.errors import ArtifactError, MachineError

if TYPE_CHECKING:
    from mnv2tl.checkpoint import Run

TINY = Path(__file__).parent / "golden" / "tiny.onnx"
KINDS = (
    *("run.json", "best.keras", "manifest.json", "state.json"),
    *("state, last epoch", "state, best epoch", "features", "features, index", "stat index"),
    *("base weights", "base weights, record"),
    *("model.onnx", "split.json", "parity.json", "bundle.json"),
)


@pytest.fixture
def artifacts(
    trained_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Artifact]:
    """Return one file of each kind."""
    monkeypatch.setenv("MNV2TL_CACHE", str(tmp_path))  # it is set anew, and taken back after
    made = make_artifacts(tmp_path / "kinds", run=trained_run.folder, model=TINY)
    return {artifact.name: artifact for artifact in made}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path) -> None:
    (tmp_path / "kinds").mkdir()


def test_all_kinds_are_there(artifacts: dict[str, Artifact]) -> None:
    """A kind that is not damaged here would not be found out."""
    assert tuple(artifacts) == KINDS


@pytest.mark.parametrize("name", KINDS)
def test_rows_36_37_and_49_damage_is_found(artifacts: dict[str, Artifact], name: str) -> None:
    """A flipped bit or a lost end is refused with an error of ours, or changes nothing."""
    table = damage(artifacts[name], trials=60, seed=7)

    for way in ("flips", "truncations"):
        assert (table[way]["silent"], table[way]["bug"]) == (0, 0), table["examples"]
        assert table[way]["found"] > 0


def _raise(error: Exception) -> object:
    raise error


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"a": 1, "b": 2}, "harmless"),
        ({"a": 1, "b": 2, "c": 3}, "harmless"),
        ({"a": None, "b": 2}, "found"),
        ({"a": 1, "b": 3}, "silent"),
        ({"a": 1}, "silent"),
        ([1], "silent"),
        (ArtifactError("E413", "hash"), "found"),
        (MachineError("E502", "disk"), "bug"),
        (KeyError("a"), "bug"),
    ],
)
def test_the_verdict_on_what_was_read(tmp_path: Path, found: object, verdict: str) -> None:
    """Only None stands for what was dropped, and only refusals with exit 3 or 4 count."""

    def read() -> object:
        return _raise(found) if isinstance(found, Exception) else found

    artifact = Artifact(name="name", path=tmp_path / "file", read=read)

    assert judge(artifact, {"a": 1, "b": 2})[0] == verdict
