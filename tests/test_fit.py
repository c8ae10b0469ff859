from __future__ import annotations

import dataclasses
import gc
import hashlib
import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl.config import TrainConfig
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.views import PLAIN, ViewMaker
from mnv2tl.errors import ArtifactError, ResultError
from mnv2tl.feature_cache import FeatureSpace
from mnv2tl.features import FeatureSource
from mnv2tl.mobilenet import cut_at, layer_array_shapes, list_layers
from mnv2tl.state import Commit, StateStore

pytest.importorskip("keras")
pytest.importorskip("onnx")

import keras

from mnv2tl.batches import batches_of_epoch, order_of_epoch, weigh_classes
from mnv2tl.fit import Split, build_head, fit_phase, predict_logits
from mnv2tl.keras_model import get_arrays, set_arrays
from mnv2tl.phase import Phase, list_phases
from mnv2tl.preparation import initial_dense
from mnv2tl.trunk import Trunk

pytestmark = pytest.mark.usefixtures("backend")

LAYERS = list_layers(alpha=0.35, image_px=96)
CLASSES = 3
VIEWS = (PLAIN, 0, 1)
Arrays = dict[str, NDArray[Any]]


def _config(**changed: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "alpha": 0.35,
        "image_px": 96,
        "batch_size": 8,
        "views": 2,
        "trainable_layers": 0,
        "dropout": 0.0,
        "epochs": 3,
        "learning_rate": 0.01,
        "seed": 5,
    }
    return TrainConfig(data=Path("data"), out=Path("run"), **values | changed)


def _entries(count: int, split: str) -> Entries:
    """Return images of classes 0, 0, 1, 2, 0, 0, 1, 2, ...: the first class is twice as large."""
    return Entries(
        Entry(
            path=f"{split}/{number}.png",
            label=(0, 0, 1, 2)[number % 4],
            split=split,  # type: ignore[arg-type]
            sha256=hashlib.sha256(f"{split} {number}".encode()).hexdigest(),
            bytes=1,
            width=96,
            height=96,
        )
        for number in range(count)
    )


SPLIT = Split(train=_entries(24, "train"), val=_entries(12, "val"))


class _Recorder(FeatureSource):
    """Gives features, and notes which images and which view were asked for."""

    def read(self, entries: Any, view: int) -> NDArray[np.float32]:
        """Return the features of one view of each image."""
        READ.append((view, tuple(entry.path for entry in entries)))
        return super().read(entries, view)


READ: list[tuple[int, tuple[str, ...]]] = []

# Three epochs of `_config()`: loss, val_loss, val_accuracy.
GOLDEN_FIGURES = [
    [2.122388, 1.999891, 0.25],
    [1.620554, 2.070380, 1 / 3],
    [0.002794, 2.139721, 5 / 12],
]


def _source(
    folder: Path,
    config: TrainConfig,
    *,
    split: Split = SPLIT,
    spoil: float | None = None,
    spoilt: str = "train",
) -> FeatureSource:
    """Return drawn features that depend on class, image and view; no image is read.

    Args:
        folder: Where the features go.
        config: Decides the cut, and so the shape.
        split: The images.
        spoil: Put into one feature of every image of a split.
        spoilt: That split.
    """
    cut = cut_at(LAYERS, config.trainable_layers)
    shape = LAYERS[cut - 1].output_shape
    maker = ViewMaker(root=folder, image_px=96, augment=config.augment, seed=config.seed)
    space = FeatureSpace.open(
        folder / "features", {}, shape=shape, dtype=np.dtype(np.float16), wanted=()
    )
    keys, rows = [], []
    for entry in {entry.sha256: entry for entry in (*split.train, *split.val)}.values():
        for view in VIEWS:
            rng = np.random.default_rng([int(entry.sha256[:8], 16), view + 1])
            features = rng.normal(0.0, 1.0, shape)
            features[..., entry.label] += 1.5
            if spoil is not None and entry.split == spoilt:
                features[..., 0] = spoil
            keys.append(maker.key(entry.sha256, view))
            rows.append(features.astype(np.float16))
    space.add(keys, np.stack(rows))
    trunk = Trunk(
        runtime="onnxruntime",
        identity={},
        output_shape=shape,
        chunk_images=1,
        run_chunk=lambda pixels: pixels.astype(np.float32),
    )
    return _Recorder(maker=maker, trunk=trunk, space=space)


