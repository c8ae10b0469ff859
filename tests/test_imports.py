"""What the modules import and call; read from their source, or seen in a fresh interpreter."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [*ROOT.glob("mnv2tl/**/*.py"), *ROOT.glob("export/mnv2tl_export/**/*.py")]
SCRIPTS = [*ROOT.glob("benchmarks/**/*.py"), ROOT / "noxfile.py"]
TESTS = sorted(ROOT.glob("tests/**/*.py"))
TREES = {
    path: ast.parse(path.read_text("utf-8"), path)
    for path in sorted([*PACKAGES, *SCRIPTS, *TESTS])
    if path.is_file()
}

NETWORK = {"aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "ssl", "urllib"}
UNSAFE = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}

_PROBE = """
import json, sys
before = set(sys.modules)
{code}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(new - sys.stdlib_module_names)), file=sys.stderr)
"""
_HELP = """
from mnv2tl.cli import main
try:
    main(["--help"])
except SystemExit as end:
    if end.code:
        raise
"""


def _imported_by(code: str, **variables: str) -> set[str]:
    """Return the packages outside the standard library that a fresh interpreter imports."""
    result = subprocess.run(
        [sys.executable, "-c", _PROBE.format(code=code)],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        pytest.fail(result.stderr)
    return set(json.loads(result.stderr.splitlines()[-1]))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of everything that is imported, but for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node)


def _importers(names: set[str], paths: list[Path]) -> list[str]:
    """Return those of the files that import one of the packages anywhere."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in paths
        for name in _imports(TREES[path])
        if name.partition(".")[0] in names
    }
    return sorted(found)


def _lines_with(kind: type[ast.AST], paths: list[Path]) -> Iterator[tuple[str, ast.AST]]:
    for path in paths:
        for node in ast.walk(TREES[path]):
            if isinstance(node, kind):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_help_imports_click_and_nothing_else() -> None:
    """`mnv2tl --help` must not wait for NumPy, Pillow, rich, Keras or a backend."""
    imported = _imported_by(_HELP)

    assert imported == {"click", "mnv2tl"}


def test_settings_are_light_to_import() -> None:
    """The command line reads its defaults from the settings, so these bring NumPy at the most."""
    pytest.importorskip("PIL")

    imported = _imported_by("import mnv2tl.config")

    assert imported <= {"mnv2tl", "numpy", "PIL", "defusedxml"}


def test_a_training_imports_keras_no_sooner_than_it_needs_it(tmp_path: Path) -> None:
    """A folder that cannot be used is told of at once; and the import goes beside other work."""
    pytest.importorskip("keras")
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    code = f"""
from mnv2tl.cli import main
try:
    main(["train", {str(data)!r}, "--out", {str(out)!r}, "--weights", "none"])
except SystemExit as end:
    if end.code != 3:
        raise
else:
    raise AssertionError("it was taken")
"""

    imported = _imported_by(code, MNV2TL_CACHE=str(tmp_path / "cache"))

    assert "numpy" in imported
    assert not imported & {"jax", "keras", "matplotlib", "onnxruntime", "tensorflow"}


@pytest.mark.parametrize(
    "command", ["audit", "cache", "compare", "evaluate", "samples", "train", "weights"]
)
def test_help_of_a_command_imports_no_framework(command: str) -> None:
    """Only a command that runs imports what it runs."""
    code = _HELP.replace('"--help"', f'"{command}", "--help"')

    imported = _imported_by(code)

    heavy = {"jax", "keras", "matplotlib", "onnx", "onnxruntime", "openvino", "tensorflow"}
    assert not imported & heavy


def test_doctor_imports_nothing_that_is_heavy() -> None:
    """It must run where most is missing, and at once."""
    imported = _imported_by(_HELP.replace('"--help"', '"doctor"').replace("if end.code:", "if 0:"))

    assert imported <= {"click", "defusedxml", "mnv2tl", "numpy", "PIL", "platformdirs"}


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
def test_training_on_jax_imports_no_tensorflow(tiny_folder: Path) -> None:
    """TensorFlow takes 10 s and hundreds of megabytes where it is installed beside JAX."""
    words = ["train", str(tiny_folder), "--out", str(tiny_folder.parent / "run"), "--quiet"]
    words += ["--weights", "none", "--image-px", "96", "--alpha", "0.35", "--epochs", "1"]
    code = _HELP.replace('["--help"]', repr(words))

    imported = _imported_by(code, KERAS_BACKEND="jax")

    assert {"jax", "keras", "h5py"} <= imported
    assert "tensorflow" not in imported


def test_nothing_unpickles() -> None:
    """A pickle runs code when it is read, so no module of ours imports one."""
    importers = _importers(UNSAFE, PACKAGES)

    assert importers == []


def test_only_fetch_reaches_the_network() -> None:
    """Everything that opens a connection lies in one module, whose callers are named `fetch`."""
    importers = _importers(NETWORK, PACKAGES)

    assert importers == ["mnv2tl/fetch.py"]


def test_nothing_evaluates_text_as_code() -> None:
    """Neither `eval` nor `exec` is called."""
    calls = [
        where
        for where, node in _lines_with(ast.Call, list(TREES))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("eval", "exec")
    ]

    assert calls == []


def test_assert_is_for_tests_only() -> None:
    """`python -O` drops asserts, so the code that ships raises errors instead."""
    paths = [path for path in TREES if path not in TESTS]

    found = [where for where, _ in _lines_with(ast.Assert, paths)]

    assert found == []


def test_packages_import_one_way() -> None:
    """Benchmarks may import mnv2tl_export, which may import mnv2tl, and never the other way."""
    core = [path for path in PACKAGES if ROOT / "mnv2tl" in path.parents]
    export = [path for path in PACKAGES if path not in core]

    assert _importers({"mnv2tl_export", "benchmarks", "tests", "noxfile"}, core) == []
    assert _importers({"benchmarks", "tests", "noxfile"}, export) == []


def test_modules_form_no_import_cycle() -> None:
    """A module can be read without those that import it; late imports count too."""
    paths = {_module_name(path): path for path in PACKAGES}
    graph = {
        name: {_module_of(imported, set(paths)) for imported in _imports(TREES[path])} - {None}
        for name, path in paths.items()
    }

    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def _module_name(path: Path) -> str:
    root = ROOT / "export" if ROOT / "export" in path.parents else ROOT
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _module_of(imported: str, modules: set[str]) -> str | None:
    """Return the module of ours that an import names: itself, or where the name is defined."""
    return next((each for each in (imported, imported.rpartition(".")[0]) if each in modules), None)


def test_every_module_has_a_docstring() -> None:
    """It says what the file owns and why it exists."""
    modules = [path for path in TREES if path not in TESTS]

    without = [str(path.relative_to(ROOT)) for path in modules if not _has_text(TREES[path])]

    assert without == []


def test_every_test_has_a_docstring() -> None:
    """One sentence says which behaviour it holds."""
    without = [
        f"{where} {node.name}"
        for where, node in _lines_with(ast.FunctionDef, TESTS)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and not _has_text(node)
    ]

    assert without == []


def _has_text(node: ast.Module | ast.FunctionDef) -> bool:
    return bool((ast.get_docstring(node) or "").strip())
