"""Which split an image belongs to: a pure function of its bytes and a seed.

Every image has a number u from 0 to 1, drawn from its SHA-256. The rule `threshold` compares u with
fixed limits, so adding a file moves no other file, and equal bytes always land together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Literal, cast, get_args

Split = Literal["train", "val", "test"]
SplitRule = Literal["threshold", "exact"]

SPLITS: tuple[Split, ...] = get_args(Split)
RULES: tuple[SplitRule, ...] = get_args(SplitRule)


def positions(hashes: Iterable[str], seed: int) -> dict[str, float]:
    """Return u in [0, 1] of each hash: 64 bits of the SHA-256 of `"{seed}:{sha256}"`, over 2**64.

    >>> positions(["00" * 32], 0) == positions(["00" * 32], 0) != positions(["00" * 32], 1)
    True
    """
    # A data set may have a million, so the loop holds no more than it must.
    prefix, hash_of, unit = f"{seed}:".encode("ascii"), hashlib.sha256, 2.0**-64
    return {
        sha256: int.from_bytes(hash_of(prefix + sha256.encode("ascii")).digest()[:8]) * unit
        for sha256 in set(hashes)
    }


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Check the asked shares.

    Raises:
        ValueError: One is negative, or together they leave nothing to train on.
    """
    if not (0 <= val_fraction < 1 and 0 <= test_fraction < 1 and val_fraction + test_fraction < 1):
        raise ValueError(
            "val_fraction and test_fraction must be >= 0 and below 1 together, "
            f"got {val_fraction} and {test_fraction}"
        )


def assign(
    hashes: Iterable[str],
    *,
    rule: SplitRule = "threshold",
    seed: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
) -> dict[str, Split]:
    """Split the images of one class.

    The rule `threshold` puts u < test_fraction into test, the next val_fraction of the range into
    val and the rest into train; shares are near the asked ones. A class that has no image left in
    train gives its image of the highest u to train; one that has none in val then gives the image
    of train with the lowest u to val (of test with the highest u, where train has only one).

    The rule `exact` cuts the images, ordered by u, by rank: shares are rounded half up, with at
    least one image in val and in train.

    Args:
        hashes: SHA-256 of the images' bytes; equal ones count once.
        rule: `threshold` or `exact`.
        seed: Another seed gives another split.
        val_fraction: Share of val in [0, 1); with 0 nothing goes to val.
        test_fraction: Share of test in [0, 1); a class too small for it has no test image.

    Returns:
        The split of each distinct hash. A class of one distinct image is all in train.

    Raises:
        ValueError: The shares are out of range, or the rule is unknown.
    """
    check_fractions(val_fraction, test_fraction)
    if rule not in RULES:
        raise ValueError(f"rule must be one of {RULES}, got {rule!r}")
    of_hash = positions(hashes, seed)
    if len(of_hash) < 2:
        return dict.fromkeys(of_hash, "train")
    if rule == "exact":
        return _by_rank(_order(of_hash), val_fraction, test_fraction)
    return _by_threshold(of_hash, val_fraction, test_fraction)


def _order(of_hash: Mapping[str, float]) -> list[str]:
    """Return the hashes by u; of equal ones, which are all but impossible, the hash decides."""
    return [sha256 for _, sha256 in sorted(zip(of_hash.values(), of_hash, strict=True))]


def _by_threshold(
    of_hash: Mapping[str, float], val_fraction: float, test_fraction: float
) -> dict[str, Split]:
    limit = test_fraction + val_fraction
    splits: dict[str, Split] = {
        sha256: "train" if u >= limit else "test" if u < test_fraction else "val"
        for sha256, u in of_hash.items()
    }
    needed: set[Split] = {"train", "val"} if val_fraction > 0 else {"train"}
    if needed <= set(splits.values()):
        return splits
    ordered = _order(of_hash)
    if "train" not in splits.values():
        splits[ordered[-1]] = "train"
    if val_fraction > 0 and "val" not in splits.values():
        train = [sha256 for sha256 in ordered if splits[sha256] == "train"]
        test = [sha256 for sha256 in ordered if splits[sha256] == "test"]
        splits[train[0] if len(train) > 1 else test[-1]] = "val"
    return splits


def _by_rank(ordered: list[str], val_fraction: float, test_fraction: float) -> dict[str, Split]:
    count = len(ordered)
    val = min(max(_share(val_fraction, count), 1 if val_fraction > 0 else 0), count - 1)
    test = min(_share(test_fraction, count), count - 1 - val)
    names = ["test"] * test + ["val"] * val + ["train"] * (count - val - test)
    return dict(zip(ordered, cast("list[Split]", names), strict=True))


def _share(fraction: float, count: int) -> int:
    # The decimal that the user wrote, not its binary neighbour: 0.29 of 50 is 14.5, so 15.
    return int(Fraction(repr(fraction)) * count + Fraction(1, 2))
