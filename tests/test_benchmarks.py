"""Tests of the pure parts of the benchmark scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import record
from benchmarks.folds import assign_folds, has_own_split, read_data, write_fold
from benchmarks.pooled import Piece, bootstrap, compare, pool
from benchmarks.settings import SETTINGS, is_default, make_config
from benchmarks.tables import TABLES, fill_tables


def _hashes(count: int, *, first: int = 0) -> list[str]:
    return [f"{number:064x}" for number in range(first, first + count)]


def _piece(seed: int, answers: dict[str, int], *, probability: float = 0.5) -> Piece:
    """Return a piece whose pictures are all of class 0."""
    rows = [
        {"path": path, "label": 0, "predicted": predicted, "probability": probability}
        for path, predicted in answers.items()
    ]
    return {"seed": seed, "predictions": rows}


def test_folds_hold_each_class_in_equal_parts() -> None:
    """Every fold gets a fifth of each class, one picture more or less."""
    images = [(sha256, 0) for sha256 in _hashes(23)]
    images += [(sha256, 1) for sha256 in _hashes(7, first=100)]

    fold_of = assign_folds(images, folds=5)

    for label, count in ((0, 23), (1, 7)):
        folds = [fold_of[sha256] for sha256, each in images if each == label]
        sizes = np.bincount(folds, minlength=5)
        assert sizes.sum() == count
        assert sizes.max() - sizes.min() <= 1


def test_folds_depend_on_content_and_seed_only() -> None:
    """The order of the files does not matter; another seed gives other folds."""
    images = [(sha256, 0) for sha256 in _hashes(40)]

    fold_of = assign_folds(images, folds=5)

    assert assign_folds(reversed(images), folds=5) == fold_of
    assert assign_folds([*images, images[3]], folds=5) == fold_of
    assert assign_folds(images, folds=5, seed=1) != fold_of


def test_one_fold_is_refused() -> None:
    """A single fold would leave nothing to train on."""
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        assign_folds([], folds=1)


def test_written_folds_validate_on_every_picture_once(tmp_path: Path) -> None:
    """Over all folds each file is in val exactly once, in train otherwise, under its class."""
    data = tmp_path / "data"
    for name in ("cats", "dogs"):
        (data / name).mkdir(parents=True)
        for number in range(4):
            levels = np.full((8, 8, 3), number * 10 + len(name) * (name == "dogs"), np.uint8)
            Image.fromarray(levels).save(data / name / f"{number}.png")
    manifest = read_data(data)

    validated: list[str] = []
    for fold in range(2):
        folder = tmp_path / f"fold{fold}"
        write_fold(manifest, folder, fold=fold, folds=2)
        found = read_data(folder)
        validated += [entry.path.removeprefix("val/") for entry in found.of_split("val")]
        assert has_own_split(folder)
        assert len(found.entries) == len(manifest.entries)

    assert sorted(validated) == [entry.path for entry in manifest.entries]


def test_pool_averages_over_seeds() -> None:
    """A picture that one of two seeds answers wrongly counts as half an error."""
    pieces = [
        _piece(0, {"a": 0}),
        _piece(0, {"b": 1}),
        _piece(1, {"b": 0, "a": 0}),
    ]

    pooled = pool(pieces)

    assert pooled.paths == ("a", "b")
    assert pooled.errors.tolist() == [0.0, 0.5]
    assert pooled.accuracy == 0.75
    assert pooled.by_seed == (0.5, 1.0)
    assert pooled.losses == pytest.approx(np.log(2.0))


def test_pool_refuses_a_picture_that_is_predicted_twice() -> None:
    """Folds that overlap would count a picture double."""
    with pytest.raises(ValueError, match="a is predicted twice with seed 0"):
        pool([_piece(0, {"a": 0}), _piece(0, {"a": 0})])


def test_pool_refuses_seeds_with_other_pictures() -> None:
    """A missing fold would compare unlike things."""
    with pytest.raises(ValueError, match="seed 1 predicted other pictures"):
        pool([_piece(0, {"a": 0, "b": 0}), _piece(1, {"a": 0})])


def test_compare_of_equal_answers_has_no_width() -> None:
    """Paired resampling leaves nothing when both recipes answer alike."""
    pooled = pool([_piece(0, {"a": 0, "b": 1, "c": 0, "d": 1})])

    result = compare(pooled, pooled)

    assert result["error_ratio"] == 1.0
    assert result["points"] == 0.0
    assert result["points_interval"] == (0.0, 0.0)


def test_compare_tells_gain_and_ratio() -> None:
    """Half the errors of the other recipe: ratio 0.5, and the points are the difference."""
    names = [f"{number:02}" for number in range(20)]
    ours = pool([_piece(0, {name: int(name < "02") for name in names})])
    other = pool([_piece(0, {name: int(name < "04") for name in names})])

    result = compare(ours, other)

    assert result["error_ratio"] == pytest.approx(0.5)
    assert result["points"] == pytest.approx(10.0)
    low, high = result["points_interval"]
    assert 0.0 <= low < 10.0 < high


def test_compare_without_errors_of_the_other_has_no_ratio() -> None:
    """Nothing can be divided by no error."""
    ours, other = pool([_piece(0, {"a": 1})]), pool([_piece(0, {"a": 0})])

    assert compare(ours, other)["error_ratio"] is None


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    """For a mean of many values the percentile interval is that of the normal distribution."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)

    low, high = bootstrap(lambda first, _: first, values, values)

    spread = 1.96 * values.std() / 20
    # 10,000 resamples give the bounds to about two hundredths of the spread.
    assert low == pytest.approx(values.mean() - spread, abs=0.1 * spread)
    assert high == pytest.approx(values.mean() + spread, abs=0.1 * spread)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_make_a_config(name: str) -> None:
    """Every setting of the ablation is one that a run takes, on top of the default."""
    config = make_config(SETTINGS[name], seed=3)

    assert config.seed == 3
    assert is_default(SETTINGS[name]) == (config == make_config({}, seed=3))


