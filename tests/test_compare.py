from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("keras")

from mnv2tl import store
from mnv2tl.checkpoint import Run
from mnv2tl.cli import main
from mnv2tl.compare import Pair, compare_runs
from mnv2tl.data.entries import Entries
from mnv2tl.data.manifest import Manifest
from mnv2tl.errors import ArtifactError, DataError
from mnv2tl.report.answers import Network, ask
from tests.report_folder import replace_manifest

BAD_NAME = "<img src=x onerror=alert(1)>\u202e"


def _copy(run: Run, folder: Path, manifest: Manifest | None = None, **changes: Any) -> Run:
    """Return a copy of a run with other images, or other values in run.json."""
    shutil.copytree(run.folder, folder)
    return replace_manifest(folder, manifest or run.manifest, **changes)


@pytest.fixture
def other(trained_run: Run, tmp_path: Path) -> Run:
    """Return a run that sees pixels on another scale, so that it answers otherwise."""
    config = trained_run.info["config"] | {"scaling": "unit", "learning_rate": 0.5}
    return _copy(trained_run, tmp_path / "other", config=config, trunk_runtime="keras")


def _call(*words: object) -> Result:
    return CliRunner().invoke(main, ["compare", *(str(word) for word in words)])


def _right(run: Run) -> dict[str, bool]:
    """Return SHA-256 -> whether the report's answer is right, of validation images."""
    manifest = run.manifest
    answers = ask(
        Network.open(run),
        manifest.of_split("val"),
        manifest.root,
        image_px=run.info["config"]["image_px"],
        max_pixels=10**8,
    )
    is_right = (answers.predicted == answers.labels).tolist()
    return dict(zip((entry.sha256 for entry in answers.entries), is_right, strict=True))


def _move(manifest: Manifest, paths: set[str], **changes: Any) -> Manifest:
    """Return a manifest in which some images are changed."""
    entries = (
        dataclasses.replace(entry, **changes) if entry.path in paths else entry
        for entry in manifest.entries
    )
    return dataclasses.replace(manifest, entries=Entries(entries))


def test_pairs_are_counted_as_the_report_answers(trained_run: Run, other: Run) -> None:
    """Discordant images, both accuracies and their difference, by the report's own road."""
    first, second = _right(trained_run), _right(other)
    only_first = sum(first[each] and not second[each] for each in first)
    only_other = sum(second[each] and not first[each] for each in first)

    (pair,) = compare_runs([trained_run, other]).pairs

    assert only_first + only_other > 0
    assert (pair.only_first, pair.only_other) == (only_first, only_other)
    assert (pair.shared, pair.lost) == (len(first), 0)
    assert pair.first_accuracy == sum(first.values()) / len(first)
    assert pair.accuracy == sum(second.values()) / len(first)
    assert pair.difference == pytest.approx(pair.accuracy - pair.first_accuracy)
    assert pair.interval[0] < pair.difference < pair.interval[1]
    assert pair.corrected_p_value == pair.p_value


def test_only_images_of_both_validation_splits_count(trained_run: Run, tmp_path: Path) -> None:
    """Not one that the other run trained on, nor one that has another class there."""
    manifest = trained_run.manifest
    val = [entry.path for entry in manifest.of_split("val")]
    changed = _move(_move(manifest, {val[0]}, split="train"), {val[1]}, label=2)
    other = _copy(trained_run, tmp_path / "other", changed)

    (pair,) = compare_runs([trained_run, other]).pairs

    assert pair.shared == len(val) - 2
    assert (pair.only_first, pair.only_other, pair.p_value) == (0, 0, 1.0)
    assert pair.verdict == "No difference is shown between run 2 and run 1"


def test_classes_are_matched_by_name(trained_run: Run, tmp_path: Path) -> None:
    """Another name for a class makes its images others."""
    manifest = trained_run.manifest
    names = ("disc", "box", "stripes")
    renamed = dataclasses.replace(manifest, class_names=names)
    other = _copy(trained_run, tmp_path / "other", renamed, class_names=list(names))
    squares = [entry for entry in manifest.of_split("val") if entry.label == 1]

    (pair,) = compare_runs([trained_run, other]).pairs

    assert squares
    assert pair.shared == len(manifest.of_split("val")) - len(squares)


