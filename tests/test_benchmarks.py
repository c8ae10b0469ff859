"""Tests of the pure parts of the benchmark scripts."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

from benchmarks import chart
from benchmarks.first_step import find_tensorflow
from benchmarks.parts import record
from benchmarks.parts.floor import count_moved_bytes, count_multiply_adds
from benchmarks.parts.folds import assign_folds, has_own_split, read_data, write_fold
from benchmarks.parts.pooled import Piece, bootstrap, compare, pool
from benchmarks.parts.settings import SETTINGS, is_default, make_config
from benchmarks.parts.speed_tables import gpu_table, list_bars, speed_table
from benchmarks.parts.timing import (
    Kind,
    UnequalError,
    largest_difference,
    make_bar,
    make_environment,
    run_in_turn,
    run_process,
    spread,
    time_in_turn,
)
from benchmarks.start_up import list_imports
from benchmarks.tables import PAGES, TABLES, fill_tables
from benchmarks.warm_cache import count_opened, summarise
from mnv2tl.mobilenet import list_layers


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
        "floor_seconds": 12.5,
        "ratio": 5.0,
        "repeats": 3,
        "runs": {"classic": [{"val_accuracy": 0.8}], "mnv2tl": [{"val_accuracy": 0.9}]},
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
    assert (
        "| stamps | jax | 100.0 s | 80.0 % | 20.0 s | 90.0 % | 5.0x | 12.5 s | 3 | P, 2025-01-01 |"
        in filled
    )
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
        "whole_work": [
            {
                "picture": [375, 500],
                "batch": 16,
                "threads": 1,
                "native": _road(50.0)["latency"][0],
                "keras-tensorflow": _road(55.0)["latency"][0],
            }
        ],
    }

    table = TABLES["roads"][1]([result])

    lines = table.splitlines()
    assert lines[0].endswith("| probabilities | 2 threads, batch 16 |")
    assert {line.count("|") for line in lines[:6]} == {8}
    assert "| 100 | 9.00 MB | 0.2 s | 2.0e-05 | 3.0e-06 | 50.0 ms, 1.00 (0.90 to 1.10) |" in table
    assert "60.0 ms, 1.20 (0.90 to 1.10)" in table
    assert "| `ImportError: no jax2onnx` | - | - | - | - | - |" in table
    assert "| - | - | - | - | - | 40.0 ms, 0.80 (0.90 to 1.10) |" in table
    assert "Keras on TensorFlow |" not in table
    assert "| 16 of 500 x 375 | 1 | 50.0 ms | 55.0 ms, 1.10 (0.90 to 1.10) |" in table
    assert "at 1 convolutions at most 4.0e-05 (`block_1`, values up to 39)" in table


def test_the_tables_of_all_pages_are_what_the_results_say() -> None:
    """No figure is typed: `python -m benchmarks.tables` writes them. Each table stands once."""
    results = {file.stem: json.loads(file.read_bytes()) for file in record.RESULTS.glob("*.json")}
    texts = [page.read_text("utf-8") for page in PAGES]

    assert [fill_tables(text, results) for text in texts] == texts
    assert sorted(re.findall(r"<!-- begin ([\w-]+) -->", "".join(texts))) == sorted(TABLES)


def test_times_are_taken_in_turn_and_the_first_ones_dropped() -> None:
    """Every call has its turn in every round; slow first rounds and first calls do not count."""
    called: list[str] = []

    def first() -> None:
        before = called.count("first")
        time.sleep(0.06 if before < 3 or before % 3 == 0 else 0)
        called.append("first")

    calls = {"first": first, "second": lambda: called.append("second")}
    seconds = time_in_turn(calls, rounds=3, count=2)

    assert [each.shape for each in seconds.values()] == [(3, 2), (3, 2)]
    assert seconds["first"].max() < 0.06
    turns = [called[at : at + 3] for at in range(0, 24, 3)]
    assert all(len(set(turn)) == 1 for turn in turns)
    rounds = zip(turns[::2], turns[1::2], strict=True)
    assert all({a[0], b[0]} == set(calls) for a, b in rounds)


def test_what_processes_say_of_themselves_is_kept_by_round() -> None:
    """The first round of each is dropped, and the others stay in their order."""
    answers = iter(range(10))

    found = run_in_turn({"only": lambda: float(next(answers))}, rounds=3)

    assert found == {"only": [1.0, 2.0, 3.0]}


def test_spread_has_median_quartiles_and_extremes() -> None:
    """One slow run moves the largest value and nothing else."""
    found = spread([[1.0, 2.0], [3.0, 4.0], [100.0, 3.0]])

    assert found["median"] == 3.0
    assert found["quartiles"] == [2.25, 3.75]
    assert (found["min"], found["max"], found["runs"]) == (1.0, 100.0, 6)


def test_the_largest_difference_of_equal_answers_is_reported() -> None:
    """Below the limit the difference itself comes back, so that it can be written down."""
    assert largest_difference([1.0, 2.0], [1.0, 2.5], limit=0.5) == 0.5


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ([1.0, 2.6], "answers differ by 6.0e-01, allowed 5e-01"),
        ([1.0, float("nan")], "answers differ by nan"),
        ([1.0], r"shapes \(2,\) and \(1,\)"),
    ],
)
def test_no_speed_is_reported_of_unequal_answers(theirs: list[float], message: str) -> None:
    """A quick wrong answer, no answer, or too few of them are no speed."""
    with pytest.raises(UnequalError, match=f"no speed is reported: {message}"):
        largest_difference([1.0, 2.0], theirs, limit=0.5)


@pytest.mark.parametrize(
    ("kind", "figure", "extremes", "asked", "reached"),
    [
        ("speed", 5.0, [2.0, 6.0], 5.0, True),
        ("speed", 5.0, [2.0, 6.0], 5.1, False),
        ("rate", 0.2, [1 / 6, 0.5], 0.3, False),
        ("difference", -8.0, [-15.0, -2.0], 1.0, True),
        ("value", 2.0, [2.0, 3.0], 1.9, False),
        ("value", 2.0, [2.0, 3.0], None, None),
    ],
)
def test_a_bar_is_judged_by_its_kind(
    kind: Kind, figure: float, extremes: list[float], asked: float | None, reached: bool | None
) -> None:
    """Times and rates divide the other way round, costs are differences; all by medians."""
    sides = {"ours": [2.0, 3.0, 2.0], "theirs": [4.0, 18.0, 10.0]}

    bar = make_bar("a", "b", kind=kind, unit="s", asked=asked, **sides)

    assert bar["figure"] == pytest.approx(figure)
    assert sorted(bar["range"]) == pytest.approx(extremes)
    assert bar["reached"] is reached


def test_a_bar_refuses_sides_that_were_not_measured_equally_often() -> None:
    """Rounds pair what was measured together."""
    with pytest.raises(ValueError, match="a: 2 measurements against 1"):
        make_bar("a", "b", kind="speed", ours=[1.0, 1.0], theirs=[1.0], unit="s", asked=1.0)


def test_timed_processes_may_write_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that forbids it trebles import times, and some machines set it."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    environment = make_environment(KERAS_BACKEND="jax")

    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["KERAS_BACKEND"] == "jax"


def test_a_process_that_fails_has_no_time() -> None:
    """A crash is quick; its exit status and its last words end the benchmark."""
    with pytest.raises(click.ClickException, match="exit 3: gone"):
        run_process(
            [sys.executable, "-S", "-c", "import sys; sys.stderr.write('gone'); sys.exit(3)"]
        )


def test_the_network_has_the_operations_of_its_paper() -> None:
    """Table 4 of arXiv:1801.04381: 300 million multiply-adds at width 1, 585 at width 1.4."""
    assert count_multiply_adds(list_layers(), classes=1000) == pytest.approx(300e6, rel=0.01)
    # Keras rounds the channels of width 1.4 up a little.
    wide = count_multiply_adds(list_layers(alpha=1.4), classes=1000)
    assert wide == pytest.approx(585e6, rel=0.01)


def test_activations_are_written_and_read_once() -> None:
    """A network of one convolution moves its output twice, four bytes a number."""
    assert count_moved_bytes(list_layers()[:3]) == 2 * 4 * 112 * 112 * 32


def test_opened_pictures_are_counted_around_the_checkpoint() -> None:
    """Results on a line of their own count, other files and failures do not."""
    trace = [
        '7 openat(AT_FDCWD</w>, "/d/a/1.png", O_RDONLY|O_NOFOLLOW) = 3</d/a/1.png>\n',
        '8 openat(AT_FDCWD</w>, "/d/a/2.png", O_RDONLY <unfinished ...>\n',
        '7 openat(AT_FDCWD</w>, "/d/a/3.png", O_RDONLY) = -1 ENOENT (No such file or directory)\n',
        "8 <... openat resumed>) = 4</d/a/2.png>\n",
        '7 openat(AT_FDCWD</w>, "/d/a", O_RDONLY|O_DIRECTORY) = 5</d/a>\n',
        '7 openat(AT_FDCWD</w>, "/r/best.keras", O_RDONLY) = 5</r/best.keras>\n',
        '7 openat(AT_FDCWD</w>, "/d/a/1.png", O_RDONLY) = 3</d/a/1.png>\n',
    ]
    pictures = {"/d/a/1.png", "/d/a/2.png", "/d/a/3.png"}

    assert count_opened(trace, pictures) == {"until best.keras": 2, "self-check": 1}


def test_the_warm_cache_is_judged_by_scan_and_features() -> None:
    """Both stages look at pictures, so their sum is what must be short."""
    warm = {"process": 8.0, "scan": 0.2, "features": 0.4, "fit": 4.0, "total": 7.0}
    empty = {"process": 16.0, "scan": 1.0, "features": 8.0, "fit": 4.0, "total": 15.0}
    pair: dict[str, dict[str, Any]] = {"warm": {"seconds": warm}, "empty": {"seconds": empty}}

    looks, whole = summarise([pair], None, "jax")["bars"]

    assert (looks["ours"], looks["theirs"]) == (pytest.approx(0.6), pytest.approx(9.0))
    assert looks["reached"] is False
    assert whole["figure"] == pytest.approx(2.0)


def test_the_costliest_imports_come_first() -> None:
    """Lines of other programs and the heading of the report are passed over."""
    report = "\n".join(
        [
            "import time: self [us] | cumulative | imported package",
            "import time:       100 |        100 |   numpy",
            "a warning | of | something",
            "import time:      2500 |       2600 | mnv2tl",
        ]
    )

    assert [row["module"] for row in list_imports(report)] == ["mnv2tl", "numpy"]
    assert list_imports(report, count=1)[0]["own_ms"] == 2.5


def test_an_import_of_tensorflow_is_found_at_any_depth() -> None:
    """Names that only contain it, such as Keras' own modules for it, are others."""
    line = "import time: 9 | 9 |       tensorflow.python"
    report = f"import time: 9 | 9 | keras.src.backend.tensorflow\n{line}"

    assert find_tensorflow(report) == [line]


