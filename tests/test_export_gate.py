from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("keras")

import onnx
from onnx import numpy_helper

from mnv2tl import store
from mnv2tl.checkpoint import Run
from mnv2tl.cli import main
from mnv2tl.data.entries import Entry
from mnv2tl.errors import ArtifactError, DataError, ExistsError, Mnv2tlError, ResultError
from mnv2tl_export import export, onnx_model
from mnv2tl_export.classifier import Classifier
from mnv2tl_export.evaluate import evaluate_model, read_split
from mnv2tl_export.golden import SelfTest
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_file import read_onnx
from mnv2tl_export.parity import FP32, Measured, Parity, judge, limits_of
from mnv2tl_export.source import open_source

Change = Callable[[Any], None]


@pytest.fixture
def run(trained_run: Run) -> Run:
    """Return a finished run, trained once."""
    return trained_run


def _call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def _export(run: Run, out: Path, *words: object) -> Result:
    """Export to ONNX alone; other formats have their own tests."""
    return _call("export", run.folder, "--out", out, "--format", "onnx", *words)


def _publish(run: Run, out: Path, **options: Any) -> export.Result:
    return export.export_run(run, out, formats=("onnx",), **options)


def _json(result: Result) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return value


def _assert_nothing_is_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []


def test_export_publishes_a_sealed_bundle(run: Run, tmp_path: Path) -> None:
    """The folder holds what bundle.json names, with its hashes and the split."""
    out = tmp_path / "bundle"

    result = _export(run, out, "--json")

    assert result.exit_code == 0, result.output
    (artifact,) = _json(result)["artifacts"]
    promised = {"format", "path", "bytes", "sha256", "max_abs_diff", "top1_agreement"}
    assert promised | {"val_accuracy", "passed"} <= artifact.keys()
    assert (artifact["format"], artifact["path"], artifact["passed"]) == (
        "onnx",
        "model.onnx",
        True,
    )
    assert artifact["val_accuracy"] == run.info["val_accuracy"]
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]
    seal = json.loads((out / "bundle.json").read_bytes())
    assert {each.name for each in out.iterdir()} == {"bundle.json", *seal["files"]}
    for name, file in seal["files"].items():
        assert store.sha256_file(out / name) == file["sha256"]
        assert (out / name).stat().st_size == file["bytes"]
    assert seal["split"] == run.manifest.split_rule
    assert seal["manifest_sha256"] == run.manifest.sha256
    split = json.loads((out / "split.json").read_bytes())
    for entry in run.manifest.entries:
        assert [entry.sha256, entry.label] in split[entry.split]
    assert sum(len(split[name]) for name in ("train", "val", "test")) == 36


def test_export_shows_what_the_gate_measured(run: Run, tmp_path: Path) -> None:
    """A table on stderr, the same figures in parity.json; fp32 is within its limits."""
    out = tmp_path / "bundle"

    result = _export(run, out)

    assert "published" in result.stdout
    assert "FAILED" not in result.stderr
    (parity,) = json.loads((out / "parity.json").read_bytes())
    assert parity["passed"]
    for check in parity["checks"]:
        assert check["passed"]
        assert check["name"] in result.stderr
    assert parity["images"] == run.info["val_images"]
    assert parity["pixels_max_abs_diff"] == 0.0
    assert parity["max_abs_diff"] <= 1e-5
    assert parity["from_file"]["labels_turned"] == 0
    assert parity["val_accuracy"] == parity["keras_accuracy"]


def test_metadata_say_how_to_use_the_file_and_where_it_is_from(run: Run, tmp_path: Path) -> None:
    """Everything a client needs travels in the file."""
    _export(run, tmp_path / "bundle")

    metadata = read_onnx(tmp_path / "bundle" / "model.onnx").metadata

    assert metadata.class_names == ("disc", "square", "stripes")
    assert metadata.image_px == 96
    assert metadata.preprocessing == run.info["preprocessing"] | {"scaling": "symmetric"}
    assert metadata.temperature == run.info["temperature"]
    assert metadata.run["checkpoint_sha256"] == run.info["files"]["best.keras"]
    assert metadata.run["run_sha256"] == store.sha256_file(run.folder / "run.json")
    assert metadata.run["manifest_sha256"] == run.manifest.sha256
    assert metadata.base_weights == run.info["weights"]
    assert metadata.val_accuracy["accuracy"] == run.info["val_accuracy"]
    assert {"python", "keras", "onnx", "numpy"} <= metadata.versions.keys()


