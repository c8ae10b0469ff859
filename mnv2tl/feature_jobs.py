"""Which views of which images are asked for.

A list of pairs would hold an entry of each image for as long as features are computed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.views import ViewMaker
from mnv2tl.key_table import Keys, encode_keys

Views = tuple[int, ...]
Job = tuple[Entry, Views]
"""An image and the views of it that are asked for."""


class Jobs(Sequence[Job]):
    """Images and their views, as pairs that are made when they are asked for.

    Args:
        entries: The images.
        views: Of each; images that have the same views best share one tuple.

    Raises:
        ValueError: They are not equally many.

    Example:
        >>> from mnv2tl.data.entries import Entries, Entry
        >>> from mnv2tl.feature_jobs import Jobs
        >>> entry = Entry(
        ...     path="a.png", label=0, split="val", sha256="ab" * 32, bytes=9, width=4, height=3
        ... )
        >>> jobs = Jobs(Entries([entry, entry]), [(0, 1), (2,)])
        >>> len(jobs), jobs[1] == (entry, (2,)), jobs.count_views()
        (2, True, 3)
    """

    def __init__(self, entries: Entries, views: Sequence[Views]) -> None:
        """Keep both."""
        if len(entries) != len(views):
            raise ValueError(f"{len(entries)} images must have as many views, got {len(views)}")
        self.entries, self.views = entries, views

    def count_views(self) -> int:
        """Return the number of views of all images together."""
        return sum(map(len, self.views))

    def most_views(self) -> int:
        """Return the number of views of the image that has most."""
        return max(map(len, self.views), default=0)

    def keys(self, maker: ViewMaker) -> Iterator[str]:
        """Yield the key of each view of each image."""
        for sha256, views in zip(self.entries.hashes(), self.views, strict=True):
            for view in views:
                yield maker.key(sha256, view)

    def choose(self, maker: ViewMaker, is_chosen: Callable[[Keys], NDArray[np.bool_]]) -> Jobs:
        """Return the images with those views whose keys are chosen, without images of none.

        Args:
            maker: Names the keys of views.
            is_chosen: Tells of each key, in the order of the images and their views.
        """
        chosen = is_chosen(encode_keys(self.keys(maker)))
        if chosen.all():
            return self
        marks = iter(chosen.tolist())
        return self.with_views(tuple(view for view in views if next(marks)) for views in self.views)

    def with_views(self, views: Iterable[Views]) -> Jobs:
        """Return the images with other views, without those that then have none."""
        numbers, kept = array("Q"), []
        known: dict[Views, Views] = {}  # most are equal: one object of each
        for number, each in enumerate(views):
            if each:
                numbers.append(number)
                kept.append(known.setdefault(each, each))
        return Jobs(self.entries.take(numbers), kept)

    def without(self, paths: Iterable[str]) -> Jobs:
        """Return the jobs of images that have none of some paths."""
        gone = set(paths)
        pairs = zip(self.entries.paths(), self.views, strict=True)
        return self.with_views(() if path in gone else views for path, views in pairs)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.entries)

    @overload
    def __getitem__(self, at: int) -> Job: ...
    @overload
    def __getitem__(self, at: slice) -> Jobs: ...
    def __getitem__(self, at: Any) -> Any:
        """Return one of them, or some as Jobs."""
        if isinstance(at, slice):
            return Jobs(self.entries[at], self.views[at])
        return self.entries[at], self.views[at]

    def __iter__(self) -> Iterator[Job]:
        """Yield each."""
        return zip(self.entries, self.views, strict=True)
