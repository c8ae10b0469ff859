from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mnv2tl.data import augment, images
from mnv2tl.data.augment import PRESETS, AugmentConfig
from mnv2tl.data.entries import Entry
from mnv2tl.data.images import UnreadableImageError
from mnv2tl.data.views import PLAIN, ViewMaker
from mnv2tl.store import sha256_file


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """Return the entry of one drawn image of 40 x 30 pixels."""
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    size = path.stat().st_size
    return Entry(
        path="a.png",
        label=0,
        split="train",
        sha256=sha256_file(path),
        bytes=size,
        width=40,
        height=30,
    )


def _maker(root: Path, **changed: Any) -> ViewMaker:
    values: dict[str, Any] = {"image_px": 96, "augment": PRESETS["strong"], "seed": 3}
    return ViewMaker(root=root, **values | changed)


def test_load_gives_the_resized_pixels_of_the_file(tmp_path: Path, entry: Entry) -> None:
    """Decoded and resized by the rules of `images`."""
    pixels = _maker(tmp_path).load(entry)

    assert pixels.shape == (96, 96, 3)
    np.testing.assert_array_equal(pixels, images.read_resized(tmp_path / "a.png", 96))


def test_load_refuses_a_file_that_changed(tmp_path: Path, entry: Entry) -> None:
    """Another picture under the name would be cached under the former one's hash."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")

    with pytest.raises(UnreadableImageError) as caught:
        _maker(tmp_path).load(entry)

    assert caught.value.reason == "changed"
    assert caught.value.message == "the file changed since it was scanned"


def test_load_refuses_a_file_that_vanished(tmp_path: Path, entry: Entry) -> None:
    """As `images` does."""
    (tmp_path / "a.png").unlink()

    with pytest.raises(UnreadableImageError) as caught:
        _maker(tmp_path).load(entry)

    assert caught.value.reason == "vanished"


def test_load_obeys_the_pixel_limit(tmp_path: Path, entry: Entry) -> None:
    """A limit below 40 x 30 refuses the image, one at it does not."""
    with pytest.raises(UnreadableImageError) as caught:
        _maker(tmp_path, max_pixels=1199).load(entry)

    assert caught.value.reason == "too-many-pixels"
    assert _maker(tmp_path, max_pixels=1200).load(entry).shape == (96, 96, 3)


def test_vary_leaves_the_plain_view_and_distorts_the_others(tmp_path: Path, entry: Entry) -> None:
    """Views are pure: the same number gives the same pixels, another number others."""
    maker = _maker(tmp_path)
    plain = maker.load(entry)

    views = {view: maker.vary(plain, entry, view) for view in (PLAIN, 0, 1)}

    np.testing.assert_array_equal(views[PLAIN], plain)
    np.testing.assert_array_equal(maker.vary(plain, entry, 0), views[0])
    assert (views[0] != plain).any()
    assert (views[0] != views[1]).any()
    expected = augment.augment(plain, PRESETS["strong"], seed=3, sha256=entry.sha256, view=1)
    np.testing.assert_array_equal(views[1], expected)


def test_key_of_a_view_tells_apart_everything_that_changes_its_pixels(
    tmp_path: Path, entry: Entry
) -> None:
    """File content, view, seed and augmentation; the path of the file is not in it."""
    maker = _maker(tmp_path)
    other = dataclasses.replace(entry, sha256="0" * 64)
    keys = [
        maker.key(entry.sha256, 0),
        maker.key(entry.sha256, 1),
        maker.key(other.sha256, 0),
        _maker(tmp_path, seed=4).key(entry.sha256, 0),
        _maker(tmp_path, augment=AugmentConfig(zoom=0.2)).key(entry.sha256, 0),
        maker.key(entry.sha256, PLAIN),
    ]

    assert len(set(keys)) == len(keys)
    renamed = dataclasses.replace(entry, path="elsewhere/b.png", label=7, split="val")
    assert _maker(tmp_path / "moved").key(renamed.sha256, 0) == keys[0]


def test_key_of_the_plain_view_ignores_seed_and_augmentation(tmp_path: Path, entry: Entry) -> None:
    """Validation features are shared by all runs on the same trunk."""
    keys = {
        _maker(tmp_path, seed=seed, augment=PRESETS[name]).key(entry.sha256, PLAIN)
        for seed in (0, 1)
        for name in PRESETS
    }

    assert len(keys) == 1


def test_key_changes_with_the_rule_of_augmentation(
    tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version that draws otherwise must not find the features of this one."""
    before = _maker(tmp_path).key(entry.sha256, 0), _maker(tmp_path).key(entry.sha256, PLAIN)

    monkeypatch.setattr(augment, "RULE_VERSION", augment.RULE_VERSION + 1)

    assert _maker(tmp_path).key(entry.sha256, 0) != before[0]
    assert _maker(tmp_path).key(entry.sha256, PLAIN) == before[1]


def test_identity_changes_with_the_size_and_nothing_of_a_single_run(tmp_path: Path) -> None:
    """Folder, seed, augmentation and pixel limit do not part the cache."""
    identity = _maker(tmp_path).identity()

    other = _maker(tmp_path / "b", seed=9, augment=PRESETS["none"], max_pixels=5).identity()
    assert other == identity
    assert _maker(tmp_path, image_px=128).identity() != identity
    assert identity["preprocessing"] == images.PREPROCESSING
    assert identity["pillow"] == images.pillow_version()
