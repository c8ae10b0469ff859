from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.corpus import try_files, unpack


def _png(seed: int) -> bytes:
    levels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    return buffer.getvalue()


def test_test_images_of_an_archive_are_counted_by_what_becomes_of_them(tmp_path: Path) -> None:
    """Two folders may hold one name, links and other files are left, and no name leads outside."""
    archive = tmp_path / "pillow.tar.gz"
    members = {
        "p/Tests/images/a.png": _png(1),
        "p/Tests/images/deep/a.png": _png(2),
        "p/Tests/images/cut.png": _png(3)[:-400],
        "p/Tests/images/../../../x.txt": b"text",
        "p/src/b.png": _png(4),
    }
    with tarfile.open(archive, "w:gz") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("p/Tests/images/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)

    files = unpack(archive, tmp_path / "images")
    figures = try_files(files)

    names = ["0000-a.png", "0001-a.png", "0002-cut.png", "0003-x.txt"]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == names
    assert (figures["files"], figures["decoded"]) == (4, 2)
    assert figures["refused"] == {"not-an-image": 1, "truncated": 1}
    assert (figures["crashes"], figures["hangs"], figures["other_exceptions"]) == (0, 0, [])
    assert 0 < figures["peak_mb"] < figures["limit_mb"]