def test_runs_without_a_common_image_are_refused(trained_run: Run, tmp_path: Path) -> None:
    """The message says what to do; without the test the figures are shown."""
    manifest = trained_run.manifest
    val = {entry.path for entry in manifest.of_split("val")}
    other = _copy(trained_run, tmp_path / "other", _move(manifest, val, sha256="0" * 64))

    refused = _call(trained_run.folder, other.folder)
    shown = _call(trained_run.folder, other.folder, "--no-test", "--json")

    assert refused.exit_code == 4
    assert "E401" in refused.stderr
    assert "has no validation image in common" in refused.stderr
    assert "--no-test" in refused.stderr
    assert json.loads(shown.stdout)["pairs"] == []


def test_lost_images_are_counted(trained_run: Run, tmp_path: Path) -> None:
    """A file that is gone and one that has changed; without any other there is an error."""
    manifest = trained_run.manifest
    root = Path(shutil.copytree(manifest.root, tmp_path / "data"))
    val = manifest.of_split("val")
    (root / val[0].path).unlink()
    Image.new("RGB", (64, 64)).save(root / val[1].path)

    (pair,) = compare_runs([trained_run, trained_run], data=root).pairs

    assert (pair.shared, pair.lost) == (len(val), 2)
    shutil.rmtree(root)
    with pytest.raises(DataError, match="--data") as caught:
        compare_runs([trained_run, trained_run], data=root)
    assert caught.value.code == "E309"


def test_each_run_is_held_against_the_first(trained_run: Run, other: Run) -> None:
    """Holm's rule over two equal pairs doubles the p-value, up to 1."""
    comparison = compare_runs([trained_run, other, other])

    second, third = comparison.pairs
    assert [row.number for row in comparison.rows] == [1, 2, 3]
    assert (second.number, third.number) == (2, 3)
    assert second.p_value == third.p_value
    assert second.corrected_p_value == third.corrected_p_value == min(1, 2 * second.p_value)


@pytest.mark.parametrize(
    ("difference", "p_value", "verdict"),
    [
        (0.1, 0.049, "Run 2 is better than run 1"),
        (-0.1, 0.049, "Run 2 is worse than run 1"),
        (0.1, 0.05, "No difference is shown between run 2 and run 1"),
    ],
)
def test_verdict_follows_the_corrected_p_value(
    difference: float, p_value: float, verdict: str
) -> None:
    """Below 0.05 the sign says which one is better."""
    pair = Pair(
        number=2,
        shared=50,
        lost=0,
        first_accuracy=0.5,
        accuracy=0.5 + difference,
        only_first=0,
        only_other=0,
        difference=difference,
        interval=(-1.0, 1.0),
        test="exact binomial",
        p_value=0.0,
        corrected_p_value=p_value,
    )

    assert pair.verdict == verdict


def test_figures_are_those_of_run_json(trained_run: Run, other: Run) -> None:
    """And settings are told only where they differ."""
    comparison = compare_runs([trained_run, other], with_test=False)

    info, row = trained_run.info, comparison.rows[0]
    assert row.accuracy == info["val_accuracy"]
    assert row.accuracy_interval == tuple(info["val_accuracy_interval"])
    assert (row.log_loss, row.ece) == (info["val_loss"], info["ece"]["after"])
    assert (row.best_epoch, row.epochs) == (info["best_epoch"], 3)
    assert row.trained_parameters == info["trainable"]["parameters"]
    assert row.seconds == info["seconds"]["total"]
    assert comparison.differences == {
        "learning rate": ("0.001", "0.5"),
        "scaling": ("symmetric", "unit"),
        "trunk run by": (info["trunk_runtime"], "keras"),
    }


def test_json_is_one_object_on_the_last_line(trained_run: Run, other: Run) -> None:
    """Other tools read these keys."""
    result = _call(trained_run.folder, other.folder, "--json", "--quiet")

    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    value = json.loads(result.stdout)
    assert value.keys() == {"runs", "differences", "pairs", "path"}
    assert [each["run"] for each in value["runs"]] == [str(trained_run.folder), str(other.folder)]
    promised = {"shared", "only_first", "only_other", "difference", "interval", "p_value", "test"}
    assert promised | {"corrected_p_value", "verdict"} <= value["pairs"][0].keys()


