"""Ask the index of images about files as a scan does: all of a folder at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mnv2tl.data.index_part import pack_status
from mnv2tl.data.packed import Texts
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
