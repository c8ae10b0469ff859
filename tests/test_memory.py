from __future__ import annotations

import platform
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mnv2tl.errors import MachineError
from mnv2tl.memory import explain_batch, explain_shortage

ROOT = Path(__file__).resolve().parent.parent

_PROBE = """
import resource, threading
{first}
def count():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"1") * 200_000_000
    del block
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
for _ in range(2):
    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
"""


def _count_new_pages(first: str) -> int:
    """Return how many pages the second of two equal blocks needs from the system."""
    result = subprocess.run(
        [sys.executable, "-c", _PROBE.format(first=first)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    """A large block that a thread freed serves the next thread."""
    pages = _count_new_pages("from mnv2tl.memory import keep_freed_memory; keep_freed_memory()")

    assert pages < 1000  # 200 MB are 48,829 pages of 4 KB
    assert _count_new_pages("") > 20_000


def test_other_systems_are_left_alone() -> None:
    """Without glibc's function nothing happens, and nothing fails."""
    code = "import sys; sys.platform = 'darwin'; import mnv2tl.memory as m; m.keep_freed_memory()"

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def _too_much_for_numpy() -> None:
    np.zeros(10**15)


def _too_much_for_the_backend() -> None:
    keras = pytest.importorskip("keras")
    np.asarray(keras.ops.zeros((10**7, 10**6)))


def _too_much_for_onnxruntime() -> None:
    helper = pytest.importorskip("onnx.helper")
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["shape"], ["large"])],
        "large",
        [helper.make_tensor_value_info("shape", 7, [2])],
        [helper.make_tensor_value_info("large", 1, [None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {"shape": np.array([10**7, 10**7], np.int64)})


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "ask", [_too_much_for_numpy, _too_much_for_the_backend, _too_much_for_onnxruntime]
)
def test_lack_of_memory_is_one_error_whoever_meets_it(ask: Callable[[], None]) -> None:
    """More than any machine has is asked of Python, of the backend and of a runtime."""
    with pytest.raises(MachineError) as caught, explain_shortage("the work", fix="ask for less"):
        ask()

    assert caught.value.line() == (
        "error[E505 out-of-memory] the work did not fit into memory. Fix: ask for less"
    )


@pytest.mark.parametrize("error", [RuntimeError("broken"), ValueError("out of memory")])
def test_other_errors_pass(error: Exception) -> None:
    """A bug stays a bug."""
    with pytest.raises(type(error), match=str(error)), explain_shortage("it", fix="do"):
        raise error


@pytest.mark.parametrize(
    ("batch_size", "fix"), [(64, "try --batch-size 32"), (3, "try --batch-size 1"), (1, "smaller")]
)
def test_a_batch_that_does_not_fit_names_the_half(batch_size: int, fix: str) -> None:
    """Of one image there is no half."""
    with pytest.raises(MachineError, match=f"batch {batch_size} did not fit.*{fix}"):
        with explain_batch(batch_size):
            raise MemoryError


def test_a_library_that_is_being_imported_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow comes in a thread of its own while onnxruntime computes."""
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))

    with pytest.raises(MachineError, match="E505"), explain_shortage("it", fix="do"):
        raise RuntimeError("Failed to allocate memory")


def test_a_process_with_a_backend_looks_for_cycles_less_often(backend: str) -> None:
    """What was imported is put aside, and all when it ends; a collector that is off stays off."""
    code = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > 1000))  # the first one is called last
from mnv2tl.backend import use_backend
gc.set_threshold(int(sys.argv[1]), 10, 10)
if sys.argv[3] == "off":
    gc.disable()
use_backend(sys.argv[2])
count = gc.get_freeze_count()
print(gc.isenabled(), count > 1000)
use_backend(sys.argv[2])
print(gc.get_threshold()[0], gc.get_freeze_count() == count)
"""
    words = [sys.executable, "-c", code]
    printed = [
        subprocess.run(
            [*words, first, backend, switch], capture_output=True, text=True, check=True
        ).stdout.split()
        for first, switch in (("700", "on"), ("20000", "on"), ("0", "on"), ("700", "off"))
    ]

    assert printed == [
        ["True", "True", "10000", "True", "True"],
        ["True", "True", "20000", "True", "True"],
        ["True", "True", "0", "True", "True"],
        ["False", "True", "10000", "True", "True"],
    ]
