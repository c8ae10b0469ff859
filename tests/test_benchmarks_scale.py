"""Tests of the pure parts of the benchmarks on size and on other scripts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

from benchmarks import near_duplicates
from benchmarks.growth import growth
from benchmarks.parts.scale_tables import (
    growth_table,
    near_duplicates_table,
    peers_table,
    scan_table,
)
from benchmarks.parts.scan_pictures import (
    CLASSES,
    PHOTOGRAPHS_PX,
    make_folder,
    name_file,
    write_pictures,
)
from benchmarks.parts.scan_probe import list_files, stat_all
from benchmarks.peers import compare, run_script, seconds_to
from benchmarks.scan_speed import link_part, summarise

MACHINE = {
    "date": "2026-01-02",
    "machine": {"cores": 2, "processor": "P", "system": "S"},
    "versions": {"python": "3.11"},
}


def test_pictures_depend_on_their_number_only(tmp_path: Path) -> None:
    """The same files come out in another order and in parts; all can be decoded."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, parts in ((first, [range(12)]), (second, [range(7, 12), range(7)])):
        make_folder(folder)
        for part in parts:
            write_pictures(folder, part)

    files = [name_file(number) for number in range(12)]
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()
        with Image.open(first / file) as image:
            assert 96 <= min(image.size) <= max(image.size) <= 320
            assert np.asarray(image).std() > 5
    assert stat_all(first) == len(list_files(first)) == 12


def test_sides_of_pictures_can_be_chosen(tmp_path: Path) -> None:
    """Photographs are larger, and else the same."""
    make_folder(tmp_path)
    write_pictures(tmp_path, range(3), PHOTOGRAPHS_PX)

    for number in range(3):
        with Image.open(tmp_path / name_file(number)) as image:
            assert 400 <= min(image.size) <= max(image.size) <= 640


def test_some_pictures_are_copies_and_some_are_saved_again(tmp_path: Path) -> None:
    """Both lie in the class of their original: equal bytes in two classes would end a scan."""
    make_folder(tmp_path)
    copy, again, before = 800, 601, CLASSES * 10
    for number in (copy, copy - before, again, again - before):
        write_pictures(tmp_path, range(number, number + 1))

    def read(number: int) -> bytes:
        return (tmp_path / name_file(number)).read_bytes()

    assert read(copy) == read(copy - before)
    assert read(again) != read(again - before)
    assert Path(name_file(copy)).parent == Path(name_file(copy - before)).parent


def test_part_is_the_first_files(tmp_path: Path) -> None:
    """Linked, not copied."""
    make_folder(tmp_path / "all")
    write_pictures(tmp_path / "all", range(4))

    link_part(tmp_path / "all", tmp_path / "part", 3)

    assert stat_all(tmp_path / "part") == 3
    file = name_file(2)
    assert (tmp_path / "part" / file).samefile(tmp_path / "all" / file)


def test_ratio_is_of_medians_and_range_of_rounds() -> None:
    """A bar is reached by the medians, whatever one round gave."""
    found = summarise([2.0, 9.0, 3.0], [1.0, 2.0, 1.5], asked=2.0)

    assert found["ratio"] == 2.0
    assert found["range"] == [2.0, 4.5]
    assert found["reached"]


def test_growth_is_of_medians() -> None:
    """Each count stands against the smallest one."""
    rows = [{"pictures": 10, "mb": each} for each in (4.0, 5.0, 9.0)]

    assert growth([{"pictures": 20, "mb": 6.0}, *rows], "mb") == {"10": 1.0, "20": 1.2}


def _near_duplicates(found: int, strangers: int) -> dict[str, Any]:
    sides = ("mnv2tl", "bilinear", "ImageHash")
    return {
        "pictures": 10,
        "pairs": 45,
        "found": {"half of the size": dict.fromkeys(sides, found)},
        "strangers": dict.fromkeys(sides, strangers),
    }


def test_near_duplicates_are_pooled_over_folders() -> None:
    """Copies of all pictures, strangers of all pairs."""
    folders = {"a": _near_duplicates(9, 1), "b": _near_duplicates(6, 2)}
    for each in folders.values():
        each["found"] = dict.fromkeys(near_duplicates.EDITS, each["found"]["half of the size"])

    pooled = near_duplicates.pool(folders)

    assert (pooled["pictures"], pooled["pairs"], pooled["strangers"]["mnv2tl"]) == (20, 90, 3)
    row = pooled["found"]["half of the size"]["ImageHash"]
    assert row["share"] == 0.75
    assert row["interval"][0] < 0.75 < row["interval"][1]
    hashes = np.array([0, 3, 7, 2**63], np.uint64)
    assert near_duplicates.count_strangers(hashes) == 3  # 0 with 3 and 2**63, 3 with 7


def test_the_table_of_near_duplicates_has_a_row_for_each_edit() -> None:
    """Beside strangers and time."""
    sides = ("mnv2tl", "bilinear", "ImageHash")
    result = MACHINE | {
        "imagehash": "4.3",
        "bits": 2,
        "folders": {"a": {}, "b": {}},
        "seconds": {key: {"median": 0.0005} for key in sides},
        "pooled": _near_duplicates(0, 7)
        | {
            "found": {
                "half of the size": {key: {"share": 0.5, "interval": [0.4, 0.6]} for key in sides}
            }
        },
    }

    table = near_duplicates_table([result])

    share = "50.0 % (40.0 to 60.0)"
    assert f"| copies found: half of the size | {share} | {share} | {share} |" in table
    assert "| strangers taken for copies, of 45 pairs | 7 | 7 | 7 |" in table
    assert "| time to decode and hash a file | 500 us | 500 us | 500 us |" in table
    assert "10 pictures of `a`, `b`;" in table
    assert "at most 2 of 64 bits" in table