def _speeds() -> dict[str, Any]:
    sides = {"ours": [10.0, 12.5, 20.0], "theirs": [100.0, 100.0, 100.0]}
    more = {"ours": [130.0], "theirs": [10.0]}
    return _end_to_end() | {
        "bars": [
            make_bar("train `x` & y", "z", kind="speed", unit="s", asked=20.0, **sides),
            make_bar("help", "pass", kind="difference", unit="ms", asked=150.0, **more),
        ]
    }


def test_the_table_of_speeds_says_what_was_asked_and_missed() -> None:
    """Each bar is a row with both figures, its range and the bar; results without bars are none."""
    table = speed_table([_end_to_end(), _speeds()])

    lines = table.splitlines()
    assert len(lines) == 6
    assert "| 12.5 s | 100.0 s | 8.0x (5.0x to 10.0x) | at least 20x: missed |" in lines[2]
    assert "| 130 ms | 10 ms | 120 ms (120 to 120) | at most 150 ms more |" in lines[3]
    assert lines[5].startswith("2025-01-01, 2 cores of P")


def test_the_table_of_speeds_names_a_processor_that_others_do_not_have() -> None:
    """Times of two machines would otherwise stand below each other as if they were of one."""
    other = _speeds() | {"machine": {"cores": 2, "processor": "Q"}}

    lines = speed_table([_speeds(), _speeds(), other]).splitlines()

    assert [", Q | z |" in line for line in lines if "train `x`" in line] == [False, False, True]


