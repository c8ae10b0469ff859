"""The locks in requirements/: what CI installs, each file by its hash."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

requirements = pytest.importorskip("packaging.requirements")

ROOT = Path(__file__).resolve().parent.parent
LOCKS = sorted(ROOT.glob("requirements/*.txt"))
_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[\w.+!]+)(?P<marker> ; .+?)? \\$", re.MULTILINE)
_HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def _wanted() -> dict[str, Any]:
    """Return what noxfile.py says that each lock holds."""
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    values = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    wanted: dict[str, Any] = ast.literal_eval(values["LOCKS"])
    return wanted


def _requirements_of(extras: tuple[str, ...]) -> list[Any]:
    """Return what the project needs with these extras, its own extras resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found, todo = [], [*project["dependencies"]]
    waiting = list(extras)
    while waiting or todo:
        if not todo:
            todo = list(project["optional-dependencies"][waiting.pop()])
            continue
        each = requirements.Requirement(todo.pop())
        if each.name == "mnv2tl":
            waiting += each.extras
        else:
            found.append(each)
    return found


def test_there_is_a_lock_for_every_session_that_takes_one() -> None:
    """And no file that nothing installs."""
    assert [path.stem for path in LOCKS] == sorted(_wanted())


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_versions_and_hashes_only(path: Path) -> None:
    """No address of an index stands in it, so any index with the same files will do."""
    lines = path.read_text("ascii").splitlines()

    others = [each for each in lines if not (_HASH.match(each) or each.startswith("#"))]

    assert all(_PIN.match(f"{each}\n") for each in others)
    assert not any("://" in each or "index" in each for each in lines)


@pytest.mark.parametrize("name", sorted(_wanted()))
def test_a_lock_fits_the_project(name: str) -> None:
    """After a change of pyproject.toml: `nox -s lock` writes it anew."""
    extras, more = _wanted()[name]
    text = (ROOT / "requirements" / f"{name}.txt").read_text("ascii")
    locked: dict[str, list[str]] = {}
    for match in _PIN.finditer(text):
        locked.setdefault(match["name"].lower(), []).append(match["version"])
    wanted = _requirements_of(extras) if extras else []
    wanted += [requirements.Requirement(each) for each in more]

    lacking = [
        str(each)
        for each in wanted
        if not any(each.specifier.contains(v) for v in locked.get(each.name.lower(), ()))
    ]

    assert lacking == []
