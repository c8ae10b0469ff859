from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnv2tl.backend import (
    choose_backend,
    has_gpu,
    list_versions,
    on_processor,
    training_precision,
    use_backend,
)
from mnv2tl.errors import MachineError, install_extra
from tests.unread_log import run_unread

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = [name for name in ("jax", "tensorflow") if importlib.util.find_spec(name)]
MISSING = [name for name in ("jax", "tensorflow") if name not in INSTALLED]
_Monkey = pytest.MonkeyPatch

needs_both_kinds = pytest.mark.skipif(
    not INSTALLED or not MISSING, reason="needs one backend installed and one missing"
)


@pytest.mark.parametrize("name", INSTALLED)
def test_choose_backend_takes_the_wanted_one(monkeypatch: _Monkey, name: str) -> None:
    """The argument wins over the environment."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")

    assert choose_backend(name) == name


@pytest.mark.parametrize("name", INSTALLED)
def test_choose_backend_obeys_the_environment(monkeypatch: _Monkey, name: str) -> None:
    """KERAS_BACKEND is what Keras itself reads."""
    monkeypatch.setenv("KERAS_BACKEND", name)

    assert choose_backend() == name


@pytest.mark.skipif(not INSTALLED, reason="needs a backend")
@pytest.mark.parametrize("value", [None, ""])
def test_choose_backend_takes_the_first_installed(monkeypatch: _Monkey, value: str | None) -> None:
    """Nothing said, or an empty variable: JAX if installed, else TensorFlow."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if value is not None:
        monkeypatch.setenv("KERAS_BACKEND", value)

    assert choose_backend() == INSTALLED[0]


@pytest.mark.parametrize("name", ["torch", "JAX", "numpy"])
def test_choose_backend_refuses_other_names(monkeypatch: _Monkey, name: str) -> None:
    """The same message for the argument and for the variable."""
    message = rf"backend must be one of \('jax', 'tensorflow'\), got '{name}'"

    with pytest.raises(ValueError, match=message):
        choose_backend(name)
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(ValueError, match=f"{message} from KERAS_BACKEND"):
        choose_backend()


@needs_both_kinds
def test_choose_backend_names_the_extra_of_a_missing_one() -> None:
    """No silent change to the other backend."""
    with pytest.raises(MachineError) as caught:
        choose_backend(MISSING[0])

    assert caught.value.code == "E508"
    assert caught.value.message == f"{MISSING[0]} is not installed"
    assert caught.value.fix == install_extra(MISSING[0])


def test_choose_backend_without_any_backend_says_so(monkeypatch: _Monkey) -> None:
    """A deployment machine has neither; `train` names the extra."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MachineError, match=r"E508.* jax or tensorflow is not installed.*\[jax\]"):
        choose_backend()


@pytest.mark.parametrize("name", INSTALLED)
def test_use_backend_sets_the_variable_before_keras_is_imported(name: str) -> None:
    """Keras reads it at its import; TensorFlow's start-up lines are kept down."""
    code = f"import os; from mnv2tl.backend import use_backend; use_backend('{name}')\n"
    code += "print(os.environ['KERAS_BACKEND'], os.environ['TF_CPP_MIN_LOG_LEVEL'])\n"
    code += "import keras; print(keras.backend.backend())"
    names = ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")
    variables = {key: value for key, value in os.environ.items() if key not in names}

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True
    )

    assert result.stdout.split() == [name, "2", name], result.stderr


def test_use_backend_refuses_a_change_after_the_import(backend: str, monkeypatch: _Monkey) -> None:
    """Keras keeps its first backend; going on would train on the wrong one."""
    import keras

    assert keras.backend.backend() == backend
    monkeypatch.setenv("KERAS_BACKEND", backend)  # restored afterwards
    use_backend(backend)
    other = "tensorflow" if backend == "jax" else "jax"

    with pytest.raises(RuntimeError, match=f"another backend than {other}"):
        use_backend(other)


def test_use_backend_without_keras_names_the_extra(monkeypatch: _Monkey) -> None:
    """The base installation has no Keras."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MachineError) as caught:
        use_backend("jax")

    assert (caught.value.code, caught.value.fix) == ("E508", install_extra("jax"))


@pytest.mark.skipif(not INSTALLED or not MISSING, reason="needs one backend missing")
def test_use_backend_without_the_backend_names_the_extra() -> None:
    """Keras itself would end with another error."""
    code = f"from mnv2tl.backend import use_backend; use_backend('{MISSING[0]}')"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert f"{MISSING[0]} is not installed. Fix: " in done.stderr


def test_has_gpu_tells_what_the_backend_tells(backend: str) -> None:
    """On a machine without one the CPU runtimes are taken."""
    found = has_gpu(backend)

    assert isinstance(found, bool)
    if not list(Path("/dev").glob("nvidia*")) and not Path("/dev/kfd").exists():
        assert not found


_PRECISION = """
import sys
if sys.argv[1] == "late":
    import jax
from mnv2tl.backend import training_precision, use_backend
use_backend("jax")
import jax
print(jax.config.jax_default_matmul_precision)
with training_precision("jax"):
    print(jax.config.jax_default_matmul_precision)
