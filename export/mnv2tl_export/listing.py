"""Print answers as lines for people, as JSON or as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator

from mnv2tl.errors import show
from mnv2tl_export.predict import Answer

Listing = Callable[[Answer], Iterator[str]]

# A spreadsheet takes such a cell for a formula: OWASP ASVS 5.0, 1.2.10.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\0")


def open_listing(form: str, *, top: int) -> Listing:
    """Return a function from an answer to the lines that are printed for it.

    Args:
        form: text, json or csv.
        top: How many classes an answer names.
    """
    if form == "json":
        return _list_json
    return _CsvListing(top) if form == "csv" else _list_text


def _list_json(answer: Answer) -> Iterator[str]:
    yield json.dumps(answer.to_json(), allow_nan=False)


def _list_text(answer: Answer) -> Iterator[str]:
    if answer.error is None:
        label = "rejected" if answer.label is None else _escape(answer.label)
        others = ", ".join(f"{_escape(name)} {share:.4f}" for name, share in answer.top)
        yield f"{show(answer.path)}\t{label}\t{others}"


def _escape(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]


class _CsvListing:
    """Writes a header before the first row."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.is_first = True

    def __call__(self, answer: Answer) -> Iterator[str]:
        """Yield the lines of one answer."""
        if self.is_first:
            self.is_first = False
            numbers = range(1, self.top + 1)
            names = [f"{kind}_{n}" for n in numbers for kind in ("class_name", "probability")]
            yield _row(["path", "label", "probability", *names, "error"])
        pairs: list[object] = [each for pair in answer.top for each in pair]
        pairs += [""] * (2 * self.top - len(pairs))
        error = "" if answer.error is None else answer.error.message
        yield _row([os.fspath(answer.path), answer.label, answer.probability, *pairs, error])


def _row(cells: list[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([_cell(each) for each in cells])
    return text.getvalue()


def _cell(value: object) -> str:
    """Return the text of a cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "'" + text if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text