def test_the_table_of_speeds_names_the_floor() -> None:
    """What the machine allows stands below the table, where it was measured."""
    pair = {"operations": 2.5, "bytes": 1.25}
    floor = {"forward_ms": pair, "training_ms": pair, "peak_gflops": 239.1}

    table = speed_table([_speeds() | {"floor": floor | {"bandwidth_gb_per_second": 42.6}}])

    assert "forward 2.5 ms of operations and 1.2 ms of memory" in table
    assert "at 239 GFLOP/s and 43 GB/s as measured. 2025-01-01" in table


def test_the_table_of_a_card_says_how_near_its_limits_are() -> None:
    """Shares of what was measured on the card, and what it takes to start on it."""
    share = {"bandwidth": 0.386, "peak": 0.0238}
    training = {"part": "float32", "shares": {"ours": share, "stock": share}}
    training |= {"limits": {"bandwidth": 2.1e12, "peak": 3.7e14}}
    frozen = {"seconds_to_open": {"keras": 13.5, "onnxruntime": 0.09}}

    table = gpu_table([_speeds() | training, _speeds() | frozen])

    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 5
    assert "39 % of its bandwidth and 2.4 % of its peak (ours)" in table
    assert "2,100 GB/s and 370 TFLOP/s as measured." in table
    assert "13.5 s on the card and 0.1 s in onnxruntime." in table


