from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnv2tl.errors import MachineError
from mnv2tl.feature_cache import FeatureSpace, clear, list_packs, make_room

ROOT = Path(__file__).resolve().parent.parent
IDENTITY = {"trunk": {"graph_sha256": "ab"}, "pixels": {"image_px": 96}}
SHAPE = (2, 3)


def _open(root: Path, wanted: Iterable[str] = (), **changed: Any) -> FeatureSpace:
    values: dict[str, Any] = {"identity": IDENTITY, "shape": SHAPE, "dtype": np.dtype(np.float16)}
    values |= changed
    identity = values.pop("identity")
    return FeatureSpace.open(root, identity, wanted=wanted, **values)


def _rows(*numbers: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    return np.stack([np.full(SHAPE, number, np.float16) for number in numbers])


def _fill(root: Path, *packs: dict[str, int]) -> list[Path]:
    """Write packs of key -> number in one space; return their index files."""
    paths: list[Path] = []
    for pack in packs:
        space = _open(root)
        space.add(list(pack), _rows(*pack.values()))
        paths += space.index_paths
    return paths


def _use_at(index: Path, seconds: int) -> None:
    os.utime(index, (seconds, seconds))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """Return an empty folder that any user may reach, to be made read-only."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for folder in (Path(name), *Path(name).rglob("*")):
            if folder.is_dir():
                folder.chmod(0o755)


class _Stranger:
    """Makes folders read-only, and this process an ordinary user for a block."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> None:
        for folder in (self.root, *self.root.rglob("*")):
            if folder.is_dir():
                folder.chmod(0o555)
        self.was_root = os.geteuid() == 0
        if self.was_root:
            os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        if self.was_root:
            os.seteuid(0)


def test_features_come_back_in_a_new_process(tmp_path: Path) -> None:
    """Values, order and type: float16 on the disk, float32 when read."""
    values = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float16)
    _open(tmp_path).add(["a", "b", "c"], values)

    space = _open(tmp_path, ["c", "a"])

    features = space.read(["c", "a", "c"])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, values[[2, 0, 2]].astype(np.float32))


