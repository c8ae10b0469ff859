from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from mnv2tl.machine import describe, git_state

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPUINFO.exists(), reason="needs Linux")
def test_a_processor_has_its_name_generation_and_widest_vectors() -> None:
    """The same network takes twice as long where there is no AVX-512, or an older one of it."""
    text = CPUINFO.read_text("ascii", errors="replace")
    widest = "AVX-512" if " avx512f " in text else "AVX2" if " avx2 " in text else None
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)

    found = describe()["machine"]["processor"]

    assert found.endswith(f" ({widest})") == (widest is not None)
    assert name is None or found.startswith(name[1])
    family = re.search(r"^cpu family\s*: (\d+)$", text, re.MULTILINE)
    model = re.search(r"^model\s*: (\d+)$", text, re.MULTILINE)
    if family and model:
        assert f", family {family[1]}, model {model[1]}" in found


def test_git_state_tells_commit_and_cleanness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the checkout around a folder; None outside of one and without git."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    folder = tmp_path / "checkout"
    folder.mkdir()
    assert git_state(folder) is None

    user = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    try:
        for words in (["init", "-q"], [*user, "commit", "-q", "--allow-empty", "-m", "first"]):
            subprocess.run(["git", "-C", str(folder), *words], check=True)
    except FileNotFoundError:
        pytest.skip("needs git")
    clean = git_state(folder)
    (folder / "new").write_bytes(b"")
    dirty = git_state(folder)
    but_for_it = git_state(folder, but=["new"])

    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["clean"]
    assert dirty == clean | {"clean": False}
    assert but_for_it == clean
    monkeypatch.setenv("PATH", "")
    assert git_state(folder) is None
