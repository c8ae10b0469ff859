from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("keras")

from mnv2tl import store
from mnv2tl.checkpoint import Run
from mnv2tl.cli import main
from mnv2tl.errors import ResultError
from mnv2tl_export.artifacts import Workshop
from mnv2tl_export.classifier import Classifier
from mnv2tl_export.export import export_run
from mnv2tl_export.onnx_int8 import Score

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
FORMATS = ("onnx", "onnx-fp16", "onnx-int8", *(("savedmodel",) if HAS_TENSORFLOW else ()))


def _call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats") / "bundle"


@pytest.fixture
def bundle(trained_run: Run, _place: Path) -> Path:
    """Return a bundle of every format, exported once; do not change it."""
    if not _place.exists():
        # The drawn images are few: one label is more than a point.
        export_run(trained_run, _place, formats=FORMATS, accuracy_budget=0.5)
    return _place


def test_every_format_is_published_and_sealed(bundle: Path, trained_run: Run) -> None:
    """One run gives all of them in one folder, with a README that names each."""
    seal = json.loads((bundle / "bundle.json").read_bytes())

    assert [each["format"] for each in seal["artifacts"]] == list(FORMATS)
    assert all(each["passed"] for each in seal["artifacts"])
    files = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert files == {"bundle.json", *seal["files"]}
    readme = (bundle / "README.md").read_text("utf-8")
    for artifact in seal["artifacts"]:
        assert artifact["path"] in readme
        assert artifact["bytes"] > 0
    assert seal["class_names"] == list(trained_run.class_names)
    parities = json.loads((bundle / "parity.json").read_bytes())
    assert [each["format"] for each in parities] == list(FORMATS)


@pytest.mark.parametrize("name", ["model.onnx", "model-fp16.onnx", "model-int8.onnx"])
def test_every_onnx_file_is_loaded_and_tests_itself(bundle: Path, name: str) -> None:
    """Each says what it is, and answers as where it was made."""
    classifier = Classifier(bundle / name)

    found = classifier.selftest()

    assert found.passed
    assert classifier.metadata.artifact["via"] == "native"
    assert classifier.metadata.artifact["format"].startswith("onnx")
    rows = classifier.predict_pixels(np.full((3, 40, 50, 3), 90, np.uint8))
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "least", "most"), [("model-fp16.onnx", 0.45, 0.7), ("model-int8.onnx", 0.2, 0.6)]
)
def test_smaller_formats_are_smaller(bundle: Path, name: str, least: float, most: float) -> None:
    """Half and about a quarter; of a narrow network the graph itself is a good part."""
    share = (bundle / name).stat().st_size / (bundle / "model.onnx").stat().st_size

    assert least < share < most


def test_every_format_is_equal_when_made_twice(
    bundle: Path, trained_run: Run, tmp_path: Path
) -> None:
    """Bytes depend on the run and the versions alone; times stand in bundle.json."""
    export_run(trained_run, tmp_path / "again", formats=FORMATS, accuracy_budget=0.5)

    first, second = (
        json.loads((folder / "bundle.json").read_bytes())["files"]
        for folder in (bundle, tmp_path / "again")
    )
    assert first == second


def test_predict_and_selftest_take_every_file(bundle: Path, trained_run: Run) -> None:
    """ONNX files and the SavedModel, with or without its version."""
    seal = json.loads((bundle / "bundle.json").read_bytes())
    paths = [bundle / each["path"] for each in seal["artifacts"]]
    paths += [bundle / "saved_model" / "1"] if HAS_TENSORFLOW else []
    picture = trained_run.manifest.path_of(trained_run.manifest.of_split("val")[0])
    labels = {}
    for path in paths:
        tested = _call("selftest", path, "--json")
        assert tested.exit_code == 0, tested.output
        predicted = _call("predict", path, picture, "--json")
        assert predicted.exit_code == 0, predicted.output
        labels[path.name] = json.loads(predicted.stdout)["label"]

    exact = [label for name, label in labels.items() if "-" not in name]  # float32
    assert set(exact) == {labels["model.onnx"]}
    assert _call("predict", bundle, picture).exit_code == 4


def test_evaluate_takes_every_file(bundle: Path, trained_run: Run) -> None:
    """Accuracy is that of the gate, for each of them."""
    seal = json.loads((bundle / "bundle.json").read_bytes())
    for artifact in seal["artifacts"]:
        result = _call(
            *("evaluate", bundle / artifact["path"], trained_run.manifest.root, "--json", "--quiet")
        )

        assert result.exit_code == 0, result.output
        value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        assert value["accuracy"] == artifact["val_accuracy"]
        assert value["images"] == trained_run.info["val_images"]


def test_onnx_is_the_default_and_savedmodel_where_it_can_be(
    trained_run: Run, tmp_path: Path
) -> None:
    """What is not installed is not asked for, unless it is named."""
    result = _call("export", trained_run.folder, "--out", tmp_path / "bundle", "--json", "--quiet")

    assert result.exit_code == 0, result.output
    formats = [each["format"] for each in json.loads(result.stdout)["artifacts"]]
    assert formats == ["onnx", "savedmodel"] if HAS_TENSORFLOW else ["onnx"]


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is installed")
@pytest.mark.parametrize("words", [("--format", "savedmodel"), ("--via", "tf2onnx")])
def test_what_needs_tensorflow_names_the_extra(
    trained_run: Run, tmp_path: Path, words: tuple[str, str]
) -> None:
    """Exit 5, the extra is named, and nothing is published."""
    result = _call("export", trained_run.folder, "--out", tmp_path / "out" / "bundle", *words)

    assert result.exit_code == 5
    assert "[savedmodel]" in result.stderr
    assert not (tmp_path / "out" / "bundle").exists()


def test_int8_without_a_recipe_that_holds_is_not_published(
    trained_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 6 and no file; with --keep-passing the others are published and it is told."""

    class Broken(Workshop):
        """Scores as if every quantised file were wrong about everything."""

        def _score(self, content: bytes) -> Score:
            score = super()._score(content)
            if b"DequantizeLinear" in content:
                return Score(accuracy=score.accuracy - 0.9, loss=9.0)
            return score

    monkeypatch.setattr("mnv2tl_export.export.Workshop", Broken)
    formats = ("onnx", "onnx-int8")

    with pytest.raises(ResultError, match="no int8 recipe keeps") as caught:
        export_run(trained_run, tmp_path / "out" / "bundle", formats=formats)
    assert caught.value.code == "E601"
    assert list((tmp_path / "out").iterdir()) == []

    result = export_run(trained_run, tmp_path / "bundle", formats=formats, keep_passing=True)
    passed = {each["format"]: each["passed"] for each in result.artifacts}
    assert passed == {"onnx": True, "onnx-int8": False}
    assert not (tmp_path / "bundle" / "model-int8.onnx").exists()
    assert store.sha256_file(tmp_path / "bundle" / "model.onnx") == result.artifacts[0]["sha256"]
