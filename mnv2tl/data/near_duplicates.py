"""Pairs of images that look the same but differ in their bytes, by their 64-bit dHash.

The hash is Neal Krawetz' "difference hash" (Kind of Like That, hackerfactor.com, 2013): whether
each of 8 x 9 gray pixels is darker than the next in its row. Two hashes with at most two unlike
bits agree in at least two of four 16-bit bands. So only hashes that share two whole bands are
compared: six sorts instead of n * n comparisons.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASHED_PX = 50
"""Pixels that either side of a picture keeps before it is hashed: more than five for each of the
hash's, which tell copies from strangers as well as all of them."""
HASH = f"dhash, lanczos in float32 of a box, from {HASHED_PX} px"
"""Name of how pictures are hashed; hashes of another name are not compared with these."""

BITS = 2
"""Two images are near duplicates if their hashes differ in at most so many bits."""
# Above this a side is first averaged down to between one and two times as many pixels, so that no
# picture takes much memory as floats.
_FLOAT_PX = 200
_LOBES = 3  # of the filter, on either side
_ROUNDING = 0.5 + 1 / 256
_EXAMPLES = 20
# A bucket of more hashes than this holds little but flat pictures; its pairs are not all compared.
_NEIGHBOURS = 256
_PAIRS = 1_000_000