def _first_arrays() -> Arrays:
    rng = np.random.default_rng(9)
    arrays: Arrays = {}
    for key, shape in [item for layer in LAYERS for item in layer_array_shapes(layer).items()]:
        if key.endswith("/kernel"):
            array = rng.normal(0.0, 0.1, shape)
        else:
            array = rng.uniform(0.5, 1.5, shape)
        arrays[key] = array.astype(np.float32)
    return arrays | initial_dense(1280, CLASSES, np.random.default_rng(10))


FIRST_ARRAYS = _first_arrays()


def _ignore(*_: Any) -> None:
    """Take what the trainer reports."""


def _fit(
    folder: Path,
    config: TrainConfig,
    *,
    phase: Phase | None = None,
    source: FeatureSource | None = None,
    split: Split = SPLIT,
    resume: bool = False,
    advance: Callable[[int], None] = _ignore,
    report: Callable[[dict[str, Any], bool], None] = _ignore,
) -> tuple[StateStore, Commit]:
    """Train one phase in `folder/state`, from the last commit if it is a resume."""
    state = StateStore(folder / "state")
    start = state.load()
    assert (start is not None) is resume
    phase = phase or list_phases(config)[0]
    source = source or _source(folder, config, split=split)
    head = build_head(LAYERS, phase, config, classes=CLASSES, shape=source.shape)
    commit = fit_phase(
        head,
        phase,
        config,
        source=source,
        split=split,
        state=state,
        start=start,
        first_arrays=FIRST_ARRAYS,
        advance=advance,
        report=report,
    )
    return state, commit


