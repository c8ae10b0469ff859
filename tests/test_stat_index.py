from __future__ import annotations

import io
import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.parts.index_reader import read_index, tell_index
from mnv2tl.data import stat_index
from mnv2tl.data.index_part import unpack
from mnv2tl.data.scan import ScanConfig, inspect
from mnv2tl.data.stat_index import INDEX_NAME, Record, StatIndex

# The index does not trust times that are younger than a tick of the clock; see its module.
TICK_SECONDS = 0.15


def image_bytes(seed: int) -> bytes:
    """Return a PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of three images and a text file, written a moment ago."""
    for label, name in enumerate(("cats", "dogs")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            path = tmp_path / "data" / name / f"{number}.png"
            path.write_bytes(image_bytes(10 * label + number))
    (tmp_path / "data" / "cats" / "notes.txt").write_text("notes")
    time.sleep(TICK_SECONDS)
    return tmp_path / "data"


@pytest.fixture
def config(tmp_path: Path) -> ScanConfig:
    """Settings with an index beside the data."""
    return ScanConfig(index=tmp_path / "cache" / INDEX_NAME)


def index_of(config: ScanConfig) -> Path:
    """Return the path that the fixture chose."""
    if config.index is None:
        raise ValueError("the fixture sets an index")
    return config.index


def test_unchanged_files_are_not_read_again(root: Path, config: ScanConfig) -> None:
    """The second scan opens none, and finds the same."""
    first = inspect(root, config)
    second = inspect(root, config)

    assert (first.files, first.files_read) == (7, 7)
    assert (second.files, second.files_read) == (7, 0)
    assert second.manifest == first.manifest


def test_known_files_are_not_even_opened(root: Path, config: ScanConfig) -> None:
    """By Python's own report the second scan opens no image, and starts no process that could."""
    script = """
import sys
from pathlib import Path
from mnv2tl.data import stat_index
from mnv2tl.data.index_part import unpack
from mnv2tl.data.scan import ScanConfig, scan
events = []
sys.addaudithook(lambda event, values: events.append((event, str(values[:1]))))
for _ in range(2):
    scan(Path(sys.argv[1]), ScanConfig(index=Path(sys.argv[2])))
    print(sum(event == "open" and (".png'" in word or ".txt'" in word) for event, word in events))
    print(sum(event == "subprocess.Popen" for event, _ in events))
    events.clear()
"""

    output = subprocess.run(
        [sys.executable, "-c", script, os.fspath(root), os.fspath(index_of(config))],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )

    assert output.stdout.split() == ["0", "1", "0", "0"]


def test_only_changed_and_new_files_are_read(root: Path, config: ScanConfig) -> None:
    """Size and modification time are put back; the change time still gives the change away."""
    inspect(root, config)
    path = root / "cats" / "0.png"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "dogs" / "new.png").write_bytes(image_bytes(99))

    assert inspect(root, config).files_read == 2


def test_file_younger_than_a_tick_is_read_again(root: Path, config: ScanConfig) -> None:
    """Two writes within a tick leave the same times, so such a record is not kept."""
    (root / "dogs" / "new.png").write_bytes(image_bytes(99))
    inspect(root, config)

    assert inspect(root, config).files_read == 1


def test_rehash_distrusts_the_index(root: Path, config: ScanConfig) -> None:
    """Every file is read, and remembered again."""
    inspect(root, config)

    assert inspect(root, replace(config, rehash=True)).files_read == 7
    assert inspect(root, config).files_read == 0


def test_another_reading_rule_reads_again(root: Path, config: ScanConfig) -> None:
    """Whether a picture is too large depends on the limit that it was read with."""
    inspect(root, config)

    assert inspect(root, replace(config, max_pixels=10_000)).files_read == 7


def test_hashes_that_are_missing_are_made(root: Path, config: ScanConfig) -> None:
    """Records made without a look for near duplicates serve a scan without it only."""
    inspect(root, replace(config, near_duplicates=False))

    assert inspect(root, replace(config, near_duplicates=False)).files_read == 0
    assert inspect(root, config).files_read == 6  # all but the text file
    assert inspect(root, replace(config, near_duplicates=False)).files_read == 0


