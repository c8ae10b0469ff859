from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("keras")

import keras

from mnv2tl import store
from mnv2tl.checkpoint import Run, load_run
from mnv2tl.config import TrainConfig
from mnv2tl.data.augment import AugmentConfig
from mnv2tl.data.entries import Entry
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.errors import (
    ArtifactError,
    BusyError,
    DataError,
    ExistsError,
    InterruptError,
    ResultError,
)
from mnv2tl.evaluate import Evaluation, evaluate_run
from mnv2tl.features import FeatureSource
from mnv2tl.finish import compare, is_guessing
from mnv2tl.state import StateStore
from mnv2tl.train import train

Make = Callable[..., TrainConfig]


@pytest.fixture
def make_config(tiny_folder: Path, tmp_path: Path, backend: str) -> Make:
    """Return a function that makes the settings of a run of seconds."""

    def make(out: str = "run", **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "data": tiny_folder,
            "alpha": 0.35,
            "image_px": 96,
            "weights": "none",
            "epochs": 3,
            "batch_size": 8,
            "views": 2,
            "backend": backend,
            "scan": ScanConfig(near_duplicates=False),
        }
        return TrainConfig(out=tmp_path / out, **(values | changes))

    return make


@pytest.fixture(scope="module")
def _first_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Remember the run that `finished_run` makes once."""
    return {"folder": tmp_path_factory.mktemp("shared")}


@pytest.fixture
def finished_run(
    _first_run: dict[str, Path], make_config: Make, tmp_path: Path
) -> tuple[Run, TrainConfig]:
    """Give a copy of a finished run with its settings; the training happens once."""
    config = make_config("finished")
    kept = _first_run["folder"] / "run"
    if not kept.exists():
        train(config)
        shutil.copytree(config.out, kept)
    else:
        shutil.copytree(kept, config.out)
    return load_run(config.out), config


def _interrupt_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """Make Ctrl-C happen right after a commit."""
    commit = StateStore.commit

    def commit_and_stop(self: StateStore, value: Any) -> None:
        commit(self, value)
        if len(value.history) == epochs:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(StateStore, "commit", commit_and_stop)


def test_a_run_folder_holds_what_the_docs_list(finished_run: tuple[Run, TrainConfig]) -> None:
    """The files are there, and run.json names the checkpoint by its hash."""
    run, config = finished_run

    names = {path.name for path in config.out.iterdir()} - {".lock"}

    expected = {"best.keras", "run.json", "manifest.json", "history.csv", "curves.png", "state"}
    assert names == expected
    assert run.info["files"]["best.keras"] == store.sha256_file(run.best_path)
    assert run.info["epochs"] == len(run.history) == 3
    with Image.open(config.out / "curves.png") as curves:
        assert curves.size[0] > curves.size[1] > 300
    with (config.out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in rows] == [row["val_loss"] for row in run.history]


def test_the_best_epoch_is_the_one_of_least_validation_loss(
    finished_run: tuple[Run, TrainConfig],
) -> None:
    """best_epoch counts from 1 and its figures are those of best.keras."""
    run, _ = finished_run

    losses = [row["val_loss"] for row in run.history]

    assert run.info["best_epoch"] == 1 + int(np.argmin(losses))


def test_plain_keras_opens_the_checkpoint(finished_run: tuple[Run, TrainConfig]) -> None:
    """best.keras holds stock layers only, takes pixels 0..255 and gives probabilities."""
    run, config = finished_run

    model = keras.models.load_model(run.best_path)

    with zipfile.ZipFile(run.best_path) as archive:
        text = archive.read("config.json").decode()
    assert "mnv2tl." not in text
    assert '"registered_name": null' in text
    pixels = np.full((2, 96, 96, 3), 255.0, np.float32)
    probabilities = np.asarray(model.predict_on_batch(pixels))
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert config.image_px == model.input_shape[1]


def test_plain_keras_answers_as_evaluate_does(finished_run: tuple[Run, TrainConfig]) -> None:
    """The temperature apart, evaluate and the stock model agree on every validation image."""
    run, _ = finished_run
    from mnv2tl.data.images import read_resized

    evaluation = evaluate_run(run)
    model = keras.models.load_model(run.best_path)
    pixels = [read_resized(run.manifest.path_of(entry), 96) for entry in evaluation.entries]
    plain = np.asarray(model.predict_on_batch(np.stack(pixels).astype(np.float32)), np.float64)
    powers = plain ** (1 / run.info["temperature"])

    # float32 through fifty layers, in two batch sizes
    np.testing.assert_allclose(
        powers / powers.sum(axis=1, keepdims=True), evaluation.probabilities, atol=1e-5
    )


def test_the_figures_of_the_run_are_those_of_evaluate(
    finished_run: tuple[Run, TrainConfig],
) -> None:
    """run.json's accuracy and loss come from best.keras and the image files."""
    run, _ = finished_run

    summary = evaluate_run(run).summary()

    assert summary["accuracy"] == run.info["val_accuracy"]
    assert summary["loss"] == pytest.approx(run.info["val_loss"], abs=1e-6)
    assert run.info["self_check"]["max_abs_diff"] < 1e-3