def test_export_twice_gives_equal_files(run: Run, tmp_path: Path) -> None:
    """Times stand in bundle.json only."""
    for name in ("first", "second"):
        assert _export(run, tmp_path / name).exit_code == 0

    first = json.loads((tmp_path / "first" / "bundle.json").read_bytes())
    second = json.loads((tmp_path / "second" / "bundle.json").read_bytes())
    assert first["files"] == second["files"]


def test_no_temperature_leaves_it_out_and_says_so(run: Run, tmp_path: Path) -> None:
    """The gate then compares with Keras at temperature 1."""
    out = tmp_path / "bundle"

    result = _export(run, out, "--no-temperature")

    assert result.exit_code == 0, result.output
    assert read_onnx(out / "model.onnx").metadata.temperature is None
    model = onnx.load(out / "model.onnx")
    assert "temperature" not in {each.name for each in model.graph.initializer}


def _constant(model: Any, name: str) -> Any:
    return next(each for each in model.graph.initializer if each.name == name)


def _change(model: Any, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    tensor = _constant(model, name)
    values = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))


def _zero_one_weight(model: Any) -> None:
    def zero(kernel: NDArray[Any]) -> NDArray[Any]:
        kernel.flat[np.abs(kernel).argmax()] = 0
        return kernel

    _change(model, "block_6_project/weight", zero)


def _swap_channels(model: Any) -> None:
    # (out, 1, 3, 9), with the colours of a pixel side by side
    _change(
        model,
        "Conv1/weight",
        lambda kernel: kernel.reshape(-1, 1, 3, 3, 3)[..., ::-1].reshape(kernel.shape),
    )


def _scale_wrongly(model: Any) -> None:
    _change(model, "Conv1/weight", lambda kernel: kernel / 2)
    _change(model, "scaling/zero", lambda zero: zero * 0)


def _resize_from_corners(model: Any) -> None:
    _change(model, "resize/middles", lambda middles: middles - np.float32(0.5))


def _permute_labels(model: Any) -> None:
    _change(model, "predictions/kernel", lambda kernel: kernel[:, ::-1])
    _change(model, "predictions/bias", lambda bias: bias[::-1])


def _make_nan(model: Any) -> None:
    _change(model, "predictions/bias", lambda bias: bias * np.float32(np.nan))


FAULTS = (
    *(_zero_one_weight, _swap_channels, _scale_wrongly, _resize_from_corners),
    *(_permute_labels, _make_nan),
)


def _plant(monkeypatch: pytest.MonkeyPatch, fault: Change) -> None:
    """Let the writer of ONNX files make a mistake."""
    write = onnx_model.write_model

    def write_faulty(*arguments: Any, **options: Any) -> bytes:
        model = onnx.load_from_string(write(*arguments, **options))
        fault(model)
        return bytes(model.SerializeToString())

    monkeypatch.setattr(onnx_model, "write_model", write_faulty)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_row_50_a_planted_fault_is_not_published(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Change
) -> None:
    """Exit 6, the worst image is named, and the place of the bundle stays empty."""
    _plant(monkeypatch, fault)

    result = _export(run, tmp_path / "out" / "bundle", "--json")

    assert result.exit_code == 6, result.output
    error = _json(result)
    assert error["code"] == "E601"
    assert error["path"] in {entry.path for entry in run.manifest.of_split("val")}
    assert "allowed at" in error["message"]
    assert "FAILED" in result.stderr
    _assert_nothing_is_left(tmp_path / "out")