def test_records_of_files_that_are_gone_are_dropped(root: Path, config: ScanConfig) -> None:
    """Those of another data set, which still exist, stay."""
    inspect(root, config)
    (root / "cats" / "0.png").unlink()
    inspect(root, config)

    with closing(sqlite3.connect(index_of(config))) as connection:
        rows = connection.execute("SELECT folder, content FROM parts").fetchall()
    names = {os.fsdecode(folder): list(unpack(content)[0].names) for folder, content in rows}
    assert names == {
        os.fspath(root / "cats"): ["1.png", "2.png", "notes.txt"],
        os.fspath(root / "dogs"): ["0.png", "1.png", "2.png"],
    }


def test_index_serves_several_folders(root: Path, config: ScanConfig, tmp_path: Path) -> None:
    """A neighbour whose name starts alike is another folder."""
    (tmp_path / "data2").mkdir()
    for name in ("cats", "dogs"):
        (root / name).rename(tmp_path / "data2" / name)
    time.sleep(TICK_SECONDS)
    inspect(tmp_path / "data2", config)
    for name in ("cats", "dogs"):
        (root / name).mkdir()
        for number in range(2):
            path = root / name / f"{number}.png"
            path.write_bytes(image_bytes(len(name) + 50 * number + (name == "dogs")))
    inspect(root, config)

    assert inspect(tmp_path / "data2", config).files_read == 0


@pytest.mark.parametrize("damage", ["garbage", "cut", "middle", "empty", "row"])
def test_damaged_index_is_built_anew(root: Path, config: ScanConfig, damage: str) -> None:
    """It costs a warning and a reading, never a wrong hash."""
    first = inspect(root, config)
    path = index_of(config)
    content = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"garbage" * 1000)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "middle":
        path.write_bytes(content[:4096] + b"\xff" * 4096 + content[8192:])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        sha256 = bytes.fromhex(first.manifest.entries[0].sha256)
        assert sha256 in content
        path.write_bytes(content.replace(sha256, bytes([sha256[0] ^ 1]) + sha256[1:]))

    again = inspect(root, config)

    assert again.files_read == 7
    assert again.manifest.entries == first.manifest.entries
    warnings = [each for each in again.manifest.warnings if "index" in each]
    assert len(warnings) == (0 if damage == "empty" else 1)
    assert all("is built anew" in each for each in warnings)
    assert inspect(root, config).files_read == 0


@pytest.mark.parametrize("name", [INDEX_NAME, "places.sqlite"])
def test_database_of_another_program_is_not_touched(
    root: Path, config: ScanConfig, tmp_path: Path, name: str
) -> None:
    """A mistyped path costs nobody a file."""
    path = tmp_path / name
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE places (url TEXT)")
    before = path.read_bytes()

    found = inspect(root, replace(config, index=path))

    assert path.read_bytes() == before
    assert "is not used: it is another program's file" in found.manifest.warnings[-1]


def test_file_that_is_no_database_is_not_touched(
    root: Path, config: ScanConfig, tmp_path: Path
) -> None:
    """Only a file of the index's own name is taken for a damaged index."""
    path = tmp_path / "letter.txt"
    path.write_text("dear reader" * 100)

    found = inspect(root, replace(config, index=path))

    assert path.read_text() == "dear reader" * 100
    assert "is not used" in found.manifest.warnings[-1]


def test_index_that_cannot_be_made_is_done_without(
    root: Path, config: ScanConfig, tmp_path: Path
) -> None:
    """A file stands where its folder should be."""
    (tmp_path / "file").write_text("")

    found = inspect(root, replace(config, index=tmp_path / "file" / INDEX_NAME))

    assert found.files_read == 7
    assert len([each for each in found.manifest.warnings if "is not used" in each]) == 1


