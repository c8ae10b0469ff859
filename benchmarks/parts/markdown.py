"""Tables in Markdown, and the line below them that says where figures come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown.

    >>> print(markdown(("a", "b"), [("1", "2")]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [head, *rows]
    text = [f"| {' | '.join(line)} |" for line in lines]
    text.insert(1, "|" + "---|" * len(head))
    return "\n".join(text)


def origin(result: dict[str, Any], *more: str) -> str:
    """Return date, machine and the versions that matter.

    Args:
        result: The content of a result file.
        more: Further packages to name, where they were installed.
    """
    machine, versions = result["machine"], result["versions"]
    names = ("keras", "jax", "tensorflow-cpu", "tensorflow", "openvino", "onnxruntime", *more)
    listed = ", ".join(
        f"{name} {versions[name]}" for name in dict.fromkeys(names) if name in versions
    )
    return (
        f"{result['date']}, {machine['cores']} cores of {machine['processor']}, "
        f"Python {versions['python']}, {listed}."
    )


def with_all_versions(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the first of several results with the versions of all.

    >>> with_all_versions([{"versions": {"jax": "1"}}, {"versions": {"tensorflow": "2"}}])
    {'versions': {'jax': '1', 'tensorflow': '2'}}
    """
    versions: dict[str, str] = {}
    for result in found:
        versions |= result["versions"]
    return {**found[0], "versions": versions}