def test_table_shows_figures_and_differences(trained_run: Run, other: Run) -> None:
    """On stdout; no folder name is taken for markup or turns the text."""
    bad = other.folder.rename(other.folder.with_name(f"[bold]{BAD_NAME}"))

    result = _call(trained_run.folder, bad, "--quiet")

    assert result.exit_code == 0, result.output
    rows = [[each.strip() for each in line.split("│")] for line in result.stdout.splitlines()]
    cells = {row[1]: row[2:-1] for row in rows if len(row) == 5}
    assert cells["accuracy"][0] == f"{100 * trained_run.info['val_accuracy']:.1f} %"
    assert cells["scaling"] == ["symmetric", "unit"]
    assert "batch size" not in cells
    assert "McNemar, exact binomial, p = " in result.stdout
    assert "\u202e" not in result.stdout
    assert "[bold]" in result.stdout


def test_one_run_is_wrong_usage(trained_run: Run) -> None:
    """There is nothing to compare it with."""
    result = _call(trained_run.folder)

    assert result.exit_code == 2
    assert "two runs or more, got 1" in result.stderr


def test_run_that_is_not_finished_is_refused(trained_run: Run, tmp_path: Path) -> None:
    """Its figures are not there yet."""
    other = _copy(trained_run, tmp_path / "other", finished=False)

    with pytest.raises(ArtifactError, match="not finished") as caught:
        compare_runs([trained_run, other])

    assert caught.value.code == "E403"


def test_page_shows_every_part_and_is_safe(trained_run: Run, other: Run, tmp_path: Path) -> None:
    """Four charts with words, no script, no address, and the same bytes when made again."""
    pytest.importorskip("jinja2")
    bad = other.folder.rename(other.folder.with_name(BAD_NAME))
    paths = [tmp_path / name for name in ("first.html", "second.html")]

    for path in paths:
        result = _call(trained_run.folder, bad, "--out", path, "--json", "--quiet")
        assert result.exit_code == 0, result.output

    content = paths[0].read_text("utf-8")
    assert json.loads(result.stdout)["path"] == str(paths[1])
    assert content == paths[1].read_text("utf-8")
    assert re.findall(r'<section id="(\w+)">', content) == ["figures", "test", "curves", "settings"]
    assert content.count('<svg role="img"') == 4
    assert "default-src &#39;none&#39;" in content
    for forbidden in ("<script", "<img", "\u202e", "http://", "https://", 'style="'):
        assert forbidden not in content
    assert "&lt;img src=x" in content
    assert "exact binomial" in content


def test_page_without_test_has_no_verdict(trained_run: Run, other: Run, tmp_path: Path) -> None:
    """Runs on other images are named as such."""
    pytest.importorskip("jinja2")
    manifest = _move(trained_run.manifest, {trained_run.manifest.entries[0].path}, split="test")
    moved = _copy(trained_run, tmp_path / "moved", manifest)
    path = tmp_path / "page.html"

    assert _call(trained_run.folder, moved.folder, "--no-test", "--out", path).exit_code == 0

    content = path.read_text("utf-8")
    assert 'id="test"' not in content
    assert "2 different manifests" in content


def test_run_json_that_lacks_something_is_refused(trained_run: Run, tmp_path: Path) -> None:
    """One line that says what is missing, for the report as well."""
    shutil.copytree(trained_run.folder, tmp_path / "run")
    info = dict(trained_run.info)
    del info["versions"]
    info["seconds"] = {"fit": 1.0}
    info["weights"] = "imagenet"
    store.write_sealed_json(tmp_path / "run" / "run.json", info)

    compared = _call(tmp_path / "run", tmp_path / "run")
    reported = CliRunner().invoke(main, ["report", str(tmp_path / "run")])

    for result in (compared, reported):
        assert result.exit_code == 4
        assert "E412" in result.stderr
        assert "it lacks versions, seconds.total, weights.name, weights.lic" in result.stderr
    assert not (tmp_path / "run" / "report.html").exists()
