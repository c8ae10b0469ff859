from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnv2tl import store
from mnv2tl.errors import ArtifactError
from mnv2tl.state import Best, Commit, StateStore


def _arrays(number: int) -> dict[str, Any]:
    return {
        "predictions/kernel": np.full((4, 2), number, np.float32),
        "optimizer/0000/iteration": np.array(number, np.int64),
        "random/dropout": np.array([number, 1], np.uint32),
    }


def _commit(state: StateStore, epoch: int, *, best: Best | None = None) -> Commit:
    """Commit the arrays of an epoch, which is the best one unless another is given."""
    if best is None:
        file = state.save_arrays(f"best-{epoch:04}", _arrays(100 + epoch))
        best = Best(epoch=epoch, phase=0, value=1 / epoch, file=file)
    file = state.save_arrays(f"epoch-{epoch:04}", _arrays(epoch))
    history = tuple({"epoch": number, "loss": 0.1} for number in range(1, epoch + 1))
    commit = Commit(phase=0, file=file, history=history, best=best)
    state.commit(commit)
    return commit


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_commit_and_its_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    """Names, values, types and shapes; in a new process nothing is known but the folder."""
    commit = _commit(StateStore(tmp_path / "state"), 1)

    state = StateStore(tmp_path / "state")
    loaded = state.load()

    assert loaded == commit
    arrays = state.load_arrays(commit.file)
    assert arrays.keys() == _arrays(1).keys()
    for key, expected in _arrays(1).items():
        np.testing.assert_array_equal(arrays[key], expected)
        assert arrays[key].dtype == expected.dtype
    np.testing.assert_array_equal(
        state.load_arrays(commit.best.file)["predictions/kernel"], np.full((4, 2), 101)
    )


def test_a_commit_takes_no_more_memory_after_many_epochs(tmp_path: Path) -> None:
    """A training of days holds its rows once, and no text of them all."""

    def measure(epochs: int) -> int:
        state = StateStore(tmp_path / str(epochs))
        rows = tuple({"epoch": n, "loss": n / 7, "seconds": 0.1} for n in range(epochs))
        best = Best(epoch=1, phase=0, value=0.5, file="best")
        commit = Commit(phase=0, file="file", history=rows, best=best)
        tracemalloc.start()
        state.commit(commit)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak_bytes

    measure(10)  # what is imported late is there

    assert measure(5000) < measure(50) + 20_000  # 4 bytes a row


def test_a_state_is_sealed_as_any_other_file(tmp_path: Path) -> None:
    """It is written piece by piece, and is what one call would write but for spaces."""
    commits = StateStore(tmp_path)
    for epoch in (1, 2):
        _commit(commits, epoch)

    value = json.loads((tmp_path / "state.json").read_bytes())

    seal = value.pop(store.CONTENT_HASH)
    assert value == json.loads(
        json.dumps({"schema": 1, "commits": [asdict(each) for each in commits.commits]})
    )
    assert seal == store.sha256_json(value)


def test_no_state_yet_is_none(tmp_path: Path) -> None:
    """Neither a missing folder nor an empty one is an error."""
    assert StateStore(tmp_path / "missing").load() is None
    assert StateStore(tmp_path).load() is None


def test_equal_arrays_give_one_file_that_is_named_by_its_hash(tmp_path: Path) -> None:
    """The name proves the content, and writing twice costs nothing."""
    state = StateStore(tmp_path)

    names = [state.save_arrays("epoch-0001", _arrays(1)) for _ in range(2)]

    assert names[0] == names[1]
    assert state.save_arrays("epoch-0001", _arrays(2)) != names[0]


def test_the_last_two_commits_and_their_best_are_kept(tmp_path: Path) -> None:
    """Older files go; the best epoch stays however old it is."""
    state = StateStore(tmp_path)
    first = _commit(state, 1)
    commits = [_commit(state, epoch, best=first.best) for epoch in (2, 3, 4)]

    expected = {"state.json", commits[-2].file, commits[-1].file, first.best.file}
    assert _files(tmp_path) == expected
    assert StateStore(tmp_path).load() == commits[-1]


def test_a_new_best_replaces_the_former_only_after_both_commits_have_it(tmp_path: Path) -> None:
    """The commit before the newest must be able to stand in, with its own best."""
    state = StateStore(tmp_path)
    commits = [_commit(state, epoch) for epoch in (1, 2, 3)]

    named = {name for each in commits[1:] for name in (each.file, each.best.file)}
    assert _files(tmp_path) == {"state.json"} | named


