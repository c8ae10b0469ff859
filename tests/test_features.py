from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mnv2tl import features as features_module
from mnv2tl.data.augment import PRESETS
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.views import PLAIN, ViewMaker
from mnv2tl.errors import DataError, InterruptError, MachineError, ResultError
from mnv2tl.feature_cache import list_packs
from mnv2tl.feature_jobs import Jobs
from mnv2tl.features import FeatureSource, prepare
from mnv2tl.interrupts import watch_signals
from mnv2tl.mobilenet import Layer, layer_array_shapes, list_layers
from mnv2tl.store import sha256_file

pytest.importorskip("onnx")

from mnv2tl.trunk import Trunk, open_trunk

PX = 96
LIMIT = 10**9


class _Counter:
    """A trunk that is quick and counts: per channel the mean of four quarters of the picture."""

    def __init__(self, *, factor: float = 1.0) -> None:
        self.chunks = 0
        self.factor = factor
        self.trunk = Trunk(
            runtime="onnxruntime",
            identity={"name": "quarters", "factor": factor},
            output_shape=(2, 2, 3),
            chunk_images=1,
            run_chunk=self._run,
        )

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.chunks += 1
        half = PX // 2
        quarters = pixels.reshape(len(pixels), 2, half, 2, half, 3)
        means: NDArray[np.float32] = quarters.mean(axis=(2, 4), dtype=np.float32)
        with np.errstate(invalid="ignore"):
            return means * np.float32(self.factor)


def _draw(root: Path, count: int, *, px: int = 40) -> Entries:
    """Draw images and return their entries."""
    rng = np.random.default_rng(5)
    entries = []
    for number in range(count):
        path = root / f"{number:03}.png"
        Image.fromarray(rng.integers(0, 256, (px, px, 3), np.uint8)).save(path)
        entries.append(_entry(path))
    return Entries(entries)


def _entry(path: Path) -> Entry:
    return Entry(
        path=path.name,
        label=0,
        split="train",
        sha256=sha256_file(path),
        bytes=path.stat().st_size,
        width=40,
        height=40,
    )


def _maker(root: Path, **changed: Any) -> ViewMaker:
    values: dict[str, Any] = {"image_px": PX, "augment": PRESETS["light"], "seed": 1}
    return ViewMaker(root=root, **values | changed)


def _jobs(*parts: tuple[Sequence[Entry], tuple[int, ...]]) -> Jobs:
    """Return jobs of images of which those of a part have the same views."""
    entries = Entries(entry for some, _ in parts for entry in some)
    return Jobs(entries, [views for some, views in parts for _ in some])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return an empty folder for images, beside `cache`."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the path of a cache that does not exist yet."""
    return tmp_path / "cache"


def test_features_are_those_of_every_view(data: Path, cache: Path) -> None:
    """Each is what the trunk gives for the pixels of this image and view, in float16."""
    entries, maker, counter = _draw(data, 5), _maker(data), _Counter()

    source = prepare(
        maker, counter.trunk, _jobs((entries, (PLAIN, 0, 1))), cache_root=cache, limit_bytes=LIMIT
    )

    assert source.shape == (2, 2, 3)
    assert source.lost == {}
    for view in (PLAIN, 0, 1):
        features = source.read(entries[::-1], view)
        for row, entry in enumerate(entries[::-1]):
            pixels = maker.vary(maker.load(entry), entry, view)
            expected = counter.trunk.run(pixels[None])[0].astype(np.float16)
            np.testing.assert_array_equal(features[row], expected.astype(np.float32))


