from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from mnv2tl.plots import write_curves


def _rows(count: int, *, first_phase: int | None = None) -> list[dict[str, Any]]:
    """Return a history whose second phase, if any, begins after `first_phase` epochs."""
    return [
        {
            "epoch": epoch,
            "phase": int(first_phase is not None and epoch > first_phase),
            "loss": 1 / epoch,
            "accuracy": 1 - 1 / epoch,
            "val_loss": 1.5 / epoch,
            "val_accuracy": 1 - 1.2 / epoch,
        }
        for epoch in range(1, count + 1)
    ]


def _pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("count", "first_phase", "best_epoch"), [(1, None, 1), (5, None, 3), (5, 3, 5), (60, 50, 60)]
)
def test_write_curves_draws_any_length(
    tmp_path: Path, count: int, first_phase: int | None, best_epoch: int
) -> None:
    """One epoch, one phase or two: a PNG of 1200 x 480 pixels, and nothing left beside it."""
    path = tmp_path / "curves.png"

    write_curves(path, _rows(count, first_phase=first_phase), best_epoch=best_epoch)

    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1200, 480))
    assert list(tmp_path.iterdir()) == [path]


def test_write_curves_shows_best_epoch_phase_and_values(tmp_path: Path) -> None:
    """Each of them changes the picture; the same history gives the same one."""
    rows = _rows(6)
    changed = [*rows[:-1], rows[-1] | {"val_loss": 0.9}]
    pictures = {}
    for name, history, best_epoch in (
        ("plain", rows, 2),
        ("again", rows, 2),
        ("best", rows, 5),
        ("phase", _rows(6, first_phase=4), 2),
        ("value", changed, 2),
    ):
        write_curves(tmp_path / name, history, best_epoch=best_epoch)
        pictures[name] = _pixels(tmp_path / name)

    assert pictures["plain"] == pictures["again"]
    assert len(set(pictures.values())) == 4


def test_write_curves_tells_training_and_validation_apart(tmp_path: Path) -> None:
    """By two colours that colour-blind readers can tell apart."""
    write_curves(tmp_path / "curves.png", _rows(6), best_epoch=2)

    with Image.open(tmp_path / "curves.png") as image:
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
    assert colours is not None
    common = {colour: count for count, colour in colours}
    assert common[0x00, 0x72, 0xB2] > 300
    assert common[0xD5, 0x5E, 0x00] > 300


def test_write_curves_leaves_the_global_state_of_matplotlib_alone(tmp_path: Path) -> None:
    """In a notebook no stray figure may show up, and no display is needed."""
    import matplotlib.pyplot as plt

    before = plt.get_fignums()

    write_curves(tmp_path / "curves.png", _rows(2), best_epoch=1)

    assert plt.get_fignums() == before


def test_write_curves_draws_a_gap_where_a_value_is_missing(tmp_path: Path) -> None:
    """NaN in one row is no reason to fail."""
    rows = _rows(4)
    rows[1]["val_loss"] = math.nan

    write_curves(tmp_path / "curves.png", rows, best_epoch=1)

    assert (tmp_path / "curves.png").stat().st_size > 1000
