"""Features of images: computed once and kept, or computed anew each time where they do not fit.

Both ways give the same numbers: what is computed anew goes through the same rounding to float16.
A training of few images begins when the first view of each is there; the others follow beside it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.images import UnreadableImageError
from mnv2tl.data.views import ViewMaker
from mnv2tl.errors import DataError, MachineError, ResultError
from mnv2tl.feature_cache import Features, FeatureSpace, make_room
from mnv2tl.feature_jobs import Job, Jobs
from mnv2tl.interrupts import raise_pending, wait_for
from mnv2tl.parallel import count_workers, map_ordered
from mnv2tl.progress import say, show_bar
from mnv2tl.trunk import Trunk

_PACK_BYTES = 8_000_000
_MOST_PACKS = 200
"""Of one training: a mapped file is an open one, and no more than 256 or 1,024 may be open."""

_GROUP_VIEWS = 8
"""That a thread computes at a time: handing each over singly takes a tenth of the time."""
_GROUP_BYTES = 1_000_000
"""Of features, if that is less: four groups of each thread may wait."""
_GROUPS_PER_WORKER = 8
"""At least, so that threads end at about the same time."""

_KEPT_BYTES = 128_000_000
"""Of resized pixels, which later views are made of without reading the images again."""
_MOST_WAITING = 25
"""Views of an image that may follow one by one: each makes a pack of its own."""


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
    pending: dict[int, Future[None]] = field(default_factory=dict)
    """View -> what ends when its features are there."""
    kept: dict[str, NDArray[np.uint8]] | None = None
    """SHA-256 of an image -> its plain pixels, while other views will be made of them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        return self.trunk.output_shape

    def read(self, entries: Entries, view: int) -> NDArray[np.float32]:
        """Return the features of one view of each image, shape (n, *shape).

        Raises:
            DataError: An image has to be read again, and cannot be (E309).
            ResultError: A feature that was computed beside is not finite (E602).
            MachineError: It did not fit into memory (E505).
        """
        self._wait_for(view)
        space = self.space  # what is computed beside may find the disk full
        if space is not None:
            return space.read([self.maker.key(sha256, view) for sha256 in entries.hashes()])
        pixels = list(map_ordered(lambda entry: self._make(entry, view), entries))
        features = self.trunk.run_in_threads(np.stack(pixels))
        return _store_type(features, self.trunk).astype(np.float32)

    def stop(self) -> None:
        """Leave views that nobody waits for, and that are not begun."""
        for future in self.pending.values():
            future.cancel()

    def _wait_for(self, view: int) -> None:
        if view in self.pending:
            wait_for(self.pending[view])
            del self.pending[view]

    def _make(self, entry: Entry, view: int) -> NDArray[np.uint8]:
        try:
            return self.maker.vary(self.maker.load(entry), entry, view)
        except UnreadableImageError as error:
            message = f"cannot be read any more: {error}"
            raise DataError("E309", message, path=entry.path, fix="scan it again") from error


def prepare(
    maker: ViewMaker,
    trunk: Trunk,
    jobs: Jobs,
    *,
    cache_root: Path,
    limit_bytes: int,
    beside: Executor | None = None,
) -> FeatureSource:
    """Compute the features that are not known yet, and return where to read them all.

    What could not be read is in `lost` of the result. If the features do not fit into the limit
    or on the disk, nothing is computed and the source computes each time.

    With `beside`, one view of each image is computed before the return, and the others there, in
    the order of the views, if the pixels of all images fit into memory, the views are not many and
    the trunk runs in onnxruntime. Reading waits for what is not there yet.

    Args:
        maker: Makes the pixels of a view.
        trunk: The frozen layers.
        jobs: Images and their views.
        cache_root: The feature cache's folder.
        limit_bytes: Size that the whole cache may have; 0 keeps nothing.
        beside: One thread that may go on after the return; None computes all before.

    Raises:
        ResultError: A feature is not finite (E602).
        MachineError: A few images did not fit into memory (E505).
    """
    space = FeatureSpace.open(
        cache_root,
        {"trunk": trunk.identity, "pixels": maker.identity()},
        shape=trunk.output_shape,
        dtype=_dtype(trunk),
        wanted=jobs.keys(maker),
    )
    todo = jobs.choose(maker, space.rows.first_unknown)
    count = todo.count_views()
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
    if beside is None or not _is_fit_to_wait(maker, trunk, todo):
        _compute_all(source, space, jobs)
        return source
    source.kept = {}
    unknown = jobs.choose(maker, space.rows.lacks)
    _compute_all(source, space, unknown.with_views(views[:1] for views in unknown.views))
    pairs = zip(unknown.entries.hashes(), unknown.views, strict=True)
    rest = unknown.with_views(views[1:] if sha256 in source.kept else () for sha256, views in pairs)
    for view in dict.fromkeys(itertools.chain.from_iterable(rest.views)):
        of_view = rest.with_views((view,) if view in views else () for views in rest.views)
        source.pending[view] = beside.submit(_compute_all, source, space, of_view, is_shown=False)
    beside.submit(source.kept.clear)
    return source