def _end_to_end() -> dict[str, Any]:
    return {
        "data": "stamps",
        "backend": "jax",
        "median_seconds": {"classic": 100.0, "mnv2tl": 20.0},
        "ratio": 5.0,
        "repeats": 3,
        "date": "2025-01-01",
        "machine": {"cores": 2, "processor": "P"},
        "versions": {"python": "3.11.7", "keras": "3.15.1"},
    }


def test_tables_are_filled_between_their_markers() -> None:
    """What stands between the markers is replaced, all else stays, and twice is as once."""
    text = "before\n<!-- begin end-to-end -->\nold\n<!-- end end-to-end -->\nafter\n"
    results = {"end-to-end-stamps-jax": _end_to_end()}

    filled = fill_tables(text, results)

    assert filled.startswith("before\n<!-- begin end-to-end -->\n")
    assert filled.endswith("<!-- end end-to-end -->\nafter\n")
    assert "| stamps | jax | 100.0 s | 20.0 s | 5.0x | 3 |" in filled
    assert "old" not in filled
    assert fill_tables(filled, results) == filled


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "no table 'nothing'"), ("backends", "there is no result backends")],
)
def test_tables_refuse_markers_without_results(name: str, message: str) -> None:
    """A table that cannot be made is an error, not an old table."""
    text = f"<!-- begin {name} -->\nold\n<!-- end {name} -->\n"

    with pytest.raises(ValueError, match=message):
        fill_tables(text, {"end-to-end-stamps-jax": _end_to_end()})


def _road(p50_ms: float) -> dict[str, Any]:
    latency = {"threads": 2, "batch": 16, "p50_ms": p50_ms}
    ratio = {"against_native": p50_ms / 50, "against_native_interval": [0.9, 1.1]}
    return {
        "nodes": 100,
        "bytes": 9_000_000,
        "seconds": 0.25,
        "max_logit_diff": 2e-5,
        "max_probability_diff": 3e-6,
        "latency": [latency | ratio],
    }


def test_the_table_of_roads_gives_each_road_a_row() -> None:
    """What a road lacks is a dash, a road that failed gives its error, and one left out no row."""
    point = {"name": "block_1", "max": 4e-5, "mean": 1e-6, "largest_value": 38.6}
    result = _end_to_end() | {
        "roads": {
            "native": _road(50.0),
            "tf2onnx": _road(60.0),
            "keras-jax": {"error": "ImportError: no jax2onnx"},
            "openvino": {"latency": _road(40.0)["latency"]},
        },
        "native_against_tf2onnx": {"convolutions": [point], "blocks": [point]},
    }

    table = TABLES["roads"][1]([result])

    lines = table.splitlines()
    assert lines[0].endswith("| probabilities | 2 threads, batch 16 |")
    assert {line.count("|") for line in lines[:6]} == {8}
    assert "| 100 | 9.00 MB | 0.2 s | 2.0e-05 | 3.0e-06 | 50.0 ms, 1.00 (0.90 to 1.10) |" in table
    assert "60.0 ms, 1.20 (0.90 to 1.10)" in table
    assert "| `ImportError: no jax2onnx` | - | - | - | - | - |" in table
    assert "| - | - | - | - | - | 40.0 ms, 0.80 (0.90 to 1.10) |" in table
    assert "Keras on TensorFlow" not in table
    assert "at 1 convolutions at most 4.0e-05 (`block_1`, values up to 39)" in table


def test_the_tables_of_the_readme_are_what_the_results_say() -> None:
    """No figure is typed: `python -m benchmarks.tables` writes them."""
    results = {file.stem: json.loads(file.read_bytes()) for file in record.RESULTS.glob("*.json")}
    text = (record.ROOT / "README.md").read_text("utf-8")

    assert fill_tables(text, results) == text