def test_record_survives_with_all_its_fields(tmp_path: Path) -> None:
    """Names and reasons of any bytes, and hashes of all 64 bits, come back."""
    file = tmp_path / "caf\udce9.png"
    file.write_bytes(b"x")
    time.sleep(TICK_SECONDS)
    records = [
        Record(
            sha256="ab" * 32, width=3, height=4, format="PNG", notes=("a", "b"), dhash=2**64 - 1
        ),
        Record(code="damaged", reason="line\nend"),
    ]
    for record in records:
        writer = StatIndex(tmp_path / INDEX_NAME, rule="r")
        writer.load([os.fspath(tmp_path)])
        tell_index(writer, file, file.stat(), record)
        writer.flush()

        reader = StatIndex(tmp_path / INDEX_NAME, rule="r")
        reader.load([os.fspath(tmp_path)])

        assert read_index(reader, [file]) == [record]
        assert reader.warnings == []


def test_no_path_keeps_nothing(tmp_path: Path) -> None:
    """Without an index every file is new."""
    index = StatIndex(None, rule="r")
    index.load([os.fspath(tmp_path)])
    tell_index(index, tmp_path, tmp_path.stat(), Record())
    index.flush(prune=True)

    assert read_index(index, [tmp_path]) == [None]


def _fill(path: Path, files: list[Path]) -> StatIndex:
    """Return an index to which some files were added, before the end of its scan."""
    index = StatIndex(path, rule="r")
    index.load([os.fspath(files[0].parent)])
    for file in files:
        tell_index(index, file, file.stat(), Record(sha256="ab" * 32, width=1, height=1))
    return index


def _count_rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM parts").fetchone()[0]
    return count


def test_two_scans_at_a_time_keep_what_both_read(root: Path, tmp_path: Path) -> None:
    """Each began before the other wrote; the later one makes one row of both."""
    path, files = tmp_path / INDEX_NAME, sorted((root / "cats").iterdir())
    first, second = _fill(path, files[:2]), _fill(path, files[2:])

    first.flush(prune=True)
    second.flush(prune=True)

    reader = StatIndex(path, rule="r")
    reader.load([os.fspath(root)])
    assert None not in read_index(reader, files)
    assert _count_rows(path) == 1


def test_what_a_killed_scan_has_read_stays(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are written on the way; the end of the next scan cuts them to size."""
    monkeypatch.setattr(stat_index, "_FLUSH_FILES", 1)
    monkeypatch.setattr(stat_index, "_PART_FILES", 3)
    path, files = tmp_path / INDEX_NAME, sorted((root / "cats").iterdir())
    _fill(path, files[:2])
    assert _count_rows(path) == 2

    index = _fill(path, files)
    assert read_index(index, files[:2]).count(None) == 0
    index.flush(prune=True)

    assert _count_rows(path) == 2  # three files, and one


def test_index_that_many_make_at_once_is_not_called_damaged(tmp_path: Path) -> None:
    """Whoever comes second finds tables, or makes none; nobody deletes the file of another."""
    paths = [tmp_path / str(number) / INDEX_NAME for number in range(30)]
    barrier = threading.Barrier(4)
    warnings: list[str] = []

    def open_all() -> None:
        for path in paths:
            index = StatIndex(path, rule="r")
            barrier.wait()
            index.load(["/a"])
            warnings.extend(index.warnings)

    threads = [threading.Thread(target=open_all) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)

    assert warnings == []


def test_a_date_beyond_2262_stops_no_scan(root: Path, config: ScanConfig) -> None:
    """A file system keeps them, as nanoseconds they do not fit into 64 bits; the file is known."""
    file = next((root / "cats").iterdir())
    seconds = round((2400 - 1970) * 365.2425 * 86400)
    os.utime(file, ns=(0, seconds * 10**9))
    time.sleep(0.2)  # older than a tick

    first, second = inspect(root, config), inspect(root, config)

    assert second.manifest == first.manifest
    assert (first.files_read, second.files_read) == (first.files, 0)
