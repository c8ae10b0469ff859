from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl.errors import MachineError
from mnv2tl_export.child import Child, ChildEndedError

MODULE = """
import os
import sys
import numpy as np
from mnv2tl.errors import MachineError
from mnv2tl_export.child import Message, serve

def double(question):
    print("a library prints this")
    return Message(values={"n": question.values["n"] * 2},
                   arrays={name: each * 2 for name, each in question.arrays.items()})

def refuse(question):
    raise MachineError("E508", "not here", path="a\\nb", fix="bring it")

def die(question):
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), question.values["signal"])

def fill(question):
    np.ones(question.values["bytes"], np.uint8)
    return Message()

serve({"double": double, "refuse": refuse, "die": die, "fill": fill})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module that a child can run."""
    (tmp_path / "served_here.py").write_text(MODULE)
    places = [str(tmp_path), *(each for each in sys.path if each)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    return "served_here"


def test_arrays_and_values_go_there_and_back(module: str) -> None:
    """Types, shapes and empty arrays are kept; what the child prints is no answer."""
    arrays: dict[str, NDArray[Any]] = {
        "pixels": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::-1],
        "weights": np.linspace(0, 1, 7, dtype=np.float32),
        "none": np.zeros((0, 3), np.int64),
        "scalar": np.array(2.5, np.float64),
    }
    with Child(module) as child:
        for n in (1, 2):
            answer = child.ask("double", arrays=arrays, n=n)

            assert answer.values == {"n": 2 * n}
            for name, array in arrays.items():
                np.testing.assert_array_equal(answer.arrays[name], array * 2)
                assert answer.arrays[name].dtype == array.dtype


def test_an_expected_error_is_raised_here(module: str) -> None:
    """Class, code, path and fix come over, and the child goes on."""
    with Child(module) as child:
        with pytest.raises(MachineError, match="not here") as caught:
            child.ask("refuse")
        assert (caught.value.code, caught.value.path, caught.value.fix) == (
            *("E508", "a\nb"),
            "bring it",
        )
        assert child.ask("double", n=1).values == {"n": 2}


@pytest.mark.skipif(os.name == "nt", reason="signals are not those of POSIX")
def test_a_child_that_dies_is_told(module: str) -> None:
    """The signal and the last line of stderr are in the error, now and at the next question."""
    with Child(module) as child:
        for _ in range(2):
            with pytest.raises(ChildEndedError) as caught:
                child.ask("die", signal=int(signal.SIGKILL))
            assert caught.value.returncode == -signal.SIGKILL
            assert caught.value.last_words == "last words"


def test_a_module_that_is_not_there_is_told(module: str) -> None:
    """The child ends before it answers."""
    with Child("no_such_module_here") as child, pytest.raises(ChildEndedError, match="no_such"):
        child.ask("double", n=1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_memory_is_limited(module: str) -> None:
    """What fits is done, what does not is an expected error, and the child goes on."""
    with Child(module, memory_bytes=2**31) as child:
        child.ask("fill", bytes=10**6)
        with pytest.raises(MachineError, match="memory") as caught:
            child.ask("fill", bytes=2**32)
        assert caught.value.code == "E505"
        child.ask("fill", bytes=10**6)


def test_only_known_types_are_taken(module: str) -> None:
    """Objects, texts and other types never cross."""
    with Child(module) as child, pytest.raises(ChildEndedError, match="are not taken"):
        child.ask("double", arrays={"x": np.zeros(2, np.complex64)}, n=1)
