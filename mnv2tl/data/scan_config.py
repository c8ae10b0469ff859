"""Settings of a scan; apart from the scan so that its steps can share them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mnv2tl.data.images import MAX_PIXELS
from mnv2tl.data.split import RULES, SplitRule, check_fractions

OnConflict = Literal["stop", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanConfig:
    """How a data folder is read, judged and split."""

    val_fraction: float = 0.2
    """Share of each class for validation, in (0, 1)."""
    test_fraction: float = 0.0
    """Share of each class for a test split, in [0, 1)."""
    split_rule: SplitRule = "threshold"
    """`threshold`: added files move no others. `exact`: exact shares by rank."""
    split_seed: int = 0
    """Another seed gives another split."""
    test_dir: Path | None = None
    """A folder with the same classes as test split."""
    max_bad: float = 0.01
    """Share of images that may be unreadable, in [0, 1]; the number is rounded up."""
    max_pixels: int = MAX_PIXELS
    """Width times height of the largest image that is decoded."""
    skip_empty_classes: bool = False
    """Leave out a class without a readable image; otherwise it is an error."""
    allow_tiny: bool = False
    """Put a class with one distinct image in train only; otherwise it is an error."""
    on_conflict: OnConflict = "stop"
    """What to do with equal bytes in two classes: an error, or drop all of them."""
    follow_links: bool = False
    """Follow links whose target lies inside the data folder."""
    near_duplicates: bool = True
    """Look for pairs that look the same."""
    rehash: bool = False
    """Read every file again, whatever the index says."""
    index: Path | None = None
    """SQLite file that remembers unchanged files; None for none."""
    workers: int | None = None
    """Processes that read and decode; None for one per core that this process may use."""
    decode_seconds: float = 30.0
    """How long a process may take for one image before it is replaced."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A setting is out of range, or two contradict each other.
        """
        check_fractions(self.val_fraction, self.test_fraction)
        if self.val_fraction == 0:
            raise ValueError("val_fraction must be above 0: the best epoch is chosen by it")
        if self.test_dir is not None and self.test_fraction > 0:
            raise ValueError("give test_dir or test_fraction, not both")
        if self.split_rule not in RULES:
            raise ValueError(f"split_rule must be one of {RULES}, got {self.split_rule!r}")
        if self.on_conflict not in get_args(OnConflict):
            choices = get_args(OnConflict)
            raise ValueError(f"on_conflict must be one of {choices}, got {self.on_conflict!r}")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad must be from 0 to 1, got {self.max_bad}")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, got {self.max_pixels}")
        if not 0 < self.decode_seconds < math.inf:
            raise ValueError(f"decode_seconds must be above 0, got {self.decode_seconds}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
