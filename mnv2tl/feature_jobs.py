"""Which views of which images are asked for: pairs, made when they are asked for.

A list of them would hold an entry of each image for as long as features are computed.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data.entries import Entry
from mnv2tl.data.views import ViewMaker
from mnv2tl.key_table import Keys, encode_keys

Views = tuple[int, ...]
Job = tuple[Entry, Views]
"""An image and the views of it that are asked for."""


class Jobs(Sequence[Job]):
    """Images and their views.

    Args:
        parts: Images that have the same views, and these.

    Example:
        >>> from mnv2tl.data.entries import Entries, Entry
        >>> from mnv2tl.feature_jobs import Jobs
        >>> entry = Entry(
        ...     path="a.png", label=0, split="val", sha256="ab" * 32, bytes=9, width=4, height=3
        ... )
        >>> jobs = Jobs((Entries([entry, entry]), (0, 1)), (Entries([entry]), (-1,)))
        >>> len(jobs), jobs[1] == (entry, (0, 1)), jobs[2][1]
        (3, True, (-1,))
    """

    def __init__(self, *parts: tuple[Sequence[Entry], Views]) -> None:
        """Take the parts; their entries are not copied."""
        self._parts = parts
        self._ends = list(itertools.accumulate(len(entries) for entries, _ in parts))

    def count_views(self) -> int:
        """Return the number of views of all images together."""
        return sum(len(entries) * len(views) for entries, views in self._parts)

    def __len__(self) -> int:
        """Return the number of images."""
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, at: int) -> Job: ...
    @overload
    def __getitem__(self, at: slice) -> list[Job]: ...
    def __getitem__(self, at: Any) -> Any:
        """Return one of them, or some as a list."""
        if isinstance(at, slice):
            return [self[number] for number in range(len(self))[at]]
        number = range(len(self))[at]
        part = bisect_right(self._ends, number)
        entries, views = self._parts[part]
        return entries[number - (self._ends[part] - len(entries))], views

    def __iter__(self) -> Iterator[Job]:
        """Yield each."""
        for entries, views in self._parts:
            for entry in entries:
                yield entry, views


class Chosen(Sequence[Job]):
    """Some of the images of other jobs, with some of their views.

    Args:
        jobs: The others.
        numbers: Of those that are chosen.
        views: Of each that is chosen.
    """

    def __init__(self, jobs: Sequence[Job], numbers: Sequence[int], views: Sequence[Views]) -> None:
        """Keep them."""
        self._jobs, self._numbers, self._views = jobs, numbers, views

    def count_views(self) -> int:
        """Return the number of views of all images together."""
        return sum(map(len, self._views))

    def most_views(self) -> int:
        """Return the number of views of the image that has most."""
        return max(map(len, self._views), default=0)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Job: ...
    @overload
    def __getitem__(self, at: slice) -> list[Job]: ...
    def __getitem__(self, at: Any) -> Any:
        """Return one of them, or some as a list."""
        if isinstance(at, slice):
            return [self[number] for number in range(len(self))[at]]
        return self._jobs[self._numbers[at]][0], self._views[at]


def choose(
    maker: ViewMaker, jobs: Sequence[Job], is_chosen: Callable[[Keys], NDArray[np.bool_]]
) -> Chosen:
    """Return jobs with those of their views whose keys are chosen, without jobs of none.

    Args:
        maker: Names the keys of views.
        jobs: Images and views to choose from.
        is_chosen: Tells of each key, in the order of the jobs and their views.
    """
    keys = encode_keys(maker.key(entry, view) for entry, views in jobs for view in views)
    chosen = iter(is_chosen(keys).tolist())
    numbers, kept = array("Q"), []
    known: dict[Views, Views] = {}  # most are equal: one object of each
    for number, (_, views) in enumerate(jobs):
        left = tuple(view for view in views if next(chosen))
        if left:
            numbers.append(number)
            kept.append(known.setdefault(left, left))
    return Chosen(jobs, numbers, kept)