def test_a_failed_export_keeps_the_former_bundle(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--force exchanges the folders only after the gate."""
    out = tmp_path / "out" / "bundle"
    assert _export(run, out).exit_code == 0
    before = (out / "bundle.json").read_bytes()
    _plant(monkeypatch, _swap_channels)

    assert _export(run, out, "--force").exit_code == 6

    assert (out / "bundle.json").read_bytes() == before
    assert [each.name for each in out.parent.iterdir()] == ["bundle"]


def test_force_replaces_a_bundle_and_nothing_else(run: Run, tmp_path: Path) -> None:
    """Without --force, and for a folder of something else, the export refuses at once."""
    out = tmp_path / "bundle"
    _publish(run, out, with_temperature=False)

    with pytest.raises(ExistsError, match="the bundle exists"):
        _publish(run, out)
    _publish(run, out, force=True)
    with pytest.raises(ExistsError, match="no bundle"):
        _publish(run, run.folder, force=True)

    assert read_onnx(out / "model.onnx").metadata.temperature == run.info["temperature"]
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("bundle")] == [
        "bundle"
    ]


def test_export_needs_the_images_of_the_training(run: Run, tmp_path: Path) -> None:
    """A missing or changed image is told with its path, and --data names where they are."""
    moved = Path(shutil.copytree(run.manifest.root, tmp_path / "moved"))
    entry = run.manifest.of_split("val")[0]

    _publish(run, tmp_path / "bundle", data=moved)
    (moved / entry.path).write_bytes(b"another picture")

    with pytest.raises(DataError, match="changed") as caught:
        _publish(run, tmp_path / "other", data=moved)
    assert caught.value.code == "E309"
    assert not (tmp_path / "other").exists()


def test_evaluate_model_gives_the_figures_of_the_run(run: Run, tmp_path: Path) -> None:
    """The split is found by hash, wherever its files lie below the folder."""
    _publish(run, tmp_path / "bundle")
    model, data = tmp_path / "bundle" / "model.onnx", tmp_path / "flat"
    data.mkdir()
    for number, entry in enumerate(run.manifest.entries):
        shutil.copy(run.manifest.path_of(entry), data / f"{number:03d}")

    summaries = {
        split: evaluate_model(Classifier(model), read_split(model, data, split), data)
        for split in ("train", "val", "all")
    }

    assert summaries["val"]["accuracy"] == run.info["val_accuracy"]
    assert summaries["val"]["loss"] == pytest.approx(run.info["val_loss"], abs=1e-3)
    assert [each["support"] for each in summaries["all"]["per_class"]] == [12, 12, 12]
    assert summaries["train"]["images"] + summaries["val"]["images"] == 36


def test_read_split_tells_what_is_missing(run: Run, tmp_path: Path) -> None:
    """A picture that is gone, a split without pictures, and a file away from its bundle."""
    _publish(run, tmp_path / "bundle")
    model = tmp_path / "bundle" / "model.onnx"
    data = Path(shutil.copytree(run.manifest.root, tmp_path / "data"))
    (data / run.manifest.of_split("val")[0].path).unlink()
    lone = Path(shutil.copy(model, tmp_path / "lone.onnx"))

    for path, split, code in (
        (model, "val", "E309"),
        (model, "test", "E301"),
        (lone, "val", "E410"),
    ):
        with pytest.raises(Mnv2tlError) as caught:
            read_split(path, data, split)
        assert caught.value.code == code
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a split"):
        read_split(lone, data, "val")


def test_export_refuses_unknown_formats(run: Run, tmp_path: Path) -> None:
    """The message names what there is."""
    with pytest.raises(ValueError, match="formats must be of"):
        export.export_run(run, tmp_path / "bundle", formats=("pickle",))


def test_row_46_export_refuses_what_is_no_run(tmp_path: Path) -> None:
    """A file and an empty folder are not parsed."""
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04")
    for path in (tmp_path, tmp_path / "model.keras"):
        result = _call("export", path, "--out", tmp_path / "bundle")

        assert result.exit_code == 4
        assert "error[E410" in result.stderr


ENTRIES = tuple(
    Entry(path=f"{i}.png", label=i % 2, split="val", sha256=64 * "0", bytes=1, width=1, height=1)
    for i in range(4)
)


def _measured(**changes: Any) -> Measured:
    """Return four images on which both sides agree."""
    rows = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    values: dict[str, Any] = {
        "entries": ENTRIES,
        "expected": rows,
        "on_pixels": rows.copy(),
        "from_files": rows.copy(),
        "logit_diffs": np.zeros(4),
        "pixel_means": np.zeros(4),
        "pixel_maxima": np.zeros(4),
        "batch_diff": 0.0,
        "selftest": SelfTest(resized_diff=0.0, direct_diff=0.0),
    }
    return Measured(**(values | changes))


def _failed(parity: Parity) -> list[str]:
    return [check.name for check in parity.checks if not check.passed]


def test_judge_passes_what_agrees() -> None:
    """All figures are those of Keras."""
    parity = judge(_measured(), format_name="onnx")

    assert parity.passed
    assert parity.figures["val_accuracy"] == parity.figures["keras_accuracy"] == 1.0
    parity.raise_if_failed()


def _moved(row: int, by: float) -> NDArray[np.float64]:
    rows = _measured().expected.copy()
    rows[row] += (by, -by)
    return np.asarray(rows)


@pytest.mark.parametrize(
    ("changes", "name", "worst"),
    [
        ({"on_pixels": _moved(2, 6e-5)}, "probability on equal pixels", "2.png"),
        ({"logit_diffs": np.array([0, 3e-4, 0, 0])}, "logit on equal pixels", "1.png"),
        ({"batch_diff": 6e-5}, "batch sizes", None),
        ({"pixel_means": np.array([0, 0, 0, 0.1])}, "resized level", "3.png"),
        ({"from_files": _moved(1, 1.5e-3)}, "both resizes", "1.png"),
        (
            {"from_files": _moved(1, 3e-3), "on_pixels": _moved(1, 4e-5)},
            "probability from file",
            "1.png",
        ),
        ({"selftest": SelfTest(resized_diff=0.0, direct_diff=2e-4)}, "self-test", None),
    ],
)
def test_judge_names_the_check_that_fails_and_its_worst_image(
    changes: dict[str, Any], name: str, worst: str | None
) -> None:
    """Each figure has its own limit, just above which it fails alone."""
    parity = judge(_measured(**changes), format_name="onnx")

    failed = _failed(parity)
    assert name in failed[0]
    # What is far from Keras from file is far from its own answer on pixels too.
    assert failed[1:] in ([], ["difference between both resizes"])
    with pytest.raises(ResultError) as caught:
        parity.raise_if_failed()
    assert (caught.value.code, caught.value.path) == ("E601", worst)


def test_judge_fails_what_is_not_finite() -> None:
    """A NaN is within no limit, and parity.json stays JSON."""
    rows = _measured().expected.copy()
    rows[3] = np.nan

    parity = judge(_measured(on_pixels=rows, from_files=rows), format_name="onnx")

    assert "not finite" in _failed(parity)[0]
    assert parity.checks[0].worst == "3.png"
    json.dumps(parity.to_json(), allow_nan=False)


def test_judge_fails_a_turned_label_within_wide_limits() -> None:
    """Where probabilities may differ, labels and accuracy must still be equal, unless allowed."""
    limits = dataclasses.replace(FP32, probabilities=0.5, file_probabilities=0.5)
    measured = _measured(on_pixels=_moved(2, -0.15), from_files=_moved(2, -0.15))

    parity = judge(measured, format_name="onnx", limits=limits)

    assert len(_failed(parity)) == 2
    assert parity.figures["from_file"]["labels_turned"] == 1
    assert parity.figures["from_file"]["largest_margin_turned"] == pytest.approx(0.2)
    loose = dataclasses.replace(limits, top1_agreement=0.7, accuracy_lost=0.25)
    assert judge(measured, format_name="onnx", limits=loose).passed


def test_fp16_and_int8_may_lose_the_budget_and_no_more() -> None:
    """One of four labels is a loss of 25 points; a figure without a limit is still told."""
    measured = _measured(on_pixels=_moved(2, -0.15), from_files=_moved(2, -0.15))

    for budget, passes in ((0.25, True), (0.24, False)):
        limits = limits_of("onnx-int8", accuracy_budget=budget)
        parity = judge(measured, format_name="onnx-int8", limits=limits)
        assert parity.passed is passes
    assert _failed(parity) == ["accuracy lost on equal pixels"]
    told = {check.name: check for check in parity.checks}
    assert told["difference of a probability on equal pixels"].limit is None
    fp16 = judge(measured, format_name="x", limits=limits_of("onnx-fp16", accuracy_budget=0.25))
    assert "difference of a probability on equal pixels" in _failed(fp16)


def test_metadata_comes_back_from_its_texts(run: Run) -> None:
    """All texts are ASCII JSON under one prefix."""
    metadata = open_source(run).make_metadata(format_name="onnx", via="native")

    texts = metadata.to_texts()

    assert all(key.startswith("mnv2tl.") for key in texts)
    assert all(text.isascii() for text in texts.values())
    again = Metadata.from_texts(texts | {"other": "x"})
    assert again.to_texts() == texts
