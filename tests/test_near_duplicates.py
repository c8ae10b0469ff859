from __future__ import annotations

import io
import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mnv2tl.data.images import open_picture
from mnv2tl.data.near_duplicates import BITS, HASHED_PX, close_pairs, dhash, summarise


def test_all_close_pairs_are_found() -> None:
    """The bands miss nothing that comparing each with each finds."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 60, dtype=np.uint64)
    flips = [
        np.bitwise_xor.reduce(
            np.uint64(1) << rng.choice(64, count, replace=False).astype(np.uint64)
        )
        for count in (1, 2, 3, 4)
        for _ in range(40)
    ]
    near = base[rng.integers(0, 60, len(flips))] ^ np.array(flips, dtype=np.uint64)
    hashes = np.unique(np.concatenate([base, near]))

    pairs, complete = close_pairs(hashes)

    values = hashes.tolist()
    expected = [
        [a, b]
        for a, b in itertools.combinations(range(len(values)), 2)
        if (values[a] ^ values[b]).bit_count() <= BITS
    ]
    assert pairs.tolist() == expected
    assert len(expected) > 80
    assert complete


def test_dhash_is_a_bit_for_each_step_to_the_right() -> None:
    """Row by row, the first bit highest, one where it grows lighter; flat gives none."""
    pixels = np.full((8, 9), 100, np.uint8)
    pixels[0, 1:] = 110
    pixels[7, 8] = 101

    assert dhash(Image.fromarray(pixels)) == 2**63 + 1
    assert dhash(Image.fromarray(np.full((80, 90), 7, np.uint8))) == 0
    with pytest.raises(ValueError, match="must be of mode L, got RGB"):
        dhash(Image.new("RGB", (9, 8)))


def _draw(seed: int, size: tuple[int, int]) -> Image.Image:
    """Return a picture of soft shapes and grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12), dtype=np.uint8))
    levels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray((levels + rng.normal(0, 6, levels.shape)).clip(0, 255).astype(np.uint8))


def _dhash_of_pillow(gray: Image.Image) -> int:
    levels = np.asarray(gray.resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes())


@pytest.mark.parametrize("size", [(1, 1), (5, 30), (9, 8), (96, 320), (175, 170), (399, 20)])
def test_dhash_is_that_of_pillows_lanczos_filter(size: tuple[int, int]) -> None:
    """But for levels that one of them rounds up and the other down."""
    pictures = [_draw(seed, size) for seed in range(40)]

    bits = [(dhash(each) ^ _dhash_of_pillow(each)).bit_count() for each in pictures]

    assert max(bits) <= 2
    assert sum(bits) < 20


