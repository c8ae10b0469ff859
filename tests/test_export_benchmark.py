from __future__ import annotations

import json
import shutil
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
from mnv2tl_export.benchmark import Plan, summarise
from mnv2tl_export.export import export_run


def _call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def bundle(trained_run: Run, tmp_path: Path) -> Path:
    """Return a bundle with one ONNX file."""
    return export_run(trained_run, tmp_path / "bundle", formats=("onnx",)).bundle


def test_benchmark_times_the_file_and_keras_in_their_own_processes(
    trained_run: Run, bundle: Path, tmp_path: Path, backend: str
) -> None:
    """A row per runtime and batch size, with every key of the fixed command line."""
    before = sorted(each.name for each in bundle.iterdir())

    result = _call(
        *("benchmark", bundle, trained_run.manifest.root, "--run", trained_run.folder, "--json"),
        *("--threads", 1, "--batch", 1, "--batch", 4, "--rounds", 2, "--quiet"),
        *("--out", tmp_path / "result.json"),
    )

    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "result.json").read_bytes()) == value
    rows = {(row["runtime"], row["batch"]): row for row in value["rows"]}
    assert {("onnxruntime", 1), ("onnxruntime", 4), (f"keras-{backend}", 4)} <= rows.keys()
    for row in rows.values():
        assert {"format", "threads", "load_ms", "p50_ms", "p99_ms", "peak_rss_mb"} <= row.keys()
        assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["p50_ms"])
        assert row["val_accuracy"] == trained_run.info["val_accuracy"]
        assert row["max_abs_diff"] < 1e-4
        assert row["bytes"] > 10**5
        assert row["calls"] == 2 * 5
    assert value["images"] == trained_run.info["val_images"]
    assert value["decode_ms"] > 0
    assert sorted(each.name for each in bundle.iterdir()) == before


def test_benchmark_needs_no_pictures(bundle: Path) -> None:
    """The picture of the self-test is timed; there is no accuracy then."""
    result = _call("benchmark", bundle, "--threads", 1, "--batch", 1, "--rounds", 2)

    assert result.exit_code == 0, result.output
    assert "onnx via native" in result.stdout
    assert "accuracy" in result.stdout


def test_benchmark_decodes_what_the_training_did(
    trained_run: Run, bundle: Path, tmp_path: Path
) -> None:
    """With a run its own limit of pixels holds, unless another one is given."""
    run = Path(shutil.copytree(trained_run.folder, tmp_path / "run"))
    info = json.loads((run / "run.json").read_bytes())
    info["config"]["scan"]["max_pixels"] = 4095
    store.write_sealed_json(run / "run.json", info)
    words = ("benchmark", bundle, trained_run.manifest.root)
    quick = ("--threads", 1, "--batch", 1, "--rounds", 2)

    refused = [_call(*words, "--run", run), _call(*words, "--max-pixels", 4095)]
    taken = _call(*words, *quick, "--max-pixels", 4096)

    assert [each.exit_code for each in refused] == [3] * 2
    assert all("4,096 pixels > limit 4,095" in each.stderr for each in refused)
    assert taken.exit_code == 0, taken.output


def test_benchmark_refuses_what_is_no_bundle_or_has_changed(bundle: Path, tmp_path: Path) -> None:
    """A folder, a changed file, and more cores than there are."""
    result = _call("benchmark", tmp_path)
    assert result.exit_code == 4
    assert "E410" in result.stderr
    assert _call("benchmark", bundle, "--threads", 10_000).exit_code == 2
    model = bundle / "model.onnx"
    model.write_bytes(model.read_bytes() + b" ")
    result = _call("benchmark", bundle)
    assert result.exit_code == 4


def test_summarise_gives_percentiles_within_their_intervals() -> None:
    """The figures of a known list of times."""
    row = summarise(np.arange(1, 101) / 1000, 10)

    assert row["p50_ms"] == pytest.approx(50.5)
    assert row["p90_ms"] == pytest.approx(90.1)
    assert row["images_per_s"] == pytest.approx(10 / 0.0505)
    for share in (50, 90):
        low, high = row[f"p{share}_interval_ms"]
        assert low < row[f"p{share}_ms"] < high


@pytest.mark.parametrize("changes", [{"batches": ()}, {"threads": (0,)}, {"rounds": 1}])
def test_a_plan_that_measures_nothing_is_refused(changes: dict[str, Any]) -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        Plan(**changes)
