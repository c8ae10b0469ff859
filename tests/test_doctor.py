from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mnv2tl import doctor, doctor_packages
from mnv2tl.cli import main
from mnv2tl.doctor_packages import Package, judge_packages, list_packages

_REQUIRES = [
    "click>=8.4",
    'mnv2tl[deploy]; extra == "train"',
    'onnxruntime>=1.24; extra == "deploy"',
    'keras>=3.15.1; extra == "train"',
    "tensorflow-cpu>=2.20; (sys_platform == 'linux') and extra == 'tensorflow'",
    "tensorflow>=2.20; (sys_platform != 'linux') and extra == 'tensorflow'",
    'jinja2>=3.1.6; extra == "report"',
    'mlflow-skinny>=3.17; extra == "mlflow"',
    'wandb; extra == "wandb"',
    'nox[uv]>=2025.5.1; extra == "dev"',
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return package -> version of what is to count as installed; change it as you like."""
    versions: dict[str, str] = {}

    def find(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", find)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: _REQUIRES)
    return versions


def _call(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words])


def _messages(found: dict[str, Any], level: str) -> list[str]:
    return [each["message"] for each in found["problems"] if each["level"] == level]


def test_packages_are_listed_with_extra_version_and_lower_bound(installed: dict[str, str]) -> None:
    """Each once, under any of its names, and none that is for the project's own work."""
    installed |= {"click": "8.5.1", "tensorflow-cpu": "2.21.0", "mlflow": "3.18.0"}

    found = {each.name: each for each in list_packages()}

    assert list(found) == [
        *("click", "onnxruntime", "keras", "tensorflow", "jinja2", "mlflow-skinny", "wandb")
    ]
    assert found["click"] == Package(name="click", extra=None, least="8.4", version="8.5.1")
    assert (found["tensorflow"].version, found["mlflow-skinny"].version) == ("2.21.0", "3.18.0")
    assert (found["wandb"].extra, found["wandb"].least, found["wandb"].version) == (
        *("wandb", "", None),
    )


@pytest.mark.parametrize(
    ("version", "least", "expected"),
    [
        ("2.9", "2.10", True),
        ("2.10.0", "2.10", False),
        ("2.10", "2.10.0", False),
        ("0.10.2.dev3+cpu", "0.10.2", False),
        ("3.15.0", "3.15.1", True),
        (None, "1.0", False),
        ("1.0", "", False),
    ],
)
def test_a_version_below_the_bound_is_old(version: str | None, least: str, expected: bool) -> None:
    """Numbers are compared as numbers."""
    package = Package(name="x", extra=None, least=least, version=version)

    assert package.is_old is expected


def test_every_problem_says_what_to_do(installed: dict[str, str]) -> None:
    """Missing, old, and two packages in one place."""
    installed |= {"keras": "3.14.0", "tensorflow": "2.21.0", "tensorflow-cpu": "2.21.0"}
    installed |= {"jax": "0.10.1", "jaxlib": "0.10.2"}

    problems = list(judge_packages(list_packages()))

    assert [(each.level, each.message) for each in problems] == [
        ("error", "onnxruntime is not installed"),
        ("warning", "keras 3.14.0 is older than 3.15.1"),
        ("hint", "jinja2 is not installed"),
        (
            "warning",
            "tensorflow and tensorflow-cpu are both installed and overwrite each other's files",
        ),
        ("error", "jaxlib 0.10.2 is newer than jax 0.10.1"),
    ]
    assert all(each.fix for each in problems)
    assert problems[1].fix == "pip install 'keras>=3.15.1'"


def test_a_checkout_that_is_not_installed_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bounds are not known then; the rest is looked at all the same."""

    def refuse(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", refuse)

    assert list_packages() == []
    assert next(judge_packages([])).level == "hint"


def test_json_holds_the_promised_keys(backend: str) -> None:
    """One line of stdout that other tools read; exit 0, since these tests can train."""
    result = _call("--json", "--quiet")

    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert value.keys() == {
        *("mnv2tl", "python", "platform", "cores", "memory", "packages", "backends", "backend"),
        *("trunk_runtimes", "devices", "caches", "folders", "problems", "can_train"),
    }
    assert (value["can_train"], value["backend"], value["devices"]) == (True, backend, None)
    assert {"weights", "features", "index"} == value["caches"].keys()
    assert all(folder["free_bytes"] > 0 for folder in value["folders"])
    assert value["memory"]["bytes"] > 10**8


def test_a_person_reads_what_is_used_and_what_to_do(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions, the backend, the place of caches, and that no base weights are there."""
    monkeypatch.setenv("MNV2TL_CACHE", str(tmp_path))

    result = _call("--quiet")

    assert result.exit_code == 0, result.output
    for words in (
        f"backend: {backend}; installed: ",
        "frozen layers: ",
        "base weights: 0 files in ",
        "hint: the default base weights, imagenet, are not in ",
        "Fix: mnv2tl weights fetch imagenet; or train with",
        "training is possible\n",
    ):
        assert words in result.stdout
    assert result.stderr == ""


def test_what_is_missing_together_is_told_together(installed: dict[str, str]) -> None:
    """One line, whatever an empty environment lacks."""
    first = next(judge_packages(list_packages()))

    assert (first.level, first.message) == ("error", "onnxruntime, keras are not installed")


def test_without_a_backend_training_is_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 5; the line on stderr and the JSON say what to install."""
    real = importlib.util.find_spec
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *_: None if name in ("jax", "tensorflow") else real(name),
    )

    result = _call("--json")

    assert result.exit_code == 5
    value = json.loads(result.stdout)
    assert "jax or tensorflow is not installed" in _messages(value, "error")
    assert not value["can_train"]
    assert "error[E508 package-missing] training is not possible here: " in result.stderr
    assert "Fix: install the extra jax" in result.stderr


def test_an_unknown_backend_in_the_environment_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keras knows more backends than this project."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")

    result = _call()

    assert result.exit_code == 5
    assert "KERAS_BACKEND: backend must be one of ('jax', 'tensorflow'), got 'torch'" in (
        result.stderr
    )
    assert "unset KERAS_BACKEND" in result.stdout


def test_little_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not make training impossible, but it will end it."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**8))

    found = doctor.examine()

    told = [each for each in _messages(found, "warning") if "0.1 GB are free for " in each]
    assert len(told) == len(found["folders"])


def test_a_file_system_without_locks_or_flushes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good one has no trouble; one whose locks do nothing, or that cannot flush, has."""
    fcntl = pytest.importorskip("fcntl")
    assert doctor._try_file(tmp_path) is None

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda file, operation: None)
        assert doctor._try_file(tmp_path) == (
            "locks are not kept: two processes could write one run"
        )

    def refuse(descriptor: int) -> None:
        raise OSError(22, os.strerror(22))

    monkeypatch.setattr(os, "fsync", refuse)
    trouble = doctor._try_file(tmp_path)
    assert trouble == "files cannot be flushed to the disk: Invalid argument"
    assert list(tmp_path.iterdir()) == []


def test_the_kind_of_a_file_system_is_known_on_linux() -> None:
    """/proc is always a file system of its own."""
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("not Linux")

    assert doctor._file_system(Path("/proc")) == "proc"


def test_devices_are_asked_in_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers is listed; what breaks on import is a problem with its last words."""
    probes = {"json": "names = ['one', 'two']", "csv": "raise ImportError('no such library')"}
    monkeypatch.setattr(doctor, "_PROBES", probes)

    found = doctor.examine(with_devices=True)

    assert found["devices"] == {"json": ["one", "two"]}
    assert "csv cannot be imported: ImportError: no such library" in _messages(found, "warning")


def test_the_doctor_knows_every_extra_of_the_project() -> None:
    """Each package that an extra brings is listed, if mnv2tl is installed at all."""
    packages = list_packages()
    if not packages:
        pytest.skip("mnv2tl is not installed")

    extras = {each.extra for each in packages}

    assert {None, "deploy", "train", "jax", "tensorflow", "report"} <= extras
    assert not extras & doctor_packages._LEFT_OUT