def test_resume_gives_the_same_weights_as_no_interruption(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after each epoch in turn, with dropout and a second phase: bit-equal weights."""
    settings = {"dropout": 0.3, "finetune_epochs": 1, "finetune_layers": 8, "epochs": 2}
    whole = train(make_config("whole", **settings)).read_arrays()
    for epochs in (1, 2):
        config = make_config(f"stopped-{epochs}", **settings)
        with monkeypatch.context() as patch:
            _interrupt_after(patch, epochs)
            with pytest.raises(InterruptError):
                train(config)

        resumed = train(config, resume=True)

        arrays = resumed.read_arrays()
        assert all(np.array_equal(arrays[key], whole[key]) for key in whole)
        assert len(resumed.history) == 3


def test_an_interrupted_run_says_how_to_go_on(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names what is saved and the resume command."""
    config = make_config()
    _interrupt_after(monkeypatch, 1)

    with pytest.raises(InterruptError, match=r"1 of 3 epochs are saved.*--resume"):
        train(config)

    with pytest.raises(ArtifactError, match="not finished"):
        load_run(config.out).read_arrays()


def test_same_seed_twice_gives_the_same_weights(
    finished_run: tuple[Run, TrainConfig], make_config: Make
) -> None:
    """Nothing depends on the clock or on what the process did before."""
    first = finished_run[0].read_arrays()

    second = train(make_config("again")).read_arrays()

    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_another_seed_gives_other_weights_and_the_same_split(
    finished_run: tuple[Run, TrainConfig], make_config: Make
) -> None:
    """--seed is for weights, order and augmentation; the split has its own."""
    run, _ = finished_run

    other = train(make_config("other", seed=1, epochs=1))

    key = "predictions/kernel"
    assert not np.array_equal(run.read_arrays()[key], other.read_arrays()[key])
    assert run.manifest.entries == other.manifest.entries


def test_only_the_named_layers_change(make_config: Make) -> None:
    """Frozen layers leave the training bit for bit as they came, BatchNorm included."""
    from mnv2tl.weights import initial_arrays

    run = train(make_config(epochs=1, trainable_layers=4))

    before, after = initial_arrays(0.35, 0), run.read_arrays()
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    assert changed == {"Conv_1/kernel"}
    assert run.info["trainable"]["layers"] == ["Conv_1", "predictions"]
    assert run.info["trainable"]["parameters"] == 112 * 1280 + 1280 * 3 + 3


@pytest.mark.parametrize("layers", [0, 6, pytest.param(154, marks=pytest.mark.slow)])
def test_any_number_of_layers_trains(make_config: Make, layers: int) -> None:
    """From the new Dense alone to all layers, the self-check holds and BatchNorm can train."""
    run = train(make_config(epochs=1, trainable_layers=layers, batch_norm="train"))

    # With all layers there is no trunk: the features are the pixels.
    assert (run.info["trunk_runtime"] == "none") == (layers == 154)
    assert run.info["self_check"]["images"] == run.info["val_images"]
    # A BatchNorm is two weight arrays that train.
    assert ("Conv_1_bn" in run.info["trainable"]["layers"]) == (layers > 0)


def test_without_a_cache_the_result_is_the_same(
    finished_run: tuple[Run, TrainConfig], make_config: Make
) -> None:
    """Features that do not fit are computed in every epoch, to the same weights."""
    first = finished_run[0].read_arrays()

    streamed = train(make_config("streamed", cache_limit_gb=0.0)).read_arrays()

    assert all(np.array_equal(first[key], streamed[key]) for key in first)


@pytest.mark.slow
def test_settings_reach_the_training(make_config: Make) -> None:
    """Options that change the loss change the weights; patience ends the phase early."""
    plain = train(make_config("plain", epochs=1)).read_arrays()["predictions/kernel"]
    for name, value in {
        "label_smoothing": 0.2,
        "class_weights": "balanced",
        "augment": AugmentConfig(),
        "scaling": "unit",
    }.items():
        kernel = train(make_config(name, epochs=1, **{name: value})).read_arrays()[
            "predictions/kernel"
        ]
        # Twelve images a class: the split leaves unequal classes, so balanced weights differ.
        assert not np.array_equal(plain, kernel), name

    stopped = train(make_config("patience", epochs=30, patience=1, learning_rate=0.5))

    assert len(stopped.history) < 30


def test_best_by_validation_accuracy(make_config: Make) -> None:
    """The first epoch of greatest validation accuracy is taken."""
    run = train(make_config(best_by="val_accuracy"))

    accuracies = [row["val_accuracy"] for row in run.history]

    assert run.info["best_epoch"] == 1 + int(np.argmax(accuracies))


def test_start_from_a_former_run(finished_run: tuple[Run, TrainConfig], make_config: Make) -> None:
    """With the same classes a run goes on from all weights of the former one."""
    former, _ = finished_run

    run = train(make_config("next", start_from=former.folder, epochs=1, learning_rate=1e-12))

    before, after = former.read_arrays(), run.read_arrays()
    for key in before:
        # a step of 1e-12 is lost in float32, or nearly
        np.testing.assert_allclose(after[key], before[key], atol=1e-9)


def test_start_from_a_former_run_with_other_classes(
    finished_run: tuple[Run, TrainConfig], make_config: Make
) -> None:
    """Other classes get a new last layer on the former run's network."""
    former, config = finished_run
    shutil.copytree(config.data / "disc", config.data / "zebra")
    shutil.rmtree(config.data / "disc")

    run = train(make_config("next", start_from=former.folder, epochs=1))

    assert run.class_names == ("square", "stripes", "zebra")
    assert "run of" in run.info["weights"]["name"]


def test_start_from_another_network_is_refused(
    finished_run: tuple[Run, TrainConfig], make_config: Make
) -> None:
    """Row 39: the differing field is named with both values."""
    former, _ = finished_run

    with pytest.raises(ArtifactError, match=r"E404.*image_px is 96.*128") as caught:
        train(make_config("next", start_from=former.folder, image_px=128))

    assert caught.value.exit_code == 4


def test_row_26_resume_after_the_images_changed(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The difference is counted; --accept-changes goes on with the images as they are."""
    config = make_config()
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 1)
        with pytest.raises(InterruptError):
            train(config)
    Image.new("RGB", (64, 64), "white").save(config.data / "disc" / "new.png")
    (config.data / "square" / "00.png").unlink()
    Image.new("RGB", (64, 64), "navy").save(config.data / "stripes" / "00.png")

    with pytest.raises(ArtifactError, match=r"E401.*dataset differs: \+1 -1 ~1") as caught:
        train(config, resume=True)

    assert caught.value.exit_code == 4
    run = train(config, resume=True, accept_changes=True)
    assert len(run.history) == 3
    assert any(entry.path == "disc/new.png" for entry in run.manifest.entries)


def test_row_27_resume_with_other_classes(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lists are printed; nothing is mapped silently, not even with --accept-changes."""
    config = make_config()
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 1)
        with pytest.raises(InterruptError):
            train(config)
    (config.data / "disc").rename(config.data / "zebra")

    for accept in (False, True):
        with pytest.raises(ArtifactError, match=r"E402.*disc.*zebra") as caught:
            train(config, resume=True, accept_changes=accept)
        assert caught.value.exit_code == 4


def test_row_40_resume_with_another_number_of_classes(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its manifest a run is known by its head alone, which says what it expects."""
    config = make_config()
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 1)
        with pytest.raises(InterruptError):
            train(config)
    (config.out / "manifest.json").unlink()
    shutil.rmtree(config.data / "disc")

    with pytest.raises(ArtifactError, match=r"E405.*3 outputs, the dataset has 2") as caught:
        train(config, resume=True)

    assert caught.value.exit_code == 4


def test_row_39_resume_with_other_settings(
    make_config: Make, finished_run: tuple[Run, TrainConfig]
) -> None:
    """Settings that would change the result are refused with both values; epochs may grow."""
    _, config = finished_run

    with pytest.raises(ArtifactError, match=r"E404.*batch_size was 8, now 4") as caught:
        train(make_config("finished", batch_size=4), resume=True)

    assert caught.value.exit_code == 4
    assert len(train(make_config("finished", epochs=4), resume=True).history) == 4
    assert config.out == make_config("finished").out


def test_a_cosine_run_does_not_grow(make_config: Make) -> None:
    """The course of the rate spans a phase, so other epochs would change the ones that are done."""
    train(make_config(epochs=1, schedule="cosine", finetune_epochs=1))

    for name in ("epochs", "finetune_epochs"):
        config = make_config(**{"epochs": 1, "finetune_epochs": 1, "schedule": "cosine", name: 2})
        with pytest.raises(ArtifactError, match=f"E404.*{name} was 1, now 2, with schedule cosine"):
            train(config, resume=True)


def test_what_a_killed_process_left_is_removed(finished_run: tuple[Run, TrainConfig]) -> None:
    """Temporary files and folders of a kill go at the next start; the run's own files stay."""
    run, config = finished_run
    before = {path.relative_to(config.out) for path in config.out.rglob("*")}
    for left in ("run.json.tmp-1-ab", "state/state.json.tmp-1-ab", "save-x1/best.keras"):
        (config.out / left).parent.mkdir(exist_ok=True)
        (config.out / left).write_bytes(b"half of it")

    train(config, resume=True)

    assert {path.relative_to(config.out) for path in config.out.rglob("*")} == before | {
        Path(".lock")
    }
    assert run.info["finished"] is True


@pytest.mark.parametrize("key", ["config", "class_names", "files", "history", "temperature"])
def test_a_run_json_that_lacks_a_key_is_refused(
    finished_run: tuple[Run, TrainConfig], key: str
) -> None:
    """E412 names what is missing, before anything uses it."""
    _, config = finished_run
    info = json.loads((config.out / "run.json").read_text())
    del info[key]
    store.write_sealed_json(config.out / "run.json", info)

    with pytest.raises(ArtifactError, match=f"E412.*it lacks {key}"):
        load_run(config.out)


def test_a_finished_run_is_returned_as_it_is(finished_run: tuple[Run, TrainConfig]) -> None:
    """Resuming what is finished trains nothing and changes no file."""
    run, config = finished_run
    before = store.sha256_file(config.out / "run.json")

    again = train(config, resume=True)

    assert again.info == run.info
    assert store.sha256_file(config.out / "run.json") == before


def test_row_33_a_used_folder_is_refused(
    finished_run: tuple[Run, TrainConfig], make_config: Make, tmp_path: Path
) -> None:
    """Nothing is overwritten without --resume or --force, and --force replaces runs only."""
    _, config = finished_run
    with pytest.raises(ExistsError, match="E504") as caught:
        train(config)
    assert caught.value.exit_code == 2

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.txt").write_text("keep me")
    with pytest.raises(ExistsError, match="only a run folder is resumed or replaced"):
        train(make_config("photos"), force=True)
    assert (tmp_path / "photos" / "mine.txt").read_text() == "keep me"

    replaced = train(make_config("finished", epochs=1), force=True)
    assert len(replaced.history) == 1
    assert replaced.folder == config.out
    assert {path.name for path in tmp_path.glob("finished*")} == {"finished"}


def test_a_force_that_fails_leaves_the_former_run(
    finished_run: tuple[Run, TrainConfig], make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former run stays in its place until the new one is finished, which can go on."""
    former, config = finished_run
    changed = make_config("finished", epochs=2, seed=3)
    _interrupt_after(monkeypatch, 1)

    with pytest.raises(InterruptError, match=r"finished\.new --resume"):
        train(changed, force=True)

    assert load_run(config.out).info == former.info
    monkeypatch.undo()
    with pytest.raises(ExistsError, match="left by a --force that was stopped"):
        train(changed, force=True)
    new = dataclasses.replace(changed, out=config.out.with_name("finished.new"))
    assert len(train(new, resume=True).history) == 2


def test_force_starts_from_the_run_that_it_replaces(
    finished_run: tuple[Run, TrainConfig], make_config: Make
) -> None:
    """Going on from a run in its own place works, since it is replaced last."""
    former, config = finished_run

    run = train(make_config("finished", start_from=config.out, epochs=1), force=True)

    assert former.info["created"] in run.info["weights"]["name"]


def test_force_does_not_take_a_locked_run(
    finished_run: tuple[Run, TrainConfig], make_config: Make
) -> None:
    """A training that still runs keeps its folder."""
    _, config = finished_run

    with store.lock_folder(config.out), pytest.raises(BusyError, match="E701"):
        train(make_config("finished", epochs=1), force=True)


def test_a_kill_before_the_first_epoch_leaves_a_usable_folder(make_config: Make) -> None:
    """A manifest without run.json, and half written files, are no run."""
    config = make_config(epochs=1)
    config.out.mkdir()
    (config.out / "manifest.json").write_text("{}")
    (config.out / "run.json.tmp-12-abcd").write_text("{")

    assert train(config).info["finished"] is True


def test_the_self_check_draws_from_all_classes(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more validation images than it looks at, they do not come from the first class only."""
    from mnv2tl import finish

    monkeypatch.setattr(finish, "SELF_CHECK_IMAGES", 6)

    run = train(make_config(epochs=1, scan=ScanConfig(near_duplicates=False, val_fraction=0.6)))

    assert run.info["self_check"]["images"] == 6 < run.info["val_images"]
    assert sum(row["support"] > 0 for row in run.info["per_class"]) > 1
    assert sum(row["support"] for row in run.info["per_class"]) == 6


def test_an_image_lost_before_the_self_check_is_left_out_of_it(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is not lost with it."""
    from mnv2tl import checkpoint

    write_keras = checkpoint.write_keras
    config = make_config(epochs=1)

    def lose_an_image(model: Any, path: Path) -> str:
        for image in (config.data / "stripes").iterdir():
            image.unlink()
        return write_keras(model, path)

    monkeypatch.setattr(checkpoint, "write_keras", lose_an_image)

    run = train(config)

    lost = [entry for entry in run.manifest.of_split("val") if entry.label == 2]
    assert lost
    assert run.info["self_check"]["images"] == run.info["val_images"] - len(lost)


def test_a_split_without_validation_images_is_refused(make_config: Make) -> None:
    """An empty val/ folder is data that cannot be used, not a crash after the first epoch."""
    config = make_config()
    (config.data / "train").mkdir()
    for name in ("disc", "square", "stripes"):
        (config.data / name).rename(config.data / "train" / name)
        (config.data / "val" / name).mkdir(parents=True)

    with pytest.raises(DataError, match=r"E30[13]") as caught:
        train(config)

    assert caught.value.exit_code == 3


def test_resume_on_other_base_weights_is_refused(
    make_config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The committed head belongs to the trunk that it was trained on."""
    from mnv2tl.weights import initial_arrays

    weights = tmp_path / "mine.weights.h5"
    _save_weights(weights, initial_arrays(0.35, 1))
    config = make_config(weights=str(weights))
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 1)
        with pytest.raises(InterruptError):
            train(config)
    _save_weights(weights, initial_arrays(0.35, 2))

    with pytest.raises(ArtifactError, match=r"E404.*base weights were") as caught:
        train(config, resume=True)

    assert caught.value.exit_code == 4


def _save_weights(path: Path, arrays: dict[str, Any]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


def test_a_run_of_a_version_with_fewer_settings_resumes(
    finished_run: tuple[Run, TrainConfig],
) -> None:
    """A setting that run.json does not know yet counts as its default."""
    _, config = finished_run
    info = json.loads((config.out / "run.json").read_text())
    del info["config"]["trackers"], info["config"]["scan"]["follow_links"]
    store.write_sealed_json(config.out / "run.json", info)

    assert train(config, resume=True).info["finished"] is True


def test_the_backend_of_the_settings_is_that_of_keras(make_config: Make, backend: str) -> None:
    """None takes what Keras has; another one is refused before any work."""
    other = {"jax": "tensorflow", "tensorflow": "jax"}[backend]

    with pytest.raises(ValueError, match=rf"backend must be {backend}.*got {other}"):
        train(make_config(backend=other))

    assert train(make_config(backend=None, epochs=1)).info["backend"] == backend


_BARS = ("Reading images: ", "features: ", "train: ", "evaluate: ")
"""Those that are not done within two seconds have a line."""
_TOLD = (*_BARS, "phase", "epoch", "starting Keras ...", "opening the whole network ...")


def test_a_training_brings_keras_with_it(make_config: Make, backend: str) -> None:
    """On the backend that the environment names, and without notes on its start."""
    config = make_config(epochs=1)
    code = f"""
import pathlib, sys
from mnv2tl.config import TrainConfig
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.train import train
assert "keras" not in sys.modules
scan = ScanConfig(near_duplicates=False)
data, out = pathlib.Path({str(config.data)!r}), pathlib.Path({str(config.out)!r})
config = TrainConfig(
    data=data, out=out, weights="none", alpha=0.35, image_px=96, epochs=1, scan=scan
)
print(train(config).info["backend"])
"""
    names = os.environ | {"KERAS_BACKEND": backend}

    done = subprocess.run([sys.executable, "-c", code], env=names, capture_output=True, text=True)

    assert (done.returncode, done.stdout.split()) == (0, [backend]), done.stderr
    told = done.stderr.splitlines()
    assert [line for line in told if not line.startswith(_TOLD)] == []


def test_row_34_a_locked_folder_is_refused(make_config: Make) -> None:
    """Two trainings do not share a run folder."""
    config = make_config()

    with store.lock_folder(config.out), pytest.raises(BusyError, match=r"E701.*pid") as caught:
        train(config)

    assert caught.value.exit_code == 7


def test_row_25_an_image_that_vanishes_is_left_out(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image lost between scan and features is named in the manifest; the run goes on."""
    # A seed of its own: what is in the cache already need not be read again.
    config = make_config(scan=ScanConfig(near_duplicates=False, max_bad=0.1), seed=25)
    from mnv2tl import preparation
    from mnv2tl.data.scan import scan

    def scan_then_lose(*arguments: Any) -> Any:
        manifest = scan(*arguments)
        (config.data / "disc" / "03.png").unlink()
        return manifest

    monkeypatch.setattr(preparation, "scan", scan_then_lose)

    run = train(config)

    assert [(each.path, each.code) for each in run.manifest.left_out] == [
        ("disc/03.png", "vanished")
    ]


def test_a_checkpoint_that_answers_otherwise_is_refused() -> None:
    """The self-check names the worst image; NaN counts as different."""
    entries = tuple(
        Entry(path=f"{i}.png", label=0, split="val", sha256="0" * 64, bytes=1, width=1, height=1)
        for i in range(3)
    )
    expected = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    answers = expected.copy()
    answers[1] += (0.002, -0.002)
    checked = Evaluation(entries=entries, probabilities=answers, class_names=("a", "b"))

    with pytest.raises(ResultError, match=r'E603.*"1\.png".*2\.0e-03.*1e-03') as caught:
        compare(checked, expected)

    assert caught.value.exit_code == 6
    assert compare(checked, answers) == 0.0
    broken = Evaluation(
        entries=entries, probabilities=np.full((3, 2), np.nan), class_names=("a", "b")
    )
    with pytest.raises(ResultError, match="E603"):
        compare(broken, expected)


def test_evaluate_takes_only_the_images_of_the_manifest(
    finished_run: tuple[Run, TrainConfig], tmp_path: Path
) -> None:
    """A moved folder works; a changed image is refused by name."""
    run, config = finished_run
    moved = tmp_path / "moved"
    config.data.rename(moved)

    assert evaluate_run(run, data=moved).summary()["images"] == run.info["val_images"]

    victim = run.manifest.of_split("val")[0]
    Image.new("RGB", (9, 9)).save(moved / victim.path)
    with pytest.raises(DataError, match=r"E309.*changed"):
        evaluate_run(run, data=moved)


def test_a_changed_checkpoint_is_refused(finished_run: tuple[Run, TrainConfig]) -> None:
    """best.keras is read only if its SHA-256 is the one that run.json names."""
    run, _ = finished_run
    content = bytearray(run.best_path.read_bytes())
    content[len(content) // 2] ^= 1
    run.best_path.write_bytes(bytes(content))

    with pytest.raises(ArtifactError, match="E413") as caught:
        run.read_arrays()

    assert caught.value.exit_code == 4


def test_epochs_walk_through_the_views(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch e sees view e mod K, and the validation split is never augmented."""
    seen: list[int] = []
    read = FeatureSource.read

    def note(self: FeatureSource, entries: Any, view: int) -> Any:
        seen.append(view)
        return read(self, entries, view)

    monkeypatch.setattr(FeatureSource, "read", note)

    train(make_config(epochs=3, views=2, batch_size=64))

    # Keras looks at a batch before the first epoch, so equal neighbours count once.
    runs = [view for view, _ in itertools.groupby(seen)]
    assert runs == [0, -1, 1, -1, 0, -1]


def test_run_json_is_written_with_portable_numbers(finished_run: tuple[Run, TrainConfig]) -> None:
    """No NaN, no infinity, ASCII only: any JSON reader takes it."""
    _, config = finished_run

    text = (config.out / "run.json").read_text("ascii")

    def refuse(name: str) -> None:
        raise ValueError(name)

    assert json.loads(text, parse_constant=refuse)["finished"] is True


@pytest.mark.parametrize(
    ("counts", "accuracy", "expected"),
    [
        ([15, 10], 0.6, True),
        ([15, 10], 0.2, True),
        ([15, 10], 0.64, False),
        ([12, 7], 0.2, False),  # of so few it may be chance
        ([25, 0], 1.0, False),  # there is no other answer
    ],
)
def test_is_guessing_compares_with_the_most_frequent_class(
    counts: list[int], accuracy: float, expected: bool
) -> None:
    """Both ends of each condition."""
    labels = np.repeat([0, 1], counts)

    assert is_guessing(labels, accuracy) == expected
