"""Fill the Markdown templates beside this module; texts of others are escaped on their way in.

`@@{name}` in a template is filled in; what lies between `<!-- if name -->` and `<!-- end -->` stays
only where that part is asked for.
"""

from __future__ import annotations

import importlib.resources
import re
import string
from collections.abc import Mapping, Sequence

from mnv2tl.text import printable

_PART = re.compile(r"<!-- if (\w+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
# All ASCII punctuation may be escaped (CommonMark 0.31, 2.4); these characters never mean anything.
_MARKDOWN = re.compile(r"(?![-,'()/+=;%])([!-/:-@\[-`{-~])")


class _Template(string.Template):
    """Leaves `$`, `@` and braces to the programs."""

    delimiter = "@@"


def fill(name: str, *, parts: Mapping[str, bool], values: Mapping[str, object]) -> str:
    """Return a template of this package with its places filled.

    Args:
        name: File name of the template.
        parts: Which of its parts stay.
        values: Text of each place.
    """
    text = importlib.resources.files("mnv2tl_export").joinpath(name).read_text("utf-8")
    text = _PART.sub(lambda part: part[2] if parts[part[1]] else "", text)
    return _Template(text).substitute(values)


def escape_markdown(text: str) -> str:
    r"""Return Markdown that shows a text as it is, in one line; what cannot be seen as an escape.

    It must not begin a line: `- x` would become a list there.

    >>> escape_markdown("a|b\n<i>")
    'a\\|b\\\\n\\<i\\>'
    """
    return _MARKDOWN.sub(r"\\\1", printable(text))


def make_row(*cells: str) -> str:
    """Return one line of a table, of cells that are Markdown already."""
    return f"| {' | '.join(cells)} |"


def show_share(share: float, interval: Sequence[float]) -> str:
    """Return a share with its 95 % interval in words, both from 0 to 1."""
    low, high = interval
    return f"{100 * share:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
