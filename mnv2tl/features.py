"""Features of images: computed once and kept, or computed anew each time where they do not fit.

Both ways give the same numbers: what is computed anew goes through the same rounding to float16.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data.images import UnreadableImageError
from mnv2tl.data.manifest import Entry
from mnv2tl.data.views import ViewMaker
from mnv2tl.errors import DataError, MachineError, ResultError
from mnv2tl.feature_cache import FeatureSpace, make_room
from mnv2tl.interrupts import raise_pending
from mnv2tl.parallel import map_ordered
from mnv2tl.progress import say, show_bar
from mnv2tl.trunk import CHUNK_IMAGES, Trunk

_PACK_BYTES = 16_000_000

Job = tuple[Entry, tuple[int, ...]]
"""An image and the views of it that are asked for."""


@dataclass(slots=True, kw_only=True)
class FeatureSource:
    """Gives the features of views; see `prepare`."""

    maker: ViewMaker
    """Makes the pixels."""
    trunk: Trunk
    """Makes features of them."""
    space: FeatureSpace | None
    """Known features; None when they are computed each time they are asked for."""
    lost: dict[str, UnreadableImageError] = field(default_factory=dict)
    """Path -> why an image that the manifest names could not be read."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """The runtime is asked by one thread at a time: two requests of OpenVINO 2026.4 that are filled
    at once may wait for each other for ever."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self.trunk.output_shape

    def read(self, entries: Sequence[Entry], view: int) -> NDArray[np.float32]:
        """Return the features of one view of each image, shape (n, *shape).

        Raises:
            DataError: An image has to be read again, and cannot be (E309).
        """
        if self.space is not None:
            return self.space.read([self.maker.key(entry, view) for entry in entries])
        pixels = list(map_ordered(lambda entry: self._make(entry, view), entries))
        with self.lock:
            return _store_type(self.trunk, np.stack(pixels)).astype(np.float32)

    def _make(self, entry: Entry, view: int) -> NDArray[np.uint8]:
        try:
            return self.maker.vary(self.maker.load(entry), entry, view)
        except UnreadableImageError as error:
            message = f"cannot be read any more: {error}"
            raise DataError("E309", message, path=entry.path, fix="scan it again") from error


def prepare(
    maker: ViewMaker,
    trunk: Trunk,
    jobs: Sequence[Job],
    *,
    cache_root: Path,
    limit_bytes: int,
) -> FeatureSource:
    """Compute the features that are not known yet, and return where to read them all.

    What could not be read is in `lost` of the result. If the features do not fit into the limit
    or on the disk, nothing is computed and the source computes each time.

    Args:
        maker: Makes the pixels of a view.
        trunk: The frozen layers.
        jobs: Images and their views.
        cache_root: The feature cache's folder.
        limit_bytes: Size that the whole cache may have; 0 keeps nothing.

    Raises:
        ResultError: A feature is not finite (E602).
        MachineError: A few images did not fit into memory (E505).
    """
    space = FeatureSpace.open(
        cache_root,
        {"trunk": trunk.identity, "pixels": maker.identity()},
        shape=trunk.output_shape,
        dtype=_dtype(trunk),
        wanted=(maker.key(entry, view) for entry, views in jobs for view in views),
    )
    todo = _missing(maker, space, jobs)
    count = sum(len(views) for _, views in todo)
    need_bytes = count * int(np.prod(space.shape)) * space.dtype.itemsize
    source = FeatureSource(maker=maker, trunk=trunk, space=space)
    if not count:
        return source
    say(f"features: {count} views of {len(todo)} images to compute, {need_bytes / 1e6:.0f} MB")
    has_room = make_room(
        cache_root, need_bytes=need_bytes, limit_bytes=limit_bytes, keep=space.index_paths
    )
    if not has_room:
        say("features: they do not fit into the cache and are computed in every epoch")
        source.space = None
        return source
    try:
        while todo:
            _fill(source, space, todo)
            # Of equal files, one that can be read stands in for one that was lost.
            todo = _missing(maker, space, [job for job in jobs if job[0].path not in source.lost])
    except MachineError as error:
        if error.code == "E505":  # to compute them each time takes no less memory
            raise
        say(f"warning: {error.message}; features are computed in every epoch")
        source.space = None
    return source


def _missing(maker: ViewMaker, space: FeatureSpace, jobs: Sequence[Job]) -> list[Job]:
    todo = []
    seen: set[str] = set()
    for job in jobs:
        entry, views = job
        new = []
        for view in views:
            key = maker.key(entry, view)
            if key not in seen and key not in space.rows:
                new.append(view)
                seen.add(key)
        if new:
            todo.append(job if len(new) == len(views) else (entry, tuple(new)))
    return todo


def _fill(source: FeatureSource, space: FeatureSpace, todo: Sequence[Job]) -> None:
    maker = source.maker
    count = sum(len(views) for _, views in todo)

    def make_views(job: Job) -> tuple[Job, NDArray[np.uint8] | UnreadableImageError]:
        entry, views = job
        try:
            pixels = maker.load(entry)
        except UnreadableImageError as error:
            return job, error
        return job, np.stack([maker.vary(pixels, entry, view) for view in views])

    pack = _PackWriter(source.trunk, space)
    with show_bar("features", total=count, unit="views") as advance:
        for (entry, views), made in map_ordered(make_views, todo):
            if isinstance(made, UnreadableImageError):
                source.lost[entry.path] = made
            else:
                for view, pixels in zip(views, made, strict=True):
                    pack.add(maker.key(entry, view), pixels)
            advance(len(views))
            raise_pending()
        pack.flush()


class _PackWriter:
    """Collects pixels to chunks for the trunk, and features to packs for the cache."""

    def __init__(self, trunk: Trunk, space: FeatureSpace) -> None:
        self.trunk, self.space = trunk, space
        self.keys: list[str] = []
        self.pixels: list[NDArray[np.uint8]] = []
        self.features: list[NDArray[np.generic]] = []
        row_bytes = int(np.prod(space.shape)) * space.dtype.itemsize
        self.rows = max(1, _PACK_BYTES // row_bytes)

    def add(self, key: str, pixels: NDArray[np.uint8]) -> None:
        """Take one view."""
        self.keys.append(key)
        self.pixels.append(pixels)
        if len(self.pixels) == CHUNK_IMAGES:
            self._run()
        if len(self.keys) >= self.rows:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self.pixels:
            self._run()
        if self.keys:
            self.space.add(self.keys, np.concatenate(self.features))
        self.keys, self.features = [], []

    def _run(self) -> None:
        self.features.append(_store_type(self.trunk, np.stack(self.pixels)))
        self.pixels = []


def _dtype(trunk: Trunk) -> np.dtype[Any]:
    # Without frozen layers the features are the pixels themselves.
    return np.dtype(np.uint8 if trunk.runtime == "none" else np.float16)


def _store_type(trunk: Trunk, pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
    with np.errstate(over="ignore", invalid="ignore"):  # told below, in one line
        features = trunk.run(pixels).astype(_dtype(trunk))
    if features.dtype == np.float16 and not np.isfinite(features).all():
        message = "the frozen layers gave a feature that is not finite in float16"
        raise ResultError("E602", message, fix="check the base weights: mnv2tl weights verify")
    return features