def test_features_can_be_read_at_once_where_they_were_added(tmp_path: Path) -> None:
    """Packs of one space add up."""
    space = _open(tmp_path)
    space.add(["a"], _rows(1))
    space.add(["b", "c"], _rows(2, 3))

    np.testing.assert_array_equal(space.read(["c", "a", "b"])[:, 0, 0], [3, 1, 2])
    assert len(space.index_paths) == 2


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    """Never another image's features, be it expected or not."""
    _fill(tmp_path, {"a": 1, "d": 2})

    for wanted in ([], ["a"], ["a", "b"], ["a", "b", "c"]):
        with pytest.raises(KeyError, match="b"):
            _open(tmp_path, wanted).read(["a", "b"] if wanted else ["b"])


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_a_pack_is_what_numpy_would_write(tmp_path: Path, dtype: Any) -> None:
    """Byte for byte, from however many parts; the cache of a former version stays of use."""
    values: np.ndarray[Any, Any] = np.arange(7 * 6).reshape(7, *SHAPE).astype(dtype)
    space = _open(tmp_path, dtype=np.dtype(dtype))

    space.add(list("abcdefg"), values[:4], values[4:5], values[5:])

    (index,) = space.index_paths
    np.save(tmp_path / "whole.npy", values)
    assert index.with_suffix(".npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    np.testing.assert_array_equal(space.read(["g", "a", "e"]), values[[6, 0, 4]])


def test_parts_that_are_not_one_row_a_key_are_refused(tmp_path: Path) -> None:
    """Else keys would name features of other images."""
    for parts in ([_rows(1)], [_rows(1), _rows(2, 3)]):
        space = _open(tmp_path)
        with pytest.raises(ValueError, match=r"a pack of shape \([13], "):
            space.add(["a", "b"], *parts)
        assert space.rows == {}
    assert list_packs(tmp_path) == []


def test_features_are_mapped_and_not_loaded(tmp_path: Path) -> None:
    """A million images' features do not fit into memory."""
    _fill(tmp_path, {"a": 1, "b": 2})

    first, second = _open(tmp_path, ["a"]), _open(tmp_path, ["b"])

    for space in (first, second):
        (pack,) = space.packs
        assert isinstance(pack.base, np.memmap)
        assert not pack.flags.writeable
    assert first.packs[0].base.filename == second.packs[0].base.filename  # type: ignore[union-attr]


def test_only_packs_with_wanted_keys_are_opened(tmp_path: Path) -> None:
    """Checking the hash of all others would read the whole cache."""
    first, second = _fill(tmp_path, {"a": 1, "b": 2}, {"c": 3})

    space = _open(tmp_path, ["c"])

    assert space.index_paths == {second}
    assert space.rows.keys() == {"c"}
    assert _open(tmp_path, ["a", "c"]).index_paths == {first, second}
    assert _open(tmp_path, []).index_paths == set()


@pytest.mark.parametrize(
    "changed",
    [
        {"identity": IDENTITY | {"trunk": {"graph_sha256": "ac"}}},
        {"identity": IDENTITY | {"pixels": {"image_px": 128}}},
        {"shape": (3, 2)},
        {"dtype": np.dtype(np.uint8)},
    ],
)
def test_another_identity_is_another_space(tmp_path: Path, changed: dict[str, Any]) -> None:
    """Weights, layers, size, shape and type part the cache."""
    _fill(tmp_path, {"a": 1})

    assert _open(tmp_path, ["a"], **changed).rows == {}
    assert _open(tmp_path, ["a"]).rows.keys() == {"a"}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _not_an_object(path: Path) -> None:
    path.write_text("[1, 2]")


def _rename_key(path: Path) -> None:
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"keys": [*index["keys"], "x"]}))


def _nest_keys(path: Path) -> None:
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"keys": [["a"]]}))


def _forge(path: Path) -> None:
    """Replace the array by one of another shape, with an index that has its hash."""
    from mnv2tl.store import sha256_file

    np.save(path.with_suffix(".npy"), np.zeros((2, 5), np.float16))
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"sha256": sha256_file(path.with_suffix(".npy"))}))


@pytest.mark.parametrize(
    ("suffix", "harm"),
    [
        (".npy", _flip),
        (".npy", _cut),
        (".npy", _empty),
        (".json", _cut),
        (".json", _empty),
        (".json", _not_an_object),
        (".json", _rename_key),
        (".json", _nest_keys),
        (".json", _forge),
    ],
)
def test_a_damaged_pack_is_dropped_with_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, harm: Any
) -> None:
    """Its features are unknown then, and can be added again; the other pack stays."""
    damaged, whole = _fill(tmp_path, {"a": 1, "b": 2}, {"c": 3})
    harm(damaged.with_suffix(suffix))

    space = _open(tmp_path, ["a", "b", "c"])

    assert space.rows.keys() == {"c"}
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f'warning: dropped a damaged cache entry "{damaged.stem}.npy": ')
    assert set(damaged.parent.iterdir()) == {whole, whole.with_suffix(".npy")}
    space.add(["a", "b"], _rows(1, 2))
    assert _open(tmp_path, ["a", "b", "c"]).read(["b"])[0, 0, 0] == 2
    assert capsys.readouterr().err == ""


def test_an_array_without_index_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process killed between the two files leaves no half of a pack, nor a warning."""
    (index,) = _fill(tmp_path, {"a": 1})
    index.unlink()

    assert _open(tmp_path, ["a"]).rows == {}
    assert capsys.readouterr().err == ""


def test_an_index_without_array_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process may be making room at this moment."""
    (index,) = _fill(tmp_path, {"a": 1})
    index.with_suffix(".npy").unlink()

    assert _open(tmp_path, ["a"]).rows == {}
    assert capsys.readouterr().err == ""