def test_the_table_of_speeds_needs_bars() -> None:
    """An empty table would look as if nothing had been asked."""
    with pytest.raises(ValueError, match="no result file has bars"):
        speed_table([_end_to_end()])


def _compare(**speeds: float) -> list[dict[str, Any]]:
    return [
        make_bar(name, "z", kind="speed", ours=[1.0], theirs=[each], unit="s", asked=None)
        | {"processor": "test CPU"}
        for name, each in speeds.items()
    ]


def test_the_chart_draws_speeds_and_names_them() -> None:
    """It has a bar per speed of one processor, a title for its axis, and both times as text."""
    other = _speeds() | {"machine": _speeds()["machine"] | {"processor": "another"}}

    (axes,) = chart.draw(chart.choose_bars(list_bars([_speeds(), other]))).axes

    assert len(axes.patches) == 1
    assert axes.get_xlabel() == f"{chart.AXIS}\n{_speeds()['machine']['processor']}"
    assert [each.get_text() for each in axes.get_yticklabels()] == ["train x & y\nagainst z"]
    assert "8.0x   100.0 s → 12.5 s" in [each.get_text() for each in axes.texts]


def test_the_chart_gives_each_doubling_the_same_length() -> None:
    """A bar of 4x is twice as long as one of 2x, and a slower one goes to the left of 1x."""
    (axes,) = chart.draw(_compare(a=2.0, b=4.0, c=0.5)).axes

    drawn: list[Any] = list(axes.patches)
    scale: Any = axes.xaxis.get_transform()
    ends = [[each.get_x(), each.get_x() + each.get_width()] for each in drawn]
    assert ends == [[1, 2], [1, 4], [1, 0.5]]
    assert (axes.get_xscale(), scale.base) == ("log", 2)
    assert axes.get_xlim()[0] == 0.5


def test_the_chart_needs_speeds() -> None:
    """A chart of nothing is an error, not an empty picture."""
    with pytest.raises(ValueError, match="the chart needs comparisons of speed"):
        chart.draw([])


@pytest.mark.parametrize("form", chart.FORMATS)
def test_the_chart_says_what_it_shows(form: str) -> None:
    """In the file itself; the same results give the same bytes."""
    bars = _compare(a=2.0, b=4.0)

    content = chart.encode(bars, form)

    assert chart.read_description(content, form) == chart.describe(bars)
    assert chart.describe(bars) != chart.describe(_compare(a=2.1, b=4.0))
    assert chart.encode(bars, form) == content


@pytest.mark.parametrize("form", chart.FORMATS)
def test_the_chart_of_the_readme_is_what_the_results_say(form: str) -> None:
    """No bar is drawn by hand: `python -m benchmarks.chart` draws them."""
    content = chart.CHART.with_suffix(f".{form}").read_bytes()

    expected = chart.describe(chart.read_bars(record.RESULTS))
    assert chart.read_description(content, form) == expected


def test_the_list_of_scripts_is_whole() -> None:
    """`nox -s bench` offers what the README lists: every program beside it."""
    folder = record.ROOT / "benchmarks"
    listed = re.findall(r"`python -m benchmarks\.(\w+)", (folder / "README.md").read_text("utf-8"))
    programs = [path.stem for path in folder.glob("*.py")]

    assert sorted(listed) == sorted(programs)
