"""benchmarks/attacks.py, and by it what it attacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import attacks


def test_no_attack_reads_another_file() -> None:
    """Twenty ways, by path and from bytes; onnxruntime alone is tried beside, whatever it does."""
    found = attacks.attack()

    for name in ("mnv2tl, by path", "mnv2tl's session, from bytes"):
        assert found[name] == {"attacks": 20, "leaks": []}
    assert found["onnxruntime, by path"]["attacks"] == 20


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_a_leak_would_be_seen(tmp_path: Path, place: str) -> None:
    """The attack's model is sound: with the numbers in its own folder it answers with them."""
    (tmp_path / "own.bin").write_bytes(attacks.SECRET.tobytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(dict(attacks.make_models("own.bin"))[place].SerializeToString())

    assert attacks.leaks(attacks.ask_onnxruntime, path)
    assert not attacks.leaks(attacks.ask_ours, path)