def dhash(gray: Image.Image, box: tuple[float, float, float, float] | None = None) -> int:
    """Return the 64 bits of a picture that its near duplicates share but for a few.

    The filter is Lanczos, as in ImageHash 4.3: a bilinear one takes more strangers for copies, see
    benchmarks/near_duplicates.py. As two products of small matrices it takes a fifth of the time of
    `Image.resize`. Levels are rounded, so that a flat area has no steps.

    Args:
        gray: Of mode L.
        box: Left, top, right and bottom of the picture in pixels of `gray`, as `Picture` has them;
            None for all of it. Pixels that reach beyond the picture, taken for whole ones, move all
            that is seen by as much as tells a copy from a stranger.

    Raises:
        ValueError: It is of another mode.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from mnv2tl.data.near_duplicates import dhash
        >>> hex(dhash(Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (80, 1)))))
        '0xffffffffffffffff'
    """
    if gray.mode != "L":
        raise ValueError(f"the picture must be of mode L, got {gray.mode}")
    left, top, right, bottom = box or (0.0, 0.0, *gray.size)
    if max(gray.size) >= 2 * _FLOAT_PX:
        across, down = (max(side // _FLOAT_PX, 1) for side in gray.size)
        gray = gray.reduce((across, down))
        left, top, right, bottom = left / across, top / down, right / across, bottom / down
    columns, rows = gray.size
    levels = np.frombuffer(gray.tobytes(), np.uint8).reshape(rows, columns).astype(np.float32)
    shrunk = _lanczos(8, rows, top, bottom) @ levels @ _lanczos(9, columns, left, right).T
    # What lies between two levels must not be rounded up here and down there.
    pixels = np.minimum(np.maximum(np.floor(shrunk + _ROUNDING), 0), 255)
    return int.from_bytes(np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes())


@functools.lru_cache(maxsize=2048)
def _lanczos(count: int, pixels: int, start: float, end: float) -> NDArray[np.float32]:
    """Return the weights that shrink a part of a row of pixels, shape (count, pixels).

    Args:
        count: Pixels of the result.
        pixels: Pixels of the row.
        start: Where the part starts, in pixels.
        end: Where it ends.
    """
    scale = (end - start) / count
    centers = start + (np.arange(count)[:, None] + 0.5) * scale
    lobes = (np.arange(pixels) + 0.5 - centers) / max(scale, 1.0)
    weights = np.sinc(lobes) * np.sinc(lobes / _LOBES) * (abs(lobes) < _LOBES)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def close_pairs(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], bool]:
    """Find the pairs of distinct hashes that differ in at most `BITS` bits.

    Args:
        hashes: Distinct values, shape (n,), fewer than 2**32.

    Returns:
        Indices of shape (pairs, 2), the first below the second, sorted; and whether these are all
        pairs. Both time and memory are bounded, whatever the hashes.
    """
    hashes = np.ascontiguousarray(hashes, dtype=np.uint64)
    codes: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    complete = True
    for first, second in itertools.combinations(range(0, 64, 16), 2):
        # Both bands above the number: sorting one array is far quicker than finding its order.
        keys = hashes >> np.uint64(first) << np.uint64(48)
        keys |= (hashes >> np.uint64(second) & np.uint64(0xFFFF)) << np.uint64(32)
        keys |= np.arange(hashes.size, dtype=np.uint64)
        keys.sort()
        order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        keys >>= np.uint64(32)
        parts = [codes]
        for found in _pairs_of_equal_keys(hashes, order, keys):
            parts.append(found)
            if sum(part.size for part in parts) > _PAIRS:
                complete = False
                break
        codes = np.unique(np.concatenate(parts))[:_PAIRS]
        too_far = _NEIGHBOURS + 1
        complete = complete and not (keys[too_far:] == keys[:-too_far]).any()
    return np.stack(np.divmod(codes, max(hashes.size, 1)), axis=1), complete


def _pairs_of_equal_keys(
    hashes: NDArray[np.uint64], order: NDArray[np.int64], keys: NDArray[np.uint64]
) -> Iterator[NDArray[np.int64]]:
    """Yield pairs with equal keys and close hashes, encoded as first * n + second.

    Args:
        hashes: Shape (n,).
        order: Their numbers, sorted by key, shape (n,).
        keys: Of each in this order, shape (n,).
    """
    at = np.arange(keys.size)
    for step in range(1, _NEIGHBOURS + 1):
        at = at[at + step < keys.size]
        at = at[keys[at] == keys[at + step]]
        if not at.size:
            return
        left, right = order[at], order[at + step]
        close = np.bitwise_count(hashes[left] ^ hashes[right]) <= BITS
        left, right = left[close], right[close]
        if left.size:
            yield np.minimum(left, right) * keys.size + np.maximum(left, right)


def summarise(hashes: NDArray[np.uint64], splits: Sequence[str]) -> dict[str, Any]:
    """Count near duplicates among images of unlike bytes.

    Args:
        hashes: dHash of one image per distinct content, shape (n,).
        splits: Split of each.

    Returns:
        `bits`: the largest difference; `pairs` of images; `across_splits`: how many of them lie in
        two splits, a leak; `complete`: False if the counts are lower bounds; `examples`: at most
        20 of [number, number, bits], those across splits first; an image's number is its place.
    """
    values, which = np.unique(hashes, return_inverse=True)
    close, complete = close_pairs(values)
    codes = {name: code for code, name in enumerate(dict.fromkeys(splits))}
    cells = np.fromiter(map(codes.__getitem__, splits), np.int64, len(splits))
    cells += which * len(codes)
    counts = np.bincount(cells, minlength=values.size * len(codes))
    counts = counts.reshape(values.size, len(codes))  # (values, splits)
    equal = np.repeat(np.flatnonzero(counts.sum(axis=1) > 1)[:, None], 2, axis=1)  # (equal, 2)
    groups = np.concatenate([equal, close])
    pairs, across = _count(groups, counts)
    members: dict[int, list[int]] = {value: [] for value in np.unique(groups).tolist()}
    for image in np.flatnonzero(np.isin(which, groups)).tolist():
        members[int(which[image])].append(image)
    leaks = (
        (a, b)
        for a, b in _image_pairs(groups[across > 0].tolist(), members)
        if splits[a] != splits[b]
    )
    others = (
        (a, b)
        for a, b in _image_pairs(groups[pairs > across].tolist(), members)
        if splits[a] == splits[b]
    )
    first = itertools.islice(itertools.chain(leaks, others), _EXAMPLES)
    return {
        "bits": BITS,
        "pairs": int(pairs.sum()),
        "across_splits": int(across.sum()),
        "complete": complete,
        "examples": [[a, b, int(hashes[a] ^ hashes[b]).bit_count()] for a, b in first],
    }


def _count(
    groups: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the pairs of images behind each pair of hash values, and those across splits.

    Args:
        groups: Indices of two hash values, shape (groups, 2); twice the same for equal hashes.
        counts: Images per hash value and split, shape (values, splits).

    Returns:
        Two arrays of shape (groups,).
    """
    left, right = counts[groups[:, 0]], counts[groups[:, 1]]
    pairs = left.sum(axis=1) * right.sum(axis=1)
    across = pairs - (left * right).sum(axis=1)
    # Among n images of one hash, n * n counts each pair twice and each image with itself.
    is_equal = groups[:, 0] == groups[:, 1]
    pairs = np.where(is_equal, (pairs - left.sum(axis=1)) // 2, pairs)
    return pairs, np.where(is_equal, across // 2, across)


def _image_pairs(
    groups: Sequence[tuple[int, int]], members: Mapping[int, Sequence[int]]
) -> Iterator[tuple[int, int]]:
    """Yield the pairs of images behind pairs of hash values, the first `_PAIRS` of them."""
    each_group = (
        itertools.combinations(members[first], 2)
        if first == second
        else itertools.product(members[first], members[second])
        for first, second in groups
    )
    return itertools.islice(itertools.chain.from_iterable(each_group), _PAIRS)