def test_list_packs_tells_last_use_and_size(tmp_path: Path) -> None:
    """Opening a pack for a wanted key counts as use; looking at it does not."""
    first, second = _fill(tmp_path, {"a": 1}, {"b": 2, "c": 3})
    _use_at(first, 1000)
    _use_at(second, 2000)
    assert [(used, path) for used, path, _ in list_packs(tmp_path)] == [
        (1000, first),
        (2000, second),
    ]

    _open(tmp_path, ["a"])

    packs = list_packs(tmp_path)
    assert [path for _, path, _ in packs] == [second, first]
    size = first.stat().st_size + first.with_suffix(".npy").stat().st_size
    assert packs[1][2] == size
    assert list_packs(tmp_path / "missing") == []


def _sizes(root: Path) -> dict[Path, int]:
    return {path: size for _, path, size in list_packs(root)}


def test_make_room_removes_the_oldest_first_and_no_more_than_needed(tmp_path: Path) -> None:
    """Whatever their names and spaces are."""
    paths = _fill(tmp_path, {"a": 1}, {"b": 2}, {"c": 3}, {"d": 4})
    for path, seconds in zip(paths, (3000, 1000, 4000, 2000), strict=True):
        _use_at(path, seconds)
    sizes = _sizes(tmp_path)
    limit = sum(sizes.values())

    has_room = make_room(tmp_path, need_bytes=sizes[paths[1]] + 1, limit_bytes=limit, keep=())

    assert has_room
    assert _sizes(tmp_path).keys() == {paths[0], paths[2]}
    assert not paths[1].with_suffix(".npy").exists()


def test_make_room_removes_nothing_where_there_is_room(tmp_path: Path) -> None:
    """The limit itself may be reached."""
    paths = _fill(tmp_path, {"a": 1}, {"b": 2})
    limit = sum(_sizes(tmp_path).values()) + 100

    assert make_room(tmp_path, need_bytes=100, limit_bytes=limit, keep=())
    assert _sizes(tmp_path).keys() == set(paths)


def test_make_room_keeps_packs_in_use(tmp_path: Path) -> None:
    """They are the oldest here, and the younger one goes."""
    paths = _fill(tmp_path, {"a": 1}, {"b": 2})
    _use_at(paths[0], 1000)
    limit = sum(_sizes(tmp_path).values())

    assert make_room(tmp_path, need_bytes=1, limit_bytes=limit, keep={paths[0]})
    assert _sizes(tmp_path).keys() == {paths[0]}


def test_make_room_removes_nothing_when_it_would_not_help(tmp_path: Path) -> None:
    """What is in use and what is needed are above the limit together: features stay."""
    paths = _fill(tmp_path, {"a": 1}, {"b": 2})
    sizes = _sizes(tmp_path)

    limit = sizes[paths[0]] + 99
    assert not make_room(tmp_path, need_bytes=100, limit_bytes=limit, keep={paths[0]})
    assert not make_room(tmp_path, need_bytes=1, limit_bytes=0, keep=())
    assert _sizes(tmp_path).keys() == set(paths)


def test_make_room_refuses_what_the_disk_cannot_hold(tmp_path: Path) -> None:
    """A limit above the free space is no promise."""
    assert not make_room(tmp_path, need_bytes=10**18, limit_bytes=10**19, keep=())


def test_make_room_clears_what_killed_processes_left(tmp_path: Path) -> None:
    """An array without index and a temporary file take room, and go with the oldest."""
    (index,) = _fill(tmp_path, {"a": 1})
    array, part = index.parent / "b.npy", index.parent / "c.npy.tmp-1-00ff"
    for orphan in (array, part):
        orphan.write_bytes(b"x" * 1000)
        _use_at(orphan, 1000)

    assert make_room(tmp_path, need_bytes=1000, limit_bytes=2000, keep={index})

    assert set(index.parent.iterdir()) == {index, index.with_suffix(".npy")}


