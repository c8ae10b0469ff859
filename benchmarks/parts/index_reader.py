"""Ask the index of images about files, and tell it of them, as a scan does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mnv2tl.data.index_part import Part, pack_status
from mnv2tl.data.packed import Texts
from mnv2tl.data.records import Columns
from mnv2tl.data.stat_index import Record, StatIndex


def read_index(
    index: StatIndex, files: Sequence[Path], stats: Sequence[os.stat_result] | None = None
) -> list[Record | None]:
    """Return what an index knows of the files of one folder, None for what must be read.

    Args:
        index: It has loaded the folder.
        files: In any order.
        stats: Of the files; None for those of now.
    """
    rows = sorted(range(len(files)), key=lambda row: files[row].name)
    stats = [file.stat() for file in files] if stats is None else stats
    columns, unknown = index.match(
        os.fspath(files[0].parent),
        Texts(files[row].name for row in rows),
        b"".join(pack_status(stats[row]) for row in rows),
    )
    found: list[Record | None] = [None] * len(files)
    for place, row in enumerate(rows):
        found[row] = None if place in unknown else columns[place]
    return found


def tell_index(index: StatIndex, file: Path, status: os.stat_result, record: Record) -> None:
    """Let an index keep the record of a file."""
    columns = Columns.make_blank(0)
    columns.append(record)
    part = Part(names=Texts([file.name]), stats=pack_status(status), columns=columns)
    index.add(os.fspath(file.parent), part)