def _figures(commit: Commit) -> list[dict[str, Any]]:
    """Return the history without times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in commit.history]


def _assert_equal_arrays(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.parametrize(
    ("count", "batch_norm", "first", "trained"),
    [
        (0, "frozen", "predictions", ["predictions"]),
        (4, "frozen", "Conv_1", ["Conv_1", "predictions"]),
        (4, "train", "Conv_1", ["Conv_1", "Conv_1_bn", "predictions"]),
        # The cut lies before the residual block, whose first layers stay frozen.
        (15, "frozen", "block_15_expand", ["block_15_project", "block_16_expand"]),
        (154, "frozen", "scaling", ["Conv1"]),
    ],
)
def test_build_head_holds_the_layers_behind_the_cut(
    count: int, batch_norm: str, first: str, trained: list[str]
) -> None:
    """It reads features, or pixels when nothing is frozen, and gives logits."""
    config = _config(trainable_layers=count, finetune_layers=count, batch_norm=batch_norm)
    cut = cut_at(LAYERS, count)
    shape = LAYERS[cut - 1].output_shape if cut else (96, 96, 3)

    head = build_head(LAYERS, list_phases(config)[0], config, classes=CLASSES, shape=shape)

    assert head.input_shape == (None, *shape)
    assert head.output_shape == (None, CLASSES)
    assert head.layers[1].name == first
    names = [layer.name for layer in head.layers if layer.trainable_weights]
    assert names[: len(trained)] == trained
    assert head.layers[-1].activation.__name__ == "linear"


def test_predict_logits_does_not_depend_on_how_many_are_asked_for(tmp_path: Path) -> None:
    """130 images in three padded batches, or one at a time: the same bits."""
    config = _config()
    split = Split(train=Entries(), val=_entries(130, "val"))
    source = _source(tmp_path, config, split=split)
    head = build_head(LAYERS, list_phases(config)[0], config, classes=CLASSES, shape=source.shape)
    set_arrays(head, FIRST_ARRAYS)

    together = predict_logits(head, source, split.val)

    assert together.shape == (130, CLASSES)
    chosen = (0, 63, 64, 129)
    alone = np.concatenate([predict_logits(head, source, split.val.take([i])) for i in chosen])
    np.testing.assert_array_equal(together[list(chosen)], alone)
    features = source.read(split.val, PLAIN)
    # float32 sums of 1280 products.
    expected = features @ FIRST_ARRAYS["predictions/kernel"]
    np.testing.assert_allclose(together, expected, atol=1e-4)


def test_fit_reads_the_batches_of_order_and_view(tmp_path: Path) -> None:
    """Epoch by epoch in the order and the view that NumPy says, in batches of ten."""
    config = _config(batch_size=10)
    source = _source(tmp_path, config)
    READ.clear()

    _fit(tmp_path, config, source=source)

    validation = (PLAIN, tuple(entry.path for entry in SPLIT.val))
    epochs: list[list[tuple[int, tuple[str, ...]]]] = [[]]
    for each in READ:
        if each == validation:
            epochs.append([])
        else:
            epochs[-1].append(each)
    assert epochs.pop() == []
    for epoch, batches in enumerate(epochs):
        order = order_of_epoch(5, epoch, 24)
        assert batches == [
            (epoch % 2, tuple(SPLIT.train[i].path for i in order[start : start + 10]))
            for start in (0, 10, 20)
        ]


def test_a_batch_holds_features_targets_and_weights(tmp_path: Path) -> None:
    """Of the same images; the first class has twice as many and half the weight."""
    config = _config(batch_size=10, class_weights="balanced")
    source = _source(tmp_path, config)
    weights = weigh_classes(SPLIT.train, config, classes=CLASSES)

    batches = list(batches_of_epoch(source, SPLIT.train, config, 1, weights))

    entries = SPLIT.train.take(order_of_epoch(5, 1, 24))
    assert [len(features) for features, _, _ in batches] == [10, 10, 10]
    features, targets, weighed = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(features[:24], source.read(entries, 1))
    labels = [entry.label for entry in entries]
    np.testing.assert_array_equal(targets[:24], np.eye(CLASSES, dtype=np.float32)[labels])
    expected = np.array([2 / 3 if label == 0 else 4 / 3 for label in labels])
    expected[20:] *= 10 / 4  # four images among ten rows
    np.testing.assert_allclose(weighed[:24], expected, rtol=1e-6)
    for padding in (features[24:], targets[24:], weighed[24:]):
        assert len(padding) == 6
        assert not padding.any()


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"batch_size": 10, "batch_norm": "train"}, [10, 10, 4]),
        ({"batch_size": 12}, [12, 12]),
        ({"batch_size": 100}, [24]),
    ],
)
def test_a_batch_is_not_padded_where_that_is_wrong_or_of_no_use(
    tmp_path: Path, settings: dict[str, Any], rows: list[int]
) -> None:
    """Rows of zeros would enter the statistics of BatchNorm, and a small data set is one batch."""
    config = _config(**settings)
    source = _source(tmp_path, config)
    weights = weigh_classes(SPLIT.train, config, classes=CLASSES)

    batches = list(batches_of_epoch(source, SPLIT.train, config, 0, weights))

    assert [len(features) for features, _, _ in batches] == rows
    assert all((weighed == 1).all() for _, _, weighed in batches)


def test_accuracy_of_a_padded_epoch_is_a_count_of_images(tmp_path: Path) -> None:
    """Float32 shares of ten rows give neither 1.00000001 nor 0.4999."""
    _, commit = _fit(tmp_path, _config(epochs=6, batch_size=10))

    shares = [row["accuracy"] * 24 for row in commit.history]
    assert shares == [round(share) for share in shares]
    assert max(shares) == 24


def test_padding_changes_no_step(tmp_path: Path) -> None:
    """Keras' own steps over batches of 10, 10 and 4 images give the same weights."""
    config = _config(
        epochs=1, batch_size=10, class_weights="balanced", label_smoothing=0.1, views=1
    )
    source = _source(tmp_path, config)
    weights = weigh_classes(SPLIT.train, config, classes=CLASSES)
    (phase,) = list_phases(config)
    head = build_head(LAYERS, phase, config, classes=CLASSES, shape=source.shape)
    set_arrays(head, FIRST_ARRAYS)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    head.compile(keras.optimizers.Adam(config.learning_rate), loss)

    state, commit = _fit(tmp_path, config, source=source)

    entries = SPLIT.train.take(order_of_epoch(5, 0, 24))
    for batch in (entries[:10], entries[10:20], entries[20:]):
        labels = [entry.label for entry in batch]
        targets = np.eye(CLASSES, dtype=np.float32)[labels]
        head.train_on_batch(source.read(batch, 0), targets, sample_weight=weights[labels])
    found = state.load_arrays(commit.file)
    for key, array in get_arrays(head).items():
        np.testing.assert_allclose(found[key], array, atol=1e-5, err_msg=key)
        assert not np.allclose(array, FIRST_ARRAYS[key], atol=1e-3)