def test_peer_counts_until_it_is_as_accurate() -> None:
    """The target is what both reach: ours, or the best of a peer that never does."""
    epochs = [
        {"seconds": 4.0, "val_accuracy": 0.5},
        {"seconds": 6.0, "val_accuracy": 0.8},
        {"seconds": 8.0, "val_accuracy": 0.7},
    ]

    ours = [{"seconds": 1.5, "val_accuracy": 0.8}, {"seconds": 2.0, "val_accuracy": 0.9}]
    better = compare({"seconds": 3.0, "epochs": ours}, epochs)
    worse = compare({"seconds": 2.0, "epochs": [ours[0] | {"val_accuracy": 0.45}]}, epochs)

    assert (better["target"], better["seconds"], better["our_seconds"]) == (0.8, 6.0, 1.5)
    assert (better["ratio"], better["ratio_to_whole_run"]) == (4.0, 2.0)
    assert (worse["target"], worse["seconds"], worse["our_seconds"]) == (0.45, 4.0, 1.5)
    with pytest.raises(StopIteration):
        seconds_to(epochs, 0.81)


def test_epochs_of_a_script_are_heard_on_both_its_streams() -> None:
    """An epoch counts when it is told, before the script ends; other lines do not."""
    lines = ["print('hello', flush=True)", "print('{\"val_accuracy\": 0.5}', flush=True)"]
    lines += ["time.sleep(0.2)", 'print(\'{"event": "end"}\', file=sys.stderr)']
    lines += ["print('{\"val_accuracy\": 0.75}', file=sys.stderr)"]
    epochs, seconds = run_script([sys.executable, "-c", f"import sys, time; {'; '.join(lines)}"])

    assert [each["val_accuracy"] for each in epochs] == [0.5, 0.75]
    assert epochs[0]["seconds"] + 0.2 <= epochs[1]["seconds"] <= seconds
    with pytest.raises(click.ClickException, match="exit 3: no such thing"):
        run_script([sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"])


def test_tables_show_the_figures() -> None:
    """Every table has a row per thing measured."""
    part = {"ours": 4.0, "theirs": 2.0, "ratio": 2.0, "range": [1.5, 2.5], "asked": 1.8}
    memory = [
        {"files": files, "first_mb": first_mb, "second_mb": 50.0}
        for files, first_mb in ((1024, 50.0), (2048, 50.5))
    ]
    plain = part | {"ours": 3.0, "ratio": 1.5}
    larger = part | {"files": 300, "sides_px": [400, 640], "plain": plain}
    first = part | {"plain": plain, "runs": {"ours": [4.0, 4.0, 4.0]}}
    scan = {"files": 2000, "sides_px": [96, 320], "first": first, "second": part}
    scan |= MACHINE | {"memory": memory, "photographs": larger}
    run = {"pictures": 1000, "ms_per_picture": 1.5, "peak_mb": 300.0, "cache_bytes": 5e6}
    grown = {
        "image_px": 96,
        "asked": 1.1,
        "time_growth": {"1000": 1.0},
        "memory_growth": {"1000": 1.0},
    }
    peer = {"target": 0.9, "seconds": 30.0, "our_seconds": 5.0}
    peer |= {"ratio": 6.0, "ratio_to_whole_run": 4.0}
    epochs = [{"seconds": 5.0, "val_accuracy": 0.9}]
    peers = {
        "data": "stamps",
        "backend": "jax",
        "epochs": 10,
        "runs": [{"mnv2tl": {"seconds": 7.5, "epochs": epochs}, "torch": peer}],
        "asked": 6.5,
        "median_ratio": {"torch": 6.0},
        "peer_versions": {"torch": {"torch": "9.9"}},
    }

    text = scan_table([scan])
    assert "| 4.00 s | 2.00 s | 2.00x (1.50 to 2.50) | at most 1.8x: missed |" in text
    assert "| first scan of 300 of 400 to 640 px, without near duplicates |" in text
    assert "| 3.00 s | 2.00 s | 1.50x (1.50 to 2.50) | at most 1.8x |" in text
    assert "2,000 drawn pictures of 96 to 320 px, if nothing else is said," in text
    assert "3 rounds of a first scan" in text
    assert "1,024 files 50 MB, 2,048 files 50 MB; so 512 bytes more for each file." in text
    text = growth_table([MACHINE | grown | {"runs": [run]}])
    assert "| 1,000 | 1.50 ms (1.00x) | 300 MB (1.00x) | 5 MB |" in text
    assert "at most 1.1x" in text
    text = peers_table([MACHINE | peers])
    assert "| plain PyTorch | 90.0 % | 30.0 s | 5.0 s | 6.00x (6.00 to 6.00) |" in text
    assert "| at least 6.5x: missed | 4.00x (4.00 to 4.00) |" in text
    assert "torch 9.9" in text
