"""The JSON of a mapping in pieces, for lists too long to be a text at once.

As one text the manifest of 100,000 images takes 200 MB more than the images themselves.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Rows:
    """A value of a mapping: a list that is made item by item, each time that it is written."""

    make: Callable[[], Iterable[Any]]
    """Returns the items."""


def iter_json(value: Mapping[str, Any], *, indent: int | None = None) -> Iterator[str]:
    """Yield the pieces of what `json.dumps(value, sort_keys=True)` gives.

    Args:
        value: Some of its values may be `Rows`.
        indent: As for `json.dumps`.

    Raises:
        ValueError: A number is not finite.

    Example:
        >>> from mnv2tl.json_rows import Rows, iter_json
        >>> "".join(iter_json({"b": Rows(lambda: range(3)), "a": None}))
        '{"a": null, "b": [0, 1, 2]}'
    """
    dump = functools.partial(json.dumps, indent=indent, sort_keys=True, allow_nan=False)
    # A text holds no line break of its own, so each one is followed by an indentation.
    line = "" if indent is None else "\n" + " " * indent
    before = "{" + line
    for key in sorted(value):
        yield f"{before}{dump(key)}: "
        each = value[key]
        if isinstance(each, Rows):
            yield from _iter_rows(each, lambda rows: dump(rows).replace("\n", line), line)
        else:
            yield dump(each).replace("\n", line)
        before = "," + (line or " ")
    yield "{}" if not value else line[:1] + "}"


def _iter_rows(rows: Rows, dump: Callable[[list[Any]], str], line: str) -> Iterator[str]:
    values = iter(rows.make())
    before = "["
    while part := list(itertools.islice(values, _AT_ONCE)):
        yield before + dump(part)[1:-1].rstrip()
        before = "," if line else ", "
    yield "[]" if before == "[" else line + "]"