def test_an_epoch_leaves_nothing_behind_but_its_row(tmp_path: Path) -> None:
    """On TensorFlow, Keras' own loop keeps hundreds of objects of each epoch's dataset."""
    counts = []

    def count(*_: Any) -> None:
        gc.collect()
        counts.append(len(gc.get_objects()))

    _fit(tmp_path, _config(epochs=10), report=count)

    steps = np.diff(counts[3:])
    assert steps.max() < 20


def test_fit_reports_rows_and_counts_images(tmp_path: Path) -> None:
    """One row per epoch, the first always the best so far, and every image advances the bar."""
    rows: list[tuple[dict[str, Any], bool]] = []
    counts: list[int] = []
    config = _config(batch_size=10)

    _, commit = _fit(
        tmp_path,
        config,
        advance=counts.append,
        report=lambda row, is_best: rows.append((row, is_best)),
    )

    assert counts == [10, 10, 4] * 3
    assert [row for row, _ in rows] == list(commit.history)
    assert [row["epoch"] for row, _ in rows] == [1, 2, 3]
    best = 0.0
    for row, is_best in rows:
        assert is_best is (best == 0.0 or row["val_loss"] < best)
        best = row["val_loss"] if is_best else best
        assert row.keys() == {
            *("epoch", "phase", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
        }


def test_fit_gives_the_known_figures_on_both_backends(tmp_path: Path) -> None:
    """The same first weights, batches and views: the two differ by rounding only."""
    _, commit = _fit(tmp_path, _config())

    found = [[row["loss"], row["val_loss"], row["val_accuracy"]] for row in commit.history]
    # Taken from JAX on a CPU; three epochs of Adam enlarge float32 rounding to 1e-5.
    np.testing.assert_allclose(found, GOLDEN_FIGURES, atol=1e-4)


def test_fit_learns_what_can_be_learnt(tmp_path: Path) -> None:
    """The classes differ in one feature each, and there are enough images for it."""
    split = Split(train=_entries(64, "train"), val=_entries(32, "val"))
    config = _config(trainable_layers=4, finetune_layers=4, epochs=6, learning_rate=1e-3)

    _, commit = _fit(tmp_path, config, split=split)

    assert commit.history[-1]["loss"] < commit.history[0]["loss"] / 2
    assert commit.history[-1]["val_accuracy"] > 0.8


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("batch_size", [10, 24])
def test_loss_is_the_weighed_cross_entropy(
    tmp_path: Path, class_weights: str, label_smoothing: float, batch_size: int
) -> None:
    """Of an epoch whose steps are too small to change anything, by NumPy's formula."""
    config = _config(
        epochs=1,
        batch_size=batch_size,
        learning_rate=1e-12,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
    )
    source = _source(tmp_path, config)

    _, commit = _fit(tmp_path, config, source=source)

    logits = source.read(SPLIT.train, 0) @ FIRST_ARRAYS["predictions/kernel"]
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    labels = np.array([entry.label for entry in SPLIT.train])
    targets = np.eye(CLASSES)[labels] * (1 - label_smoothing) + label_smoothing / CLASSES
    losses = -(targets * log_probabilities).sum(axis=1)
    # Balanced: 12, 6 and 6 images of three classes.
    weights = np.array([24 / 36, 24 / 18, 24 / 18]) if class_weights == "balanced" else np.ones(3)
    (row,) = commit.history
    assert row["loss"] == pytest.approx((losses * weights[labels]).mean(), rel=1e-4)
    assert row["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("best_by", ["val_loss", "val_accuracy"])
def test_the_best_epoch_is_the_first_with_the_best_figure(tmp_path: Path, best_by: str) -> None:
    """Its arrays are those after that epoch, and later epochs leave them alone."""
    config = _config(epochs=5, learning_rate=0.3, best_by=best_by)
    arrays: list[Arrays] = []
    folder = tmp_path / "state"

    def report(row: dict[str, Any], is_best: bool) -> None:
        state = StateStore(folder)
        commit = state.load()
        assert commit is not None
        arrays.append(state.load_arrays(commit.file))

    state, commit = _fit(tmp_path, config, report=report)

    figures = [row[best_by] * (-1 if best_by == "val_accuracy" else 1) for row in commit.history]
    expected = int(np.argmin(figures))
    assert commit.best.epoch == expected + 1
    assert commit.best.value == pytest.approx(figures[expected])
    assert expected < 4  # so that a later epoch could have overwritten it
    best = state.load_arrays(commit.best.file)
    assert best.keys() == {"predictions/kernel", "predictions/bias"}
    _assert_equal_arrays(best, {key: arrays[expected][key] for key in best})


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path: Path, spoil: float) -> None:
    """E602, and the commit of the epoch before is the state still."""
    config = _config(epochs=1)
    state, former = _fit(tmp_path / "run", config)
    spoilt = _source(tmp_path / "spoilt", config, spoil=spoil)
    longer = dataclasses.replace(config, epochs=2)

    with pytest.raises(ResultError) as caught:
        _fit(tmp_path / "run", longer, source=spoilt, resume=True)

    assert caught.value.code == "E602"
    assert caught.value.message == "the loss is not finite at step 1 of the epoch"
    assert caught.value.fix == "lower --learning-rate"
    assert StateStore(tmp_path / "run" / "state").load() == former
    for array in state.load_arrays(former.file).values():
        assert np.isfinite(array).all()


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
@pytest.mark.parametrize("best_by", ["val_loss", "val_accuracy"])
def test_a_validation_loss_that_is_not_finite_is_no_epoch(
    tmp_path: Path, spoil: float, best_by: str
) -> None:
    """The weights are whole and the loss is; still nothing is committed, and no best is named."""
    config = _config(epochs=1, best_by=best_by)
    state, former = _fit(tmp_path / "run", config)
    spoilt = _source(tmp_path / "spoilt", config, spoil=spoil, spoilt="val")
    longer = dataclasses.replace(config, epochs=2)

    with pytest.raises(ResultError) as caught:
        _fit(tmp_path / "run", longer, source=spoilt, resume=True)

    assert caught.value.code == "E602"
    assert caught.value.message == "the validation loss is not finite after epoch 2"
    assert StateStore(state.folder).load() == former


def test_after_what_was_not_finite_a_resume_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """In the second phase: stopped at its first step, it ends bit-equal once the cause is gone."""
    config = _config(epochs=1, finetune_epochs=2, finetune_layers=0, finetune_learning_rate=1e-3)
    first, second = list_phases(config)
    spoilt = _source(tmp_path / "spoilt", config, spoil=math.nan)
    for name in ("whole", "stopped"):
        _fit(tmp_path / name, config, phase=first)
    with pytest.raises(ResultError, match=r"E602.*the loss is not finite at step 1"):
        _fit(tmp_path / "stopped", config, phase=second, source=spoilt, resume=True)

    whole_state, whole = _fit(tmp_path / "whole", config, phase=second, resume=True)
    state, resumed = _fit(tmp_path / "stopped", config, phase=second, resume=True)

    assert _figures(resumed) == _figures(whole)
    assert resumed.best == whole.best
    _assert_equal_arrays(state.load_arrays(resumed.file), whole_state.load_arrays(whole.file))


@pytest.mark.parametrize("batch_size", [8, 24])
def test_a_huge_learning_rate_is_a_result_refused(tmp_path: Path, batch_size: int) -> None:
    """Within the epoch, or after its only step; nothing is committed."""
    config = _config(epochs=1, batch_size=batch_size)
    phase = dataclasses.replace(list_phases(config)[0], learning_rate=1e38)

    with pytest.raises(ResultError) as caught:
        _fit(tmp_path, config, phase=phase)

    assert caught.value.code == "E602"
    assert "not finite" in caught.value.message
    assert StateStore(tmp_path / "state").load() is None


def test_the_same_seed_gives_the_same_bits(tmp_path: Path, backend: str) -> None:
    """On JAX; TensorFlow promises that with a switch only, which costs speed."""
    if backend != "jax":
        pytest.skip("JAX only")
    config = _config(dropout=0.3, epochs=2)

    results = []
    for name in ("a", "b"):
        state, commit = _fit(tmp_path / name, config)
        results.append((_figures(commit), state.load_arrays(commit.file)))

    assert results[0][0] == results[1][0]
    _assert_equal_arrays(results[0][1], results[1][1])


def test_another_seed_gives_another_course(tmp_path: Path) -> None:
    """Order and dropped features depend on it; first weights are given here."""
    config = _config(dropout=0.3, epochs=1)
    from mnv2tl.data.augment import PRESETS

    losses = []
    for seed in (1, 2):
        changed = dataclasses.replace(config, seed=seed, augment=PRESETS["none"])
        _, commit = _fit(tmp_path / str(seed), changed)
        losses.append(commit.history[0]["loss"])

    assert losses[0] != losses[1]


class _StopError(Exception):
    """Stands for Ctrl-C."""


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout and cosine": {"dropout": 0.4, "schedule": "cosine"},
    "BatchNorm": {
        "trainable_layers": 4,
        "finetune_layers": 4,
        "batch_norm": "train",
        "dropout": 0.4,
        "learning_rate": 1e-3,
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_resumed_training_ends_bit_equal_to_an_uninterrupted_one(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Stopped after the first epoch, and again in the middle of the third, of four."""
    config = _config(epochs=4, **settings)
    whole_state, whole = _fit(tmp_path / "whole", config)
    steps: list[int] = []

    def stop_after_first(row: dict[str, Any], is_best: bool) -> None:
        raise _StopError

    def stop_in_third(count: int) -> None:
        steps.append(count)
        if len(steps) == 5:  # three steps make an epoch
            raise _StopError

    folder = tmp_path / "stopped"
    with pytest.raises(_StopError):
        _fit(folder, config, report=stop_after_first)
    with pytest.raises(_StopError):
        _fit(folder, config, resume=True, advance=stop_in_third)
    state, resumed = _fit(folder, config, resume=True)

    assert _figures(resumed) == _figures(whole)
    assert resumed.best == whole.best
    _assert_equal_arrays(state.load_arrays(resumed.file), whole_state.load_arrays(whole.file))


def test_row_38_a_commit_of_the_other_backend_is_taken(tmp_path: Path) -> None:
    """The backends keep whole numbers in other types; nothing else differs."""
    config = _config(epochs=2, dropout=0.4)
    source = _source(tmp_path, config)
    _fit(tmp_path, dataclasses.replace(config, epochs=1), source=source)
    shutil.copytree(tmp_path / "state", tmp_path / "other" / "state")
    _change_arrays(
        tmp_path / "other" / "state",
        lambda key, array: array.astype(
            {"int32": "int64", "int64": "int32", "uint32": "int64"}.get(array.dtype.name, "f4")
        ),
    )

    _, expected = _fit(tmp_path, config, source=source, resume=True)
    _, found = _fit(tmp_path / "other", config, source=source, resume=True)

    assert _figures(found) == _figures(expected)


def _change_arrays(folder: Path, change: Callable[[str, Any], Any]) -> None:
    """Commit the last state again with changed arrays; None leaves an array out."""
    state = StateStore(folder)
    commit = state.load()
    assert commit is not None
    arrays = {key: change(key, array) for key, array in state.load_arrays(commit.file).items()}
    kept = {key: array for key, array in arrays.items() if array is not None}
    state.commit(dataclasses.replace(commit, file=state.save_arrays("epoch-0001", kept)))


@pytest.mark.parametrize(
    ("harmed", "code", "message"),
    [
        ("predictions/bias", "E405", "the saved head has 2 outputs, the dataset has 3 classes"),
        ("optimizer/0000/iteration", "E404", "no state optimizer/0000/iteration of shape ()"),
        ("random/dropout", "E404", "no state random/dropout of shape (2,)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    tmp_path: Path, harmed: str, code: str, message: str
) -> None:
    """Another class count, or another optimizer."""
    config = _config(epochs=1, dropout=0.4)
    source = _source(tmp_path, config)
    _fit(tmp_path, config, source=source)

    def harm(key: str, array: Any) -> Any:
        if key != harmed:
            return array
        return array[:2] if code == "E405" else None

    _change_arrays(tmp_path / "state", harm)

    with pytest.raises(ArtifactError) as caught:
        _fit(tmp_path, dataclasses.replace(config, epochs=2), source=source, resume=True)

    assert (caught.value.code, caught.value.message) == (code, message)


def test_a_finished_phase_is_not_trained_again(tmp_path: Path) -> None:
    """A resume of it gives its last commit and reads nothing."""
    config = _config(epochs=1)
    source = _source(tmp_path, config)
    _, commit = _fit(tmp_path, config, source=source)
    READ.clear()

    _, again = _fit(tmp_path, config, source=source, resume=True)

    assert again == commit
    assert READ == []


def test_the_second_phase_goes_on_from_the_first(tmp_path: Path) -> None:
    """Epochs count on, its first weights are those handed over, and the best may be the former."""
    config = _config(epochs=1, finetune_epochs=2, finetune_layers=0, finetune_learning_rate=1e-12)
    phases = list_phases(config)
    source = _source(tmp_path, config)
    _, former = _fit(tmp_path, config, phase=phases[0], source=source)

    state, commit = _fit(tmp_path, config, phase=phases[1], source=source, resume=True)

    assert [(row["epoch"], row["phase"]) for row in commit.history] == [(1, 0), (2, 1), (3, 1)]
    assert commit.history[0] == former.history[0]
    assert (former.phase, commit.phase) == (0, 1)
    # The first weights are worse than what one epoch made of them, and 1e-12 moves nothing.
    assert commit.best == former.best
    arrays = state.load_arrays(commit.file)
    np.testing.assert_allclose(
        arrays["predictions/kernel"], FIRST_ARRAYS["predictions/kernel"], atol=1e-9
    )


def test_patience_ends_a_phase(tmp_path: Path) -> None:
    """A step of 1e-12 betters nothing that anyone could see."""
    config = _config(epochs=9, patience=2, best_by="val_accuracy", learning_rate=1e-12)

    _, commit = _fit(tmp_path, config)

    assert len(commit.history) == 3
    assert commit.best.epoch == 1


def test_the_cosine_schedule_ends_near_zero(tmp_path: Path) -> None:
    """It runs over all steps of the phase, so the last epoch moves the weights least."""
    moves = {}
    for schedule in ("constant", "cosine"):
        config = _config(epochs=4, schedule=schedule)
        arrays: list[NDArray[np.float32]] = []
        folder = tmp_path / schedule

        def report(
            row: dict[str, Any], is_best: bool, folder: Path = folder, arrays: Any = arrays
        ) -> None:
            state = StateStore(folder / "state")
            commit = state.load()
            assert commit is not None
            arrays.append(state.load_arrays(commit.file)["predictions/kernel"])

        _fit(folder, config, report=report)
        moves[schedule] = [
            float(np.abs(after - before).mean()) for before, after in itertools.pairwise(arrays)
        ]

    # cos falls from 0.15 to 0 of the first step size within the last quarter.
    assert moves["cosine"][-1] < 0.3 * moves["constant"][-1]


def test_a_phase_needs_an_epoch(tmp_path: Path) -> None:
    """There would be no commit to hand over."""
    config = _config()
    phase = dataclasses.replace(list_phases(config)[0], epochs=0)

    with pytest.raises(ValueError, match="a phase needs at least one epoch"):
        _fit(tmp_path, config, phase=phase)


def test_optimizer_state_has_the_same_names_on_both_backends(tmp_path: Path) -> None:
    """A run may be resumed on the other backend."""
    state, commit = _fit(tmp_path, _config(epochs=1, dropout=0.1))

    assert sorted(state.load_arrays(commit.file)) == [
        "optimizer/0000/iteration",
        "optimizer/0001/learning_rate",
        "optimizer/0002/predictions_kernel_momentum",
        "optimizer/0003/predictions_kernel_velocity",
        "optimizer/0004/predictions_bias_momentum",
        "optimizer/0005/predictions_bias_velocity",
        "predictions/bias",
        "predictions/kernel",
        "random/dropout",
    ]