@pytest.mark.parametrize("width", [3, 10, 27, 30, 33])
def test_white_is_at_most_white_and_black_at_most_black(width: int) -> None:
    """The filter overshoots beside an edge, which made steps in what is flat."""
    for left in range(5, 85 - width, 5):
        pixels = np.zeros((80, 90), np.uint8)
        pixels[:, left : left + width] = 255

        for picture in (Image.fromarray(pixels), Image.fromarray(255 - pixels)):
            assert dhash(picture) == _dhash_of_pillow(picture)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_picture_is_hashed_as_if_it_were_whole(factor: int) -> None:
    """Its last pixels stand for fewer: taken for whole ones, they would stretch the picture."""
    whole, told, untold = [], [], []
    for seed in range(40):
        picture = _draw(seed, (50 * factor + 1, 60 * factor + 1))
        reduced = picture.reduce(factor)
        whole.append(dhash(picture))
        told.append(dhash(reduced, (0, 0, 50 + 1 / factor, 60 + 1 / factor)))
        untold.append(dhash(reduced))

    def count_unlike(hashes: list[int]) -> int:
        return sum((a ^ b).bit_count() for a, b in zip(hashes, whole, strict=True))

    assert count_unlike(told) < 40
    assert count_unlike(told) < count_unlike(untold) / 2


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_rotated_file_is_hashed_as_its_upright_copy(orientation: int) -> None:
    """What stands for less than a pixel lies where the orientation puts it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    transpose = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    unlike = []
    for seed in range(20):
        picture = _draw(seed, (401, 481))
        stored = picture.transpose(transpose[orientation]) if orientation > 1 else picture
        buffer = io.BytesIO()
        stored.save(buffer, "JPEG", quality=95, exif=exif)
        found = open_picture(buffer.getvalue(), gray_px=HASHED_PX)
        assert found.image.size == (51, 61)
        unlike.append((dhash(found.image, found.box) ^ dhash(picture)).bit_count())

    assert max(unlike) <= BITS


def test_pictures_that_are_constant_across_have_no_steps() -> None:
    """Though their rows lie between two levels after the filter."""
    for height in range(8, 200, 3):
        stripes = np.repeat(np.arange(height)[:, None] % 2 * 255, 90, axis=1)

        assert dhash(Image.fromarray(stripes.astype(np.uint8))) == 0


def test_a_large_picture_takes_little_memory() -> None:
    """As floats all of it would take 48 MB."""
    picture = _draw(0, (601, 401))
    large = picture.resize((4007, 3001), Image.Resampling.BICUBIC)
    dhash(picture)  # weights are kept

    tracemalloc.start()
    found = dhash(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 * 2**20
    assert (found ^ dhash(picture)).bit_count() <= BITS


def _compress(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


_COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda picture: picture.resize((211, 158), Image.Resampling.LANCZOS),
    "larger": lambda picture: picture.resize((500, 375), Image.Resampling.BICUBIC),
    "compressed": _compress,
    "brighter": lambda picture: picture.point(lambda level: level * 1.2),
}


@pytest.mark.parametrize("kind", _COPIES)
def test_dhash_of_a_copy_is_near_and_of_another_picture_far(kind: str) -> None:
    """Copies that people make of a picture differ in a few bits, others in half of them."""
    rng = np.random.default_rng(0)
    near, far = [], []
    for _ in range(40):
        coarse = rng.integers(40, 200, (6, 8), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)
        near.append((dhash(picture) ^ dhash(_COPIES[kind](picture))).bit_count())
        far.append((dhash(picture) ^ dhash(picture.rotate(180))).bit_count())

    assert sum(bits <= BITS for bits in near) >= 39
    assert min(far) > 10


def _array(hashes: list[int]) -> NDArray[np.uint64]:
    return np.array(hashes, dtype=np.uint64)


def test_no_hash_gives_no_pair() -> None:
    """An empty folder, or one image, has no pair."""
    assert close_pairs(np.empty(0, dtype=np.uint64))[0].shape == (0, 2)
    assert summarise(_array([]), [])["pairs"] == 0
    assert summarise(_array([2**64 - 1]), ["train"])["pairs"] == 0


def test_pairs_and_those_across_splits_are_counted() -> None:
    """Equal hashes and close ones count alike; examples across splits come first."""
    hashes = [0, 0, 0b11, 2**64 - 1, 0b111]  # 0-1 0 bits, 0-2 and 1-2 2, 2-4 1, 0-4 and 1-4 3

    found = summarise(_array(hashes), ["train", "train", "val", "val", "val"])

    assert (found["pairs"], found["across_splits"], found["complete"]) == (4, 2, True)
    assert found["examples"][:2] == [[0, 2, 2], [1, 2, 2]]
    assert sorted(found["examples"][2:]) == [[0, 1, 0], [2, 4, 1]]


def test_equal_hashes_across_splits() -> None:
    """Three images of one hash make three pairs, two of them across."""
    found = summarise(_array([5, 5, 5]), ["train", "val", "train"])

    assert (found["pairs"], found["across_splits"]) == (3, 2)
    assert found["examples"] == [[0, 1, 0], [1, 2, 0], [0, 2, 0]]


def test_a_folder_of_blank_pictures_is_counted_not_listed() -> None:
    """50,000 equal hashes make over a billion pairs: a sum, and twenty examples."""
    count = 50_000
    splits = ["val", *["train"] * (count - 1)]

    found = summarise(_array([0] * count), splits)

    assert found["pairs"] == count * (count - 1) // 2
    assert found["across_splits"] == count - 1
    assert len(found["examples"]) == 20
    assert found["complete"]


def test_crowded_hashes_are_cut_short_and_said_so() -> None:
    """A thousand hashes that share half of their bits are not all compared."""
    hashes = np.arange(1000, dtype=np.uint64)

    pairs, complete = close_pairs(hashes)

    assert not complete
    assert 0 < len(pairs) < 1000 * 1000


@pytest.mark.parametrize("bit", [0, 15, 16, 31, 32, 47, 48, 63])
def test_every_bit_counts_once(bit: int) -> None:
    """No band is left out at its edges."""
    base = 0x0123456789ABCDEF

    pairs, _ = close_pairs(np.array([base, base ^ (1 << bit)], dtype=np.uint64))

    assert pairs.tolist() == [[0, 1]]
