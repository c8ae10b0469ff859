"""The short form of the fuzzing, and proof that it would find what it looks for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from benchmarks import fuzz
from benchmarks.parts.fuzz_targets import TARGETS, Target


@pytest.mark.parametrize(
    ("name", "mutants"),
    [
        ("image", 4000),
        ("manifest.json", 800),
        ("run.json", 800),
        ("bundle.json", 800),
        ("model.onnx", 400),
    ],
)
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str, mutants: int) -> None:
    """Nothing but a value or an error of ours comes out; mutants of both kinds are among them."""
    found = fuzz.try_mutants(TARGETS[name](tmp_path), 1, 0, mutants)

    assert found["findings"] == 0, found["examples"]
    assert found["verdicts"]["read"] > 0
    assert sum(found["verdicts"].values()) - found["verdicts"]["read"] > mutants / 4
    assert found["slowest_seconds"] < fuzz.HANG_SECONDS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_and_mutants_can_be_made_again(tmp_path: Path, name: str) -> None:
    """A seed that is refused tests nothing; a finding must be found again by its number."""
    target = TARGETS[name](tmp_path)
    (tmp_path / "other").mkdir()
    other = TARGETS[name](tmp_path / "other")

    mutants = [target.mutate(3, number) for number in range(20)]

    assert {target.read(seed) for seed in target.seeds} == {"read"}
    assert [other.mutate(3, number) for number in range(20)] == mutants
    assert len(set(mutants)) > 15
    assert [target.mutate(4, number) for number in range(20)] != mutants


class _Weak(Target):
    """A reader with a hole of each kind."""

    def __init__(self, place: Path) -> None:
        self.seeds = [b"x"]

    def mutate(self, seed: int, number: int) -> bytes:
        return bytes([number])

    def read(self, content: bytes) -> str:
        if content == b"\3":
            os.kill(os.getpid(), signal.SIGSEGV)
        if content == b"\5":
            time.sleep(60)
        if content == b"\7":
            raise KeyError("hole")
        if content == b"\x08":
            bytearray(2**40)
        return "read"


@pytest.mark.skipif(os.name == "nt", reason="needs limits and clocks of POSIX")
def test_each_kind_of_hole_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a mutant that ends the process the next ones are tried in another one."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.path.append(sys.path[0])\n"
        "from benchmarks import fuzz\n"
        "from benchmarks.parts import fuzz_targets\n"
        f"sys.path.append({os.fspath(Path(__file__).parent)!r})\n"
        "import test_fuzz\n"
        "fuzz.HANG_SECONDS = 0.5\n"
        "fuzz_targets.TARGETS['weak'] = test_fuzz._Weak\n"
    )
    root = Path(__file__).parents[1]
    places = (tmp_path, root, root / "export", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(place) for place in places if place))

    found = fuzz.fuzz("weak", 0, 10, seed=0, workers=1)

    assert (found["mutants"], found["crashes"], found["hangs"], found["other"]) == (10, 1, 1, 2)
    assert found["findings"] == 4
    assert found["verdicts"] == {"other": 1, "out of memory": 1, "read": 6}
    assert any("KeyError" in text for text in found["examples"])