print(jax.config.jax_default_matmul_precision)
"""


@pytest.mark.skipif("jax" not in INSTALLED, reason="needs JAX")
@pytest.mark.parametrize(
    ("when", "set_by_user", "expected"),
    [("early", None, "highest"), ("late", None, "highest"), ("early", "bfloat16", "bfloat16")],
)
def test_use_backend_makes_jax_compute_in_full(
    when: str, set_by_user: str | None, expected: str
) -> None:
    """A graphics card would round to 10 bits, and no exported file answers so; steps may.

    What the user chose stays everywhere.
    """
    variables = os.environ | {"JAX_PLATFORMS": "cpu"}
    variables.pop("JAX_DEFAULT_MATMUL_PRECISION", None)
    if set_by_user:
        variables["JAX_DEFAULT_MATMUL_PRECISION"] = set_by_user

    done = subprocess.run(
        [sys.executable, "-c", _PRECISION, when],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
    )

    steps = "default" if set_by_user is None else set_by_user
    assert done.stdout.split() == [expected, steps, expected], done.stderr


@pytest.mark.skipif("tensorflow" not in INSTALLED, reason="needs TensorFlow")
@pytest.mark.parametrize("before", ["", "import tensorflow"])
def test_use_backend_makes_tensorflow_compute_in_full(before: str) -> None:
    """The same, for which TensorFlow has one switch; it may be imported already."""
    code = f"""
{before}
from mnv2tl.backend import use_backend
use_backend("tensorflow")
import tensorflow
print(tensorflow.config.experimental.tensor_float_32_execution_enabled())
"""

    variables = os.environ | {"KERAS_BACKEND": "tensorflow"}  # TensorFlow imports Keras

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True
    )

    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.skipif("jax" not in INSTALLED, reason="needs JAX")
def test_has_gpu_takes_the_name_of_a_device() -> None:
    """JAX takes one from the environment."""
    code = "from mnv2tl.backend import has_gpu; print(has_gpu('jax'))"
    variables = os.environ | {"JAX_DEFAULT_DEVICE": "cpu"}

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True
    )

    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", INSTALLED)
def test_use_backend_imports_no_more_than_is_used(name: str) -> None:
    """Keras takes matplotlib, and TensorFlow takes JAX, where they are installed.

    They can be imported afterwards.
    """
    code = f"""
import importlib.util, sys
from mnv2tl.backend import use_backend
use_backend("{name}")
others = ["matplotlib"] + ["jax"] * ("{name}" == "tensorflow")
print([each for each in others if each in sys.modules])
for each in others:
    if importlib.util.find_spec(each):
        importlib.import_module(each)
print(sys.modules["keras"].backend.backend())
"""

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.stdout.split() == ["[]", name], done.stderr


@pytest.mark.parametrize("name", INSTALLED)
def test_a_command_imports_nothing_for_data_of_others(name: str, tmp_path: Path) -> None:
    """Keras takes pandas, scikit-learn and IPython where they are installed; they stay usable."""
    others = ["IPython", "pandas", "sklearn"] + ["scipy"] * (name == "tensorflow")
    for each in others:
        (tmp_path / each).mkdir()
        (tmp_path / each / "__init__.py").write_text(f"print({each!r})\n")
    code = f"""
import importlib
import mnv2tl
from mnv2tl.backend import use_backend
mnv2tl.is_command = True
use_backend({name!r})
print("in use")
for each in {others}:
    importlib.import_module(each)
"""
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True
    )

    assert done.stdout.splitlines() == ["in use", *others], done.stderr


def test_without_a_graphics_card_nothing_is_moved(backend: str) -> None:
    """Blocks for the processor and for training run as everything else does."""
    if has_gpu(backend):
        pytest.skip("there is one")

    with on_processor(backend), training_precision(backend):
        assert not has_gpu(backend)
        if backend == "jax":
            import jax

            assert jax.config.jax_default_device is None


def test_list_versions_names_what_is_installed_only() -> None:
    """`run.json` says what made it."""
    versions = list_versions()

    assert versions["python"] == sys.version.split()[0]
    assert versions["numpy"] == importlib.metadata.version("numpy")
    assert not set(MISSING) & versions.keys()
    assert all(versions.values())


_TWO_AT_ONCE = """
import sys, threading
from mnv2tl.backend import imported_backend, use_backend
assert imported_backend() is None
threads = [threading.Thread(target=use_backend, args=sys.argv[1:]) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(imported_backend())
"""


@pytest.mark.parametrize("name", INSTALLED)
def test_two_threads_may_use_a_backend_at_once(name: str) -> None:
    """Each training asks for it, and the second one waits for the first."""
    words = [sys.executable, "-c", _TWO_AT_ONCE, name]

    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)

    assert (done.stdout.split(), done.stderr) == ([name], "")


@pytest.mark.parametrize("name", INSTALLED)
def test_a_log_that_nobody_reads_does_not_stop_a_backend(name: str) -> None:
    """What could not be told before lies in Python's buffer, and cannot be told later either."""
    script = """
import sys
from mnv2tl import progress
from mnv2tl.backend import imported_backend, use_backend
sys.stdin.readline()
progress.say("a line")
use_backend(sys.argv[1])
print(imported_backend())
"""
    assert run_unread(script, name) == (0, f"{name}\n".encode())
