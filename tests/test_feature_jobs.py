"""Which views of which images are asked for, and which of them are left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl.data.augment import PRESETS
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.views import ViewMaker
from mnv2tl.feature_jobs import Jobs
from mnv2tl.key_table import Keys, encode_keys

MAKER = ViewMaker(root=Path("data"), image_px=8, augment=PRESETS["light"], seed=1)
VIEWS = [(0, 1), (0, 1), (2,), (0, 1)]


def _jobs() -> Jobs:
    entries = Entries(
        Entry(
            path=f"{number}.png",
            label=0,
            split="train",
            sha256=f"{number:064x}",
            bytes=1,
            width=8,
            height=8,
        )
        for number in range(1, 5)
    )
    return Jobs(entries, VIEWS)


def _names(jobs: Jobs) -> list[tuple[str, tuple[int, ...]]]:
    return [(entry.path, views) for entry, views in jobs]


def test_jobs_are_pairs() -> None:
    """By number, by slice and one by one; they count the views."""
    jobs = _jobs()

    assert _names(jobs) == list(zip(["1.png", "2.png", "3.png", "4.png"], VIEWS, strict=True))
    assert [jobs[number] for number in range(len(jobs))] == list(jobs)
    assert list(jobs[1:3]) == list(jobs)[1:3]
    assert (jobs.count_views(), jobs.most_views()) == (7, 2)
    assert (Jobs(Entries(), []).count_views(), Jobs(Entries(), []).most_views()) == (0, 0)
    with pytest.raises(ValueError, match="4 images must have as many views, got 1"):
        Jobs(jobs.entries, [(0,)])


def test_keys_are_those_of_each_view() -> None:
    """In the order of the images and their views."""
    jobs = _jobs()

    assert list(jobs.keys(MAKER)) == [
        MAKER.key(entry.sha256, view) for entry, views in jobs for view in views
    ]


def test_chosen_views_stay() -> None:
    """An image without any goes; views that are equal are one object."""
    jobs = _jobs()
    asked: list[Keys] = []

    def choose(keys: Keys) -> NDArray[np.bool_]:
        asked.append(keys)
        return np.array([False, True, True, True, False, False, True])

    chosen = jobs.choose(MAKER, choose)

    assert (asked[0] == encode_keys(jobs.keys(MAKER))).all()
    assert _names(chosen) == [("1.png", (1,)), ("2.png", (0, 1)), ("4.png", (1,))]
    assert chosen.views[0] is chosen.views[2]
    assert (chosen.count_views(), chosen.most_views()) == (4, 2)
    assert jobs.choose(MAKER, lambda keys: np.ones(len(keys), np.bool_)) is jobs
    assert not jobs.choose(MAKER, lambda keys: np.zeros(len(keys), np.bool_))


def test_jobs_of_some_paths_can_be_left() -> None:
    """As those of images that were lost."""
    assert _names(_jobs().without({"2.png", "9.png"})) == [
        *(("1.png", (0, 1)), ("3.png", (2,)), ("4.png", (0, 1))),
    ]
