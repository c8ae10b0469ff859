from __future__ import annotations

import re
from pathlib import Path

import pytest

from mnv2tl.machine import describe

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