def test_make_room_makes_the_folder(tmp_path: Path) -> None:
    """At the very first use there is none."""
    assert make_room(tmp_path / "new", need_bytes=1, limit_bytes=10, keep=())
    assert (tmp_path / "new").is_dir()


def test_make_room_warns_where_no_folder_can_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training goes on without a cache."""
    (tmp_path / "file").write_bytes(b"")

    assert not make_room(tmp_path / "file" / "cache", need_bytes=1, limit_bytes=10, keep=())
    assert "warning: no feature cache: " in capsys.readouterr().err


def test_a_read_only_cache_is_read(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cache that someone else filled is of use, though nothing can be added or removed."""
    (index,) = _fill(shared, {"a": 1})
    _use_at(index, 1000)

    with _Stranger(shared):
        space = _open(shared, ["a"])
        features = space.read(["a"])
        with pytest.raises(MachineError) as caught:
            space.add(["b"], _rows(2))
        has_room = make_room(shared, need_bytes=1, limit_bytes=_sizes(shared)[index], keep=())

    assert features[0, 0, 0] == 1
    assert caught.value.code == "E503"
    assert not has_room  # making it would mean to remove the pack
    assert capsys.readouterr().err == ""
    assert index.stat().st_mtime == 1000


def test_a_damaged_pack_in_a_read_only_cache_is_passed_over(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It cannot be removed, and must not stop the training either."""
    (index,) = _fill(shared, {"a": 1})
    _flip(index.with_suffix(".npy"))

    with _Stranger(shared):
        space = _open(shared, ["a"])

    assert space.rows == {}
    assert "warning: dropped a damaged cache entry" in capsys.readouterr().err


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from mnv2tl.feature_cache import FeatureSpace, make_room
root, first, identity = Path(sys.argv[1]), int(sys.argv[2]), {identity!r}
space = FeatureSpace.open(
    root, identity, shape=(2, 3), dtype=np.dtype(np.float16), wanted=map(str, range(60))
)
print("ready", flush=True)
sys.stdin.readline()
for number in range(first, first + 40):
    make_room(root, need_bytes=100, limit_bytes=10**9, keep=space.index_paths)
    space.add([str(number)], np.full((1, 2, 3), number, np.float16))
written = np.arange(first, first + 40)
print(bool((space.read(list(map(str, written)))[:, 0, 0] == written).all()))
"""


def test_row_35_two_processes_may_fill_one_space_at_once(tmp_path: Path) -> None:
    """Keys 0 to 39 from one and 20 to 59 from the other; both end well and the union is whole."""
    code = _WRITER.format(identity=IDENTITY)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), first],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in ("0", "20")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    outputs = [writer.communicate("go\n")[0] for writer in writers]

    keys = [str(number) for number in range(60)]
    space = _open(tmp_path, keys)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert outputs == ["True\n", "True\n"]
    np.testing.assert_array_equal(space.read(keys)[:, 1, 2], np.arange(60))


def test_clear_frees_everything_and_says_how_much(tmp_path: Path) -> None:
    """Orphans too; a second time there is nothing left."""
    root = tmp_path / "features"
    _fill(root, {"a": 1})
    before = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())

    assert clear(root) == before
    assert not root.exists()
    assert clear(root) == 0


def test_clear_names_what_cannot_be_removed(shared: Path) -> None:
    """E503 instead of a traceback."""
    _fill(shared / "features", {"a": 1})

    with _Stranger(shared), pytest.raises(MachineError, match="E503"):
        clear(shared / "features")


def test_too_many_open_files_are_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The packs stay; what could not be opened counts as unknown."""
    resource = pytest.importorskip("resource")
    for number in range(40):
        _open(tmp_path).add([f"k{number}"], _rows(number))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    try:
        space = _open(tmp_path, [f"k{number}" for number in range(40)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert capsys.readouterr().err == ""
    assert len(list(tmp_path.rglob("*.npy"))) == 40
    assert sys.version_info >= (3, 13) or 0 < len(space.rows) < 40