def test_commits_go_on_after_a_load(tmp_path: Path) -> None:
    """A resumed run keeps the former commit beside its own."""
    former = _commit(StateStore(tmp_path), 1)
    state = StateStore(tmp_path)
    state.load()

    newest = _commit(state, 2, best=former.best)

    assert state.commits == [former, newest]
    assert former.file in _files(tmp_path)


@pytest.mark.parametrize("victim", ["file", "best"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_newest_commit_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], victim: str, harm: str
) -> None:
    """One epoch is lost and one warning says so; training goes on from there."""
    state = StateStore(tmp_path)
    before, newest = _commit(state, 1), _commit(state, 2)
    name = newest.file if victim == "file" else newest.best.file
    _harm(tmp_path / name, harm)

    state = StateStore(tmp_path)
    loaded = state.load()

    assert loaded == before
    warnings = capsys.readouterr().err.splitlines()
    assert warnings == [f"warning: state after epoch 2 is damaged: {name}"]
    again = _commit(state, 2)
    assert StateStore(tmp_path).load() == again


def _harm(path: Path, harm: str) -> None:
    content = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_no_whole_commit_is_refused_and_nothing_deleted(tmp_path: Path) -> None:
    """E403 lists what was tried; the user may have a copy of a file elsewhere."""
    state = StateStore(tmp_path)
    commits = [_commit(state, 1), _commit(state, 2)]
    for commit in commits:
        _harm(tmp_path / commit.file, "flip")
    before = _files(tmp_path)

    with pytest.raises(ArtifactError) as caught:
        StateStore(tmp_path).load()

    assert caught.value.code == "E403"
    assert all(commit.file in caught.value.message for commit in commits)
    assert _files(tmp_path) == before


def test_a_newer_schema_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """E404; a later version may keep more than this one understands."""
    _commit(StateStore(tmp_path), 1)
    path = tmp_path / "state.json"
    store.write_sealed_json(path, json.loads(path.read_text()) | {"schema": 2})

    with pytest.raises(ArtifactError) as caught:
        StateStore(tmp_path).load()

    assert caught.value.code == "E404"
    assert caught.value.message == "schema 2, this version reads <= 1"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"3",
        b"{}",
        b'{"schema": "1", "commits": []}',
        b'{"schema": 1, "commits": []}',
        b'{"schema": 1, "commits": [{}]}',
        b'{"schema": 1, "commits": [3]}',
        b'{"schema": 1, "commits": 3}',
        b'{"schema": 1, "commits": [{"phase": 0, "file": 3, "history": [], "best": {}}]}',
        b'{"schema": 1, "commits": [{"phase": 0, "file": 3, "history": [], "best":'
        b' {"epoch": 1, "phase": 0, "value": 1.0, "file": "a"}}]}',
    ],
)
def test_a_damaged_state_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """E403 whatever stands in it, and it is left as it is."""
    (tmp_path / "state.json").write_bytes(content)

    with pytest.raises(ArtifactError) as caught:
        StateStore(tmp_path).load()

    assert caught.value.code == "E403"
    assert (tmp_path / "state.json").read_bytes() == content


def test_a_crash_before_state_json_leaves_the_former_commit(tmp_path: Path) -> None:
    """New array files alone change nothing, and the next commit removes them."""
    state = StateStore(tmp_path)
    former = _commit(state, 1)
    orphan = state.save_arrays("epoch-0002", _arrays(99))

    state = StateStore(tmp_path)
    loaded = state.load()

    assert loaded == former
    assert orphan in _files(tmp_path)
    _commit(state, 2, best=former.best)
    assert orphan not in _files(tmp_path)


def test_load_arrays_refuses_a_file_that_is_not_its_name(tmp_path: Path) -> None:
    """E413, and a name cannot lead out of the folder."""
    state = StateStore(tmp_path / "state")
    name = state.save_arrays("epoch-0001", _arrays(1))
    outside = tmp_path / name
    (tmp_path / "state" / name).rename(outside)

    for wrong in (name, f"../{name}"):
        with pytest.raises(ArtifactError) as caught:
            state.load_arrays(wrong)
        assert caught.value.code == "E413"


def test_arrays_with_objects_are_never_written(tmp_path: Path) -> None:
    """An array of Python objects would have to be pickled."""
    with pytest.raises(ValueError, match="allow_pickle"):
        StateStore(tmp_path).save_arrays("epoch-0001", {"a": np.array([None])})

    assert _files(tmp_path) == set()