def test_nothing_is_computed_twice(
    data: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not in a second run, nor for an image that two entries share, nor for views known before."""
    entries, maker, counter = _draw(data, 20), _maker(data), _Counter()
    twin = dataclasses.replace(entries[0], path="twin.png", split="val")

    def run(*views: int) -> int:
        counter.chunks = 0
        prepare(
            maker,
            counter.trunk,
            _jobs(([*entries, twin], views)),
            cache_root=cache,
            limit_bytes=LIMIT,
        )
        return counter.chunks

    first = run(0, 1)
    capsys.readouterr()

    assert first == 40
    assert run(0, 1) == 0
    assert run(1) == 0
    assert capsys.readouterr().err == ""
    assert run(1, 2) == 20
    assert "features: 20 views of 20 images to compute, 0 MB" in capsys.readouterr().err


def test_other_seed_other_trunk_other_size_share_nothing(data: Path, cache: Path) -> None:
    """But plain views do not depend on the seed."""
    entries, counter = _draw(data, 2), _Counter()

    def run(counter: _Counter, maker: ViewMaker, view: int) -> int:
        counter.chunks = 0
        prepare(
            maker, counter.trunk, _jobs((entries, (view,))), cache_root=cache, limit_bytes=LIMIT
        )
        return counter.chunks

    assert run(counter, _maker(data), 0) == 2
    assert run(counter, _maker(data, seed=2), 0) == 2
    assert run(counter, _maker(data), PLAIN) == 2
    assert run(counter, _maker(data, seed=2), PLAIN) == 0
    assert run(_Counter(factor=2.0), _maker(data), PLAIN) == 2


@pytest.mark.parametrize("limit_bytes", [0, 300])
def test_without_room_features_are_computed_each_time(
    data: Path, cache: Path, limit_bytes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says so, and nothing is written."""
    entries, counter = _draw(data, 20), _Counter()

    source = prepare(
        _maker(data),
        counter.trunk,
        _jobs((entries, (0,))),
        cache_root=cache,
        limit_bytes=limit_bytes,
    )

    assert source.space is None
    assert counter.chunks == 0
    assert "they do not fit into the cache and are computed in every epoch" in (
        capsys.readouterr().err
    )
    for _ in range(2):
        source.read(entries[:3], 0)
    assert counter.chunks == 6
    assert list_packs(cache) == []


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("runtime", ["onnxruntime", "keras"])
def test_cached_and_streamed_features_are_equal_bit_by_bit(
    data: Path, cache: Path, runtime: str
) -> None:
    """The road must not decide a result, though chunks hold other images on each."""
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    layers = list_layers(alpha=0.35, image_px=PX)[:50]
    trunk = open_trunk(
        layers, _draw_arrays(layers), scaling="symmetric", runtime=runtime, image_px=PX
    )
    entries, maker = _draw(data, 21), _maker(data)

    def run(limit_bytes: int) -> FeatureSource:
        return prepare(
            maker,
            trunk,
            _jobs((entries, (PLAIN, 0, 1))),
            cache_root=cache,
            limit_bytes=limit_bytes,
        )

    streamed, cached = run(0), run(LIMIT)

    assert (streamed.space, cached.space is None) == (None, False)
    for view in (PLAIN, 0, 1):
        for chosen in (entries[3:8], entries[::-1]):
            features = cached.read(chosen, view)
            assert features.dtype == np.float32
            assert features.std() > 0.1
            np.testing.assert_array_equal(features, streamed.read(chosen, view))


def _draw_arrays(layers: Sequence[Layer]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    arrays = {}
    for key, shape in [item for layer in layers for item in layer_array_shapes(layer).items()]:
        if key.endswith("/kernel"):
            fan_in = math.prod(shape[:2]) * (1 if "depthwise" in key else shape[2])
            array = rng.normal(0.0, math.sqrt(2 / fan_in), shape)
        else:
            array = rng.uniform(0.5, 1.5, shape)
        arrays[key] = array.astype(np.float32)
    return arrays


@pytest.mark.parametrize("limit_bytes", [0, LIMIT])
def test_without_frozen_layers_the_features_are_the_pixels(
    data: Path, cache: Path, limit_bytes: int
) -> None:
    """They take one byte each on the disk."""
    entries, maker = _draw(data, 3), _maker(data)
    trunk = open_trunk((), {}, scaling="unit", runtime="keras", image_px=PX)

    source = prepare(
        maker, trunk, _jobs((entries, (0,))), cache_root=cache, limit_bytes=limit_bytes
    )

    features = source.read(entries, 0)
    expected = np.stack([maker.vary(maker.load(entry), entry, 0) for entry in entries])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, expected)
    if limit_bytes:
        ((_, _, size),) = list_packs(cache)
        assert 3 * PX * PX * 3 < size < 3 * PX * PX * 3 + 2000


@pytest.mark.parametrize(
    ("harm", "reason"), [("remove", "vanished"), ("replace", "changed"), ("empty", "empty-file")]
)
@pytest.mark.parametrize("chunk_images", [1, 3, 16])
def test_a_lost_image_is_recorded_and_the_others_are_computed(
    data: Path, cache: Path, harm: str, reason: str, chunk_images: int
) -> None:
    """The training goes on without it, whatever is computed at a time."""
    entries, maker = _draw(data, 4), _maker(data)
    trunk = dataclasses.replace(_Counter().trunk, chunk_images=chunk_images)
    path = data / entries[1].path
    if harm == "remove":
        path.unlink()
    elif harm == "replace":
        os.replace(data / entries[2].path, path)
        entries = entries[:2] + entries[3:]
    else:
        path.write_bytes(b"")

    source = prepare(maker, trunk, _jobs((entries, (0, 1))), cache_root=cache, limit_bytes=LIMIT)

    assert {path: error.reason for path, error in source.lost.items()} == {entries[1].path: reason}
    others = entries[:1] + entries[2:]
    for entry, found in zip(others, source.read(others, 1), strict=True):
        pixels = maker.vary(maker.load(entry), entry, 1)
        expected = trunk.run(pixels[None])[0].astype(np.float16)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_lost_image_does_not_take_its_twin_with_it(
    data: Path, cache: Path, is_first: bool
) -> None:
    """Of two equal files one that can be read is enough for both; none that cannot is hidden."""
    (entry,) = _draw(data, 1)
    twin = dataclasses.replace(entry, path="twin.png")  # this file does not exist
    gone = dataclasses.replace(entry, path="gone.png", sha256="0" * 64)
    gone_too = dataclasses.replace(gone, path="gone-too.png")
    twins = [twin, entry] if is_first else [entry, twin]
    jobs = _jobs((twins, (0,)), ([gone, gone_too], (0,)))

    source = prepare(
        _maker(data),
        _Counter().trunk,
        jobs,
        cache_root=cache,
        limit_bytes=LIMIT,
    )

    assert source.lost.keys() == {gone.path, gone_too.path} | ({twin.path} if is_first else set())
    assert source.read(Entries([entry]), 0).shape == (1, 2, 2, 3)


def test_a_streamed_image_that_vanishes_stops_the_training(data: Path, cache: Path) -> None:
    """E309: an epoch with fewer images than the one before would not be the same training."""
    entries, counter = _draw(data, 3), _Counter()
    source = prepare(
        _maker(data), counter.trunk, _jobs((entries, (0,))), cache_root=cache, limit_bytes=0
    )
    (data / entries[1].path).unlink()

    with pytest.raises(DataError) as caught:
        source.read(entries, 0)

    assert (caught.value.code, caught.value.path) == ("E309", entries[1].path)
    assert "cannot be read any more" in caught.value.message


@pytest.mark.parametrize("factor", [1e6, math.nan, -math.inf])
@pytest.mark.parametrize("limit_bytes", [0, LIMIT])
def test_features_beyond_float16_are_refused(
    data: Path, cache: Path, factor: float, limit_bytes: int
) -> None:
    """E602; infinity in the cache would be the end of every later training."""
    entries = _draw(data, 2)
    trunk = _Counter(factor=factor).trunk
    identity = {"name": "quarters", "factor": str(factor)}
    trunk = dataclasses.replace(trunk, identity=identity)

    with pytest.raises(ResultError) as caught:
        prepare(
            _maker(data), trunk, _jobs((entries, (0,))), cache_root=cache, limit_bytes=limit_bytes
        ).read(entries, 0)

    assert caught.value.code == "E602"
    assert list_packs(cache) == []


def test_packs_stay_below_their_size(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process loses one pack and no more; the order of packs does not matter."""
    monkeypatch.setattr(features_module, "_PACK_BYTES", 5 * 24)  # five features of 2 x 2 x 3
    entries, counter = _draw(data, 18), _Counter()

    source = prepare(
        _maker(data), counter.trunk, _jobs((entries, (PLAIN,))), cache_root=cache, limit_bytes=LIMIT
    )

    assert len(list_packs(cache)) == 4
    expected = [_maker(data).load(entry).mean(axis=(0, 1)) for entry in entries]
    means = source.read(entries, PLAIN).mean(axis=(1, 2))
    # float16 has 11 bits for means near 128.
    np.testing.assert_allclose(means, expected, atol=0.1)


@pytest.mark.parametrize("views", [1, 2, 3, 5, 6, 7, 10, 16])
def test_few_rows_of_a_chunk_are_padding(data: Path, cache: Path, views: int) -> None:
    """Whatever the number of views of an image."""
    counter, count = _Counter(), 960 // views
    trunk = dataclasses.replace(counter.trunk, chunk_images=16)
    entries = _draw(data, 1)
    twins = [dataclasses.replace(entries[0], path=f"{number}.png") for number in range(count)]
    jobs = Jobs(
        Entries(twins),
        [tuple(range(number * views, (number + 1) * views)) for number in range(count)],
    )
    for twin in twins:
        os.link(data / entries[0].path, data / twin.path)

    prepare(_maker(data), trunk, jobs, cache_root=cache, limit_bytes=LIMIT)

    assert counter.chunks <= 1.2 * math.ceil(count * views / 16)


def test_packs_are_few_enough_to_be_open_at_once(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stays open while it is mapped; they grow instead."""
    monkeypatch.setattr(features_module, "_PACK_BYTES", 24)  # one feature of 2 x 2 x 3
    monkeypatch.setattr(features_module, "_MOST_PACKS", 3)
    entries = _draw(data, 8)

    source = prepare(
        _maker(data),
        _Counter().trunk,
        _jobs((entries, (PLAIN,))),
        cache_root=cache,
        limit_bytes=LIMIT,
    )

    assert source.space is not None
    assert [len(pack) for pack in source.space.packs] == [3, 3, 2]


def test_an_unusable_cache_folder_only_disables_the_cache(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands where the folder should be: one warning, and features all the same."""
    (tmp_path / "file").write_bytes(b"")
    entries, counter = _draw(data, 3), _Counter()

    source = prepare(
        _maker(data),
        counter.trunk,
        _jobs((entries, (0,))),
        cache_root=tmp_path / "file",
        limit_bytes=LIMIT,
    )

    assert source.space is None
    assert capsys.readouterr().err.count("warning: ") == 1
    assert source.read(entries, 0).shape == (3, 2, 2, 3)


@pytest.mark.skipif(os.name == "nt", reason="needs permissions of POSIX")
def test_a_read_only_cache_folder_only_disables_the_cache(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The warning names the reason. Root may write everywhere, so it is nobody for a while."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        cache = Path(name) / "cache"
        cache.mkdir(mode=0o555)
        entries, counter = _draw(Path(name), 3), _Counter()
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            source = prepare(
                _maker(Path(name)),
                counter.trunk,
                _jobs((entries, (0,))),
                cache_root=cache,
                limit_bytes=LIMIT,
            )
            features = source.read(entries, 0)
        finally:
            if is_root:
                os.seteuid(0)
            cache.chmod(0o755)

    assert source.space is None
    assert features.shape == (3, 2, 2, 3)
    assert "not writable: Permission denied; features are computed in every epoch" in (
        capsys.readouterr().err
    )


def test_row_42_too_little_memory_ends_the_work(data: Path, cache: Path) -> None:
    """Unlike a full disk: computed each time, the features would need no less of it."""

    def fail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise MemoryError

    trunk = dataclasses.replace(_Counter().trunk, run_chunk=fail)

    with pytest.raises(MachineError, match=r"E505 .*images in the frozen layers did not fit"):
        prepare(
            _maker(data), trunk, _jobs((_draw(data, 2), (0,))), cache_root=cache, limit_bytes=LIMIT
        )


def _read_all(source: FeatureSource, entries: Sequence[Entry], *views: int) -> list[Any]:
    return [source.read(Entries(entries), view) for view in views]


@contextlib.contextmanager
def _prepare_beside(
    data: Path, trunk: Trunk, jobs: Jobs, cache: Path
) -> Iterator[tuple[FeatureSource, threading.Event]]:
    """Yield a source whose later views are computed when the event is set."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        beside.submit(gate.wait, 20)
        source = prepare(
            _maker(data), trunk, jobs, cache_root=cache, limit_bytes=LIMIT, beside=beside
        )
        yield source, gate


def test_later_views_are_computed_beside_of_the_pixels_that_are_known(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    """The first view of each image is there at once; no file is read for the others."""
    entries, maker, counter = _draw(data, 5), _maker(data), _Counter()
    twin = dataclasses.replace(entries[0], path="twin.png")  # this file does not exist
    jobs = _jobs(([twin, *entries[:4]], (0, 1, 2)), (entries[4:], (PLAIN,)))
    whole = prepare(maker, counter.trunk, jobs, cache_root=tmp_path / "other", limit_bytes=LIMIT)
    counter.chunks = 0

    with _prepare_beside(data, counter.trunk, jobs, cache) as (source, gate):
        chunks = counter.chunks
        first = _read_all(source, entries[:4], 0), _read_all(source, entries[4:], PLAIN)
        for path in data.iterdir():
            path.unlink()
        gate.set()
        found = _read_all(source, [twin, *entries[:4]], 2, 1, 0)

    assert (chunks, counter.chunks) == (4 + 1, 4 * 3 + 1)
    np.testing.assert_array_equal(first[0], _read_all(whole, entries[:4], 0))
    np.testing.assert_array_equal(first[1], _read_all(whole, entries[4:], PLAIN))
    np.testing.assert_array_equal(found, _read_all(whole, [twin, *entries[:4]], 2, 1, 0))
    assert list(source.lost) == ["twin.png"]
    assert not source.kept


def test_what_is_known_or_lost_is_not_computed_beside(data: Path, cache: Path) -> None:
    """A killed training left some views of some images; one image is gone since."""
    entries, maker, counter = _draw(data, 4), _maker(data), _Counter()
    options: dict[str, Any] = {"cache_root": cache, "limit_bytes": LIMIT}
    prepare(maker, counter.trunk, _jobs((entries[:1], (0, 1)), (entries[1:2], (0,))), **options)
    (data / entries[3].path).unlink()
    counter.chunks = 0

    with ThreadPoolExecutor(1) as beside:
        source = prepare(maker, counter.trunk, _jobs((entries, (0, 1))), **options, beside=beside)
        found = _read_all(source, entries[:3], 0, 1)

    assert counter.chunks == 1 + 2
    assert list(source.lost) == [entries[3].path]
    expected = prepare(maker, counter.trunk, _jobs((entries[:3], (0, 1))), **options)
    np.testing.assert_array_equal(found, _read_all(expected, entries[:3], 0, 1))


@pytest.mark.parametrize("reason", ["too many images", "too many views", "a graphics card"])
def test_views_that_may_not_wait_are_computed_before(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Their pixels would fill the memory, or two threads would ask one Keras model."""
    entries, counter = _draw(data, 3), _Counter()
    trunk = counter.trunk
    if reason == "too many images":
        monkeypatch.setattr(features_module, "_KEPT_BYTES", 3 * 3 * PX**2 - 1)
    elif reason == "too many views":
        monkeypatch.setattr(features_module, "_MOST_WAITING", 1)
    else:
        trunk = dataclasses.replace(trunk, runtime="keras")

    with ThreadPoolExecutor(1) as beside:
        source = prepare(
            _maker(data),
            trunk,
            _jobs((entries, (0, 1))),
            cache_root=cache,
            limit_bytes=LIMIT,
            beside=beside,
        )

        assert counter.chunks == 3 * 2
        assert source.kept is None
        assert not source.pending


def test_a_feature_computed_beside_that_is_not_finite_is_told_by_the_reader(
    data: Path, cache: Path
) -> None:
    """Whoever needs it gets the error; the first view was sound."""
    entries, counter = _draw(data, 2), _Counter()

    with _prepare_beside(data, counter.trunk, _jobs((entries, (0, 1))), cache) as (source, gate):
        counter.factor = np.inf
        gate.set()

        assert np.isfinite(source.read(entries, 0)).all()
        with pytest.raises(ResultError, match="E602"):
            source.read(entries, 1)


def test_a_cache_that_fails_beside_is_done_without(
    data: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder is a file by then: one warning, and the reader computes what it needs."""
    entries, counter = _draw(data, 2), _Counter()
    jobs = _jobs((entries, (0, 1, 2)))

    with _prepare_beside(data, counter.trunk, jobs, cache) as (source, gate):
        shutil.rmtree(cache)
        cache.write_bytes(b"")
        gate.set()
        found = _read_all(source, entries, 1, 2, 0)

    assert source.space is None
    assert capsys.readouterr().err.count("features are computed in every epoch") == 1
    other = cache.with_name("other")
    expected = prepare(_maker(data), counter.trunk, jobs, cache_root=other, limit_bytes=LIMIT)
    np.testing.assert_array_equal(found, _read_all(expected, entries, 1, 2, 0))


def test_views_that_nobody_waits_for_can_be_left(data: Path, cache: Path) -> None:
    """A training that ends early does not wait for the views of epochs that it never saw."""
    counter, jobs = _Counter(), _jobs((_draw(data, 2), (0, 1, 2)))

    with _prepare_beside(data, counter.trunk, jobs, cache) as (source, gate):
        source.stop()
        gate.set()

    assert counter.chunks == 2
    assert not source.kept


@pytest.mark.skipif(os.name == "nt", reason="needs signals of POSIX")
def test_a_signal_ends_the_wait_for_features(data: Path, cache: Path) -> None:
    """Ctrl-C while a view is still being computed."""
    entries, trunk = _draw(data, 2), _Counter().trunk

    with watch_signals(), _prepare_beside(data, trunk, _jobs((entries, (0, 1))), cache) as begun:
        source, gate = begun
        timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        try:
            with pytest.raises(InterruptError):
                source.read(entries, 1)
        finally:
            gate.set()


@pytest.mark.parametrize(
    ("of_each", "views", "chunk", "sizes"),
    [
        (1, 8, 1, [8, 8, 4]),
        (3, 8, 1, [9, 9, 9, 9, 9, 9, 6]),
        (1, 0, 1, [1] * 20),  # of few pictures each is handed over singly
        (1, 8, 16, [16, 4]),  # whole chunks, since a part of one takes as long
        (3, 8, 16, [48, 12]),
        (25, 8, 16, [150, 150, 150, 50]),  # a whole chunk would be many pictures
    ],
)
def test_threads_get_some_views_and_whole_chunks(
    of_each: int, views: int, chunk: int, sizes: list[int]
) -> None:
    """Every view once and in order; not so many that threads end at different times."""
    todo: list[Any] = [(number, tuple(range(of_each))) for number in range(20)]

    groups = list(features_module._group(todo, views=views, chunk=chunk))

    assert [job for group in groups for job in group] == todo
    assert [sum(len(each) for _, each in group) for group in groups] == sizes
