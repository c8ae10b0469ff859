"""Make text of any origin fit to be shown."""

from __future__ import annotations

from pathlib import PurePath

_ELLIPSIS = "…"


def printable(text: str) -> str:
    r"""Escape control characters, marks of writing direction and bytes that are not UTF-8.

    >>> print(printable("café\n\u202egpj\udcff"))
    café\n\u202egpj\udcff
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def shorten(text: str, limit: int) -> str:
    """Return text of at most `limit` characters; the middle of a longer one is left out.

    >>> shorten("photographs/cats/0001.jpg", 15)
    'photogr…001.jpg'
    """
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return text[: limit - 1 - tail] + _ELLIPSIS + text[len(text) - tail :]


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count_of(1, "pair"), count_of(1200, "pair")
    ('1 pair', '1,200 pairs')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(share: float | None) -> str:
    """Return a share as a percentage with one digit; a dash for None.

    >>> percent(0.858), percent(None)
    ('85.8 %', '-')
    """
    return "-" if share is None else f"{100 * share:.1f} %"


def megabytes(count: int) -> str:
    """Return a number of bytes in a unit that suits it.

    >>> megabytes(9_665_640), megabytes(9_665), megabytes(96)
    ('9.7 MB', '9.7 kB', '96 bytes')
    """
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def figure(value: object) -> str:
    """Return a number with three digits; what is no number, such as "nan", as it is.

    >>> figure(0.0000123), figure("nan")
    ('1.23e-05', 'nan')
    """
    return f"{value:.3g}" if isinstance(value, (int, float)) else str(value)


def name_of(path: PurePath) -> str:
    """Return the last part of a path: where a folder lies is nothing that a report tells."""
    return path.name or str(path)