def _is_fit_to_wait(maker: ViewMaker, trunk: Trunk, todo: Jobs) -> bool:
    """Tell whether views are left to be computed beside a training, and may be."""
    most = todo.most_views()
    kept_bytes = len(todo) * 3 * maker.image_px**2
    is_small = kept_bytes <= _KEPT_BYTES and most <= _MOST_WAITING
    return most > 1 and is_small and trunk.runtime == "onnxruntime"


def _compute_all(
    source: FeatureSource, space: FeatureSpace, jobs: Jobs, *, is_shown: bool = True
) -> None:
    """Compute what is missing; if the disk is full the source computes each time from then on."""
    if source.space is None:
        return
    maker = source.maker
    todo = jobs.choose(maker, space.rows.first_unknown)
    try:
        while todo:
            _fill(source, space, todo, is_shown=is_shown)
            # Of equal files, one that can be read stands in for one that was lost.
            todo = jobs.without(source.lost).choose(maker, space.rows.first_unknown)
    except MachineError as error:
        if error.code == "E505":  # to compute them each time takes no less memory
            raise
        say(f"warning: {error.message}; features are computed in every epoch")
        source.space = None


def _fill(source: FeatureSource, space: FeatureSpace, todo: Jobs, *, is_shown: bool) -> None:
    """Compute views, and write what could be read of them."""
    count = todo.count_views()
    pack = _PackWriter(space, count)
    compute = functools.partial(_compute, source)
    row_bytes = int(np.prod(space.shape)) * space.dtype.itemsize
    few = count // (_GROUPS_PER_WORKER * count_workers())
    at_once = min(_GROUP_VIEWS, few, _GROUP_BYTES // row_bytes)
    groups = _group(todo, views=at_once, chunk=source.trunk.chunk_images)
    with contextlib.ExitStack() as stack:
        # What goes on beside another bar shows none.
        bar = show_bar("features", total=count, unit="views") if is_shown else None
        advance = stack.enter_context(bar) if bar else _ignore
        for (entry, views), made in itertools.chain.from_iterable(map_ordered(compute, groups)):
            if isinstance(made, UnreadableImageError):
                source.lost[entry.path] = made
            else:
                pack.add([source.maker.key(entry.sha256, view) for view in views], made)
            advance(len(views))
            raise_pending()
        pack.flush()


def _group(todo: Sequence[Job], *, views: int, chunk: int) -> Iterator[list[Job]]:
    """Yield jobs together that have so many views or more, and whole chunks where these are few."""
    group: list[Job] = []
    for job in todo:
        group.append(job)
        count = sum(len(each) for _, each in group)
        if count >= views and (count % chunk == 0 or count >= 8 * chunk):
            yield group
            group = []
    if group:
        yield group


def _compute(
    source: FeatureSource, jobs: Sequence[Job]
) -> list[tuple[Job, Features | UnreadableImageError]]:
    """Return the features of each job's views, shape (views, *shape), or why it has none."""
    made = [(job, _make_views(source, job)) for job in jobs]
    pixels = [each for _, each in made if not isinstance(each, UnreadableImageError)]
    if not pixels:
        return made
    features = iter(_store_type(source.trunk.run(np.concatenate(pixels)), source.trunk))
    return [
        (job, each)
        if isinstance(each, UnreadableImageError)
        else (job, np.stack(list(itertools.islice(features, len(each)))))
        for job, each in made
    ]


def _make_views(source: FeatureSource, job: Job) -> Features | UnreadableImageError:
    entry, views = job
    pixels = source.kept.get(entry.sha256) if source.kept is not None else None
    if pixels is None:
        try:
            pixels = source.maker.load(entry)
        except UnreadableImageError as error:
            return error
        if source.kept is not None:
            source.kept[entry.sha256] = pixels
    return np.stack([source.maker.vary(pixels, entry, view) for view in views])


def _ignore(count: int) -> None:
    """Show no progress."""


class _PackWriter:
    """Collects features to packs for the cache."""

    def __init__(self, space: FeatureSpace, count: int) -> None:
        self.space = space
        self.keys: list[str] = []
        self.features: list[Features] = []
        row_bytes = int(np.prod(space.shape)) * space.dtype.itemsize
        packs = max(1, _MOST_PACKS - len(space.packs))
        self.rows = max(1, _PACK_BYTES // row_bytes, math.ceil(count / packs))

    def add(self, keys: Sequence[str], features: Features) -> None:
        """Take some views."""
        self.keys += keys
        self.features.append(features)
        if len(self.keys) >= self.rows:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self.keys:
            self.space.add(self.keys, *self.features)
        self.keys, self.features = [], []


def _dtype(trunk: Trunk) -> np.dtype[Any]:
    # Without frozen layers the features are the pixels themselves.
    return np.dtype(np.uint8 if trunk.runtime == "none" else np.float16)


def _store_type(features: NDArray[np.float32], trunk: Trunk) -> Features:
    """Return features as they are stored.

    Raises:
        ResultError: One of them is not finite then (E602).
    """
    with np.errstate(over="ignore", invalid="ignore"):  # told below, in one line
        stored = features.astype(_dtype(trunk))
    if stored.dtype == np.float16 and not np.isfinite(stored).all():
        message = "the frozen layers gave a feature that is not finite in float16"
        raise ResultError("E602", message, fix="check the base weights: mnv2tl weights verify")
    return stored
