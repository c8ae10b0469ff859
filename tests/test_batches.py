from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnv2tl.config import TrainConfig
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.views import PLAIN

pytest.importorskip("keras")

from mnv2tl.batches import order_of_epoch, view_of_epoch, views_of_phases, weigh_classes

pytestmark = pytest.mark.usefixtures("backend")


def _config(**changed: Any) -> TrainConfig:
    return TrainConfig(data=Path("data"), out=Path("run"), **changed)


def test_order_of_epoch_is_the_known_one() -> None:
    """The same numbers on both backends and on every machine."""
    assert order_of_epoch(0, 0, 8).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]
    assert order_of_epoch(0, 1, 8).tolist() == [1, 3, 7, 6, 0, 4, 2, 5]
    assert order_of_epoch(7, 3, 8).tolist() == [3, 5, 0, 4, 2, 7, 1, 6]


def test_order_of_epoch_takes_every_image_once() -> None:
    """Another epoch or seed gives another order."""
    orders = [order_of_epoch(seed, epoch, 500) for seed in (0, 1) for epoch in (0, 1)]

    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(
    ("changed", "views"),
    [
        ({"views": 2}, [0, 1, 0, 1, 0]),
        ({"views": 4}, [0, 1, 2, 3, 0]),
        ({"views": 1}, [0] * 5),
        ({"views": 1_000_000}, [0, 1, 2, 3, 4]),
    ],
)
def test_view_of_epoch_walks_through_the_views(changed: dict[str, Any], views: list[int]) -> None:
    """Every view is seen before the first comes again."""
    config = _config(epochs=3, finetune_epochs=2, **changed)

    assert [view_of_epoch(config, epoch) for epoch in range(5)] == views
    assert views_of_phases(config) == tuple(sorted(set(views)))


def test_without_augmentation_there_is_the_plain_view_only() -> None:
    """However many views the settings ask for."""
    from mnv2tl.data.augment import PRESETS

    config = _config(augment=PRESETS["none"], views=4)

    assert {view_of_epoch(config, epoch) for epoch in range(5)} == {PLAIN}
    assert views_of_phases(config) == (PLAIN,)


def test_balanced_weights_make_every_class_count_alike() -> None:
    """Weight times number of images is the same for all classes, and the mean weight is 1."""
    labels = [0] * 6 + [1] * 3 + [2]
    entries = Entries(
        Entry(path=f"{i}", label=label, split="train", sha256="ab" * 32, bytes=1, width=1, height=1)
        for i, label in enumerate(labels)
    )

    weights = weigh_classes(entries, _config(class_weights="balanced"), classes=3)

    np.testing.assert_allclose(weights * (6, 3, 1), 10 / 3, rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1.0)
    assert weigh_classes(entries, _config(), classes=3).tolist() == [1.0, 1.0, 1.0]
