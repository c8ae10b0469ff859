from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnv2tl.data.split import Split, SplitRule, assign, positions


def sha256_of(number: int) -> str:
    """Return a hash that no other number has."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def u_of(sha256: str, seed: int) -> float:
    """Return u of one hash."""
    return positions([sha256], seed)[sha256]


def by_limits(sha256: str, seed: int, val_fraction: float, test_fraction: float) -> Split:
    """Return the split by the limits alone, without the rule for tiny classes."""
    u = u_of(sha256, seed)
    if u < test_fraction:
        return "test"
    return "val" if u < test_fraction + val_fraction else "train"


def with_positions(low: float, high: float, count: int) -> list[str]:
    """Return the first hashes whose u, under seed 0, lies in a range."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        if low <= u_of(sha256_of(number), 0) < high:
            found.append(sha256_of(number))
        number += 1
    return found


def test_position_is_the_first_64_bits_of_a_seeded_hash() -> None:
    """A split made by another program from the stated rule must be the same."""
    digest = hashlib.sha256(b"7:" + b"ab" * 32).hexdigest()

    assert u_of("ab" * 32, 7) == int(digest[:16], 16) / 2**64
    assert u_of("00" * 32, 0) == pytest.approx(0.3902741210, abs=1e-10)


@settings(max_examples=1000, deadline=None)
@given(
    numbers=st.sets(st.integers(0, 10**9), min_size=1, max_size=30),
    added=st.integers(10**9 + 1, 2 * 10**9),
    seed=st.integers(0, 1000),
    val_fraction=st.floats(0.01, 0.5),
    test_fraction=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_adding_a_file_moves_no_other(
    numbers: set[int], added: int, seed: int, val_fraction: float, test_fraction: float
) -> None:
    """Where the limits alone fill train and val, nothing moves; else the tiny rule moves two."""
    before = [sha256_of(number) for number in numbers]
    limits = {by_limits(each, seed, val_fraction, test_fraction) for each in before}

    old = assign(before, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction)
    new = assign(
        [*before, sha256_of(added)],
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    moved = [each for each in before if old[each] != new[each]]

    assert len(moved) <= (0 if {"train", "val"} <= limits else 2)
    assert {"train", "val"} <= set(new.values())


def test_the_order_and_repetition_of_files_do_not_matter() -> None:
    """A folder is listed in any order, and equal bytes lie under several names."""
    hashes = [sha256_of(number) for number in range(50)]

    assert assign(hashes) == assign([*reversed(hashes), *hashes])


def test_another_seed_gives_another_split() -> None:
    """The seed is what a second fold is made with."""
    hashes = [sha256_of(number) for number in range(50)]

    assert assign(hashes, seed=0) != assign(hashes, seed=1)


def test_shares_of_a_large_class_are_near_the_asked_ones() -> None:
    """2,000 images at 0.2 have a standard error of 0.9 points; 4 points are more than four."""
    splits = list(assign(map(sha256_of, range(2000)), test_fraction=0.1).values())

    assert splits.count("val") / 2000 == pytest.approx(0.2, abs=0.04)
    assert splits.count("test") / 2000 == pytest.approx(0.1, abs=0.04)


def test_class_without_val_gives_its_lowest() -> None:
    """All images above the limit: the one of the lowest u is validated on."""
    hashes = with_positions(0.2, 1.0, 5)

    splits = assign(hashes)

    lowest = min(hashes, key=lambda each: u_of(each, 0))
    assert [each for each in hashes if splits[each] == "val"] == [lowest]


def test_class_without_train_gives_its_highest() -> None:
    """All images below the limit: the one of the highest u is trained on."""
    hashes = with_positions(0.0, 0.2, 5)

    splits = assign(hashes)

    highest = max(hashes, key=lambda each: u_of(each, 0))
    assert [each for each in hashes if splits[each] == "train"] == [highest]


@pytest.mark.parametrize("rule", ["threshold", "exact"])
def test_class_that_falls_into_test_still_has_train_and_val(rule: SplitRule) -> None:
    """Train comes first, then val; test is empty before either of them is."""
    hashes = with_positions(0.0, 0.4, 2)

    splits = assign(hashes, rule=rule, test_fraction=0.5)

    assert sorted(splits.values()) == ["train", "val"]


def test_one_distinct_image_is_in_train() -> None:
    """One image cannot be on both sides."""
    assert assign([sha256_of(1), sha256_of(1)]) == {sha256_of(1): "train"}
    assert assign([]) == {}


def test_no_val_asked_gives_none() -> None:
    """Where a val folder exists, the rule gives nothing to val."""
    assert set(assign(map(sha256_of, range(20)), val_fraction=0.0).values()) == {"train"}


@pytest.mark.parametrize(
    ("count", "val_fraction", "val"),
    [(10, 0.2, 2), (2, 0.2, 1), (3, 0.9, 2), (50, 0.29, 15), (12, 0.2, 2), (13, 0.2, 3)],
)
def test_exact_rounds_half_up_and_leaves_one_on_either_side(
    count: int, val_fraction: float, val: int
) -> None:
    """0.29 of 50 is 14.5 as the user wrote it, though a little less as a binary number."""
    hashes = [sha256_of(number) for number in range(count)]

    splits = assign(hashes, rule="exact", val_fraction=val_fraction)

    ordered = sorted(hashes, key=lambda each: u_of(each, 0))
    assert [splits[each] for each in ordered] == ["val"] * val + ["train"] * (count - val)


def test_exact_with_test() -> None:
    """Test, val and train lie on the line of u in this order, as with the limits."""
    splits = list(assign(map(sha256_of, range(20)), rule="exact", test_fraction=0.1).values())

    assert (splits.count("test"), splits.count("val"), splits.count("train")) == (2, 4, 14)


@pytest.mark.parametrize(("val_fraction", "test_fraction"), [(-0.1, 0.0), (1.0, 0.0), (0.5, 0.5)])
def test_shares_out_of_range_are_refused(val_fraction: float, test_fraction: float) -> None:
    """Nothing to train on is a mistake of the caller."""
    with pytest.raises(ValueError, match="below 1 together"):
        assign([], val_fraction=val_fraction, test_fraction=test_fraction)


def test_unknown_rule_is_refused() -> None:
    """The message lists what there is."""
    with pytest.raises(ValueError, match=r"rule must be one of \('threshold', 'exact'\)"):
        assign([], rule="random")  # type: ignore[arg-type]
