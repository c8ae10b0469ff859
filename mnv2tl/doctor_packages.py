"""Which packages are installed, from their metadata alone: nothing is imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mnv2tl.errors import install_extra

PROJECT = "mnv2tl"

# For who works on the project.
_LEFT_OUT = {"dev", "notebook", "test"}
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]*\])?\s*\(?(?:>=([\d.]+))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")
# Two names of one thing: either will do, and both of them overwrite each other's files.
_TWINS = {
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "mlflow-skinny": ("mlflow-skinny", "mlflow"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package that mnv2tl uses."""

    name: str
    """As the package index has it."""
    extra: str | None
    """What brings it; None for what mnv2tl cannot be without."""
    least: str
    """Oldest version that is tested; empty for any."""
    version: str | None
    """Version that is installed."""

    @property
    def is_old(self) -> bool:
        """Whether it is older than what is tested."""
        return bool(self.version and self.least) and _key(self.version or "") < _key(self.least)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong, or missing."""

    level: str
    """error: training is not possible. warning: something is wrong. hint: something is missing."""
    message: str
    """What it is."""
    fix: str
    """What to do about it."""


def list_packages() -> list[Package]:
    """Return the packages that mnv2tl names, by extra; none if it is not installed itself."""
    try:
        lines = importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found: dict[str, Package] = {}
    for line in lines:
        match, extra = _REQUIREMENT.match(line), _EXTRA.search(line)
        if match is None or match[1] == PROJECT or (extra and extra[1] in _LEFT_OUT):
            continue
        name = next((one for one, twins in _TWINS.items() if match[1] in twins), match[1])
        found.setdefault(
            name.lower(),
            Package(
                name=name,
                extra=extra[1] if extra else None,
                least=match[2] or "",
                version=find_version(name),
            ),
        )
    return list(found.values())


def find_version(name: str) -> str | None:
    """Return the version of an installed package, under any of its names."""
    for each in _TWINS.get(name, (name,)):
        try:
            return importlib.metadata.version(each)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def judge_packages(packages: list[Package]) -> Iterator[Problem]:
    """Yield what is wrong with the packages, or missing."""
    if not packages:
        yield Problem(
            level="hint",
            message="mnv2tl is not installed, so the versions that it needs are not known",
            fix="install it, in a clone: pip install '.[jax]'",
        )
    needed = [each for each in packages if each.extra in ("train", "deploy")]
    if missing := [each.name for each in needed if not each.version]:
        yield _miss(missing, level="error", extra="jax")
    for package in packages:
        if package.is_old:
            message = f"{package.name} {package.version} is older than {package.least}"
            fix = f"pip install '{package.name}>={package.least}'"
            yield Problem(level="warning", message=message, fix=fix)
    if missing := [each.name for each in packages if each.extra == "report" and not each.version]:
        yield _miss(missing, level="hint", extra="report")
    yield from _judge_combinations()


def _miss(names: list[str], *, level: str, extra: str) -> Problem:
    verb = "is" if len(names) == 1 else "are"
    message = f"{', '.join(names)} {verb} not installed"
    return Problem(level=level, message=message, fix=install_extra(extra))


def _judge_combinations() -> Iterator[Problem]:
    for twins in (_TWINS["tensorflow"], _TWINS["onnxruntime"]):
        if all(_is_installed(name) for name in twins):
            message = f"{' and '.join(twins)} are both installed and overwrite each other's files"
            fix = f"pip uninstall {' '.join(twins)}, then install one of them"
            yield Problem(level="warning", message=message, fix=fix)
    jax, jaxlib = find_version("jax"), find_version("jaxlib")
    if jax and jaxlib and _key(jaxlib) > _key(jax):
        message = f"jaxlib {jaxlib} is newer than jax {jax}"
        yield Problem(level="error", message=message, fix="pip install --upgrade jax jaxlib")
    if importlib.util.find_spec("jax") is not None and jaxlib is None:
        message = "jax is installed without jaxlib"
        yield Problem(level="error", message=message, fix=install_extra("jax"))


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _key(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to compare.

    >>> _key("0.10.2.dev3+cpu") > _key("0.9")
    True
    """
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(each) for each in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
