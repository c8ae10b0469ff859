from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("jinja2")
pytest.importorskip("keras")

from mnv2tl import store
from mnv2tl.checkpoint import Run
from mnv2tl.cli import main
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.errors import ArtifactError, DataError
from mnv2tl.report.write import write_report
from tests.report_folder import (
    CLASS_NAMES,
    rename,
    replace_manifest,
    write_benchmark,
    write_bundle,
)

_VOID = {"meta", "img", "br", "link", "input", "hr"}


class _Page(HTMLParser):
    """Collects the tags, attributes and texts of a page, and checks that its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text with single blanks."""
        return " ".join(" ".join(self.texts).split())

    def find(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def _read(path: Path) -> _Page:
    return _Page(path.read_text("utf-8"))


def _call(*words: object) -> Result:
    return CliRunner().invoke(main, ["report", *(str(word) for word in words)])


@pytest.fixture(scope="session")
def _report_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "report.html"


@pytest.fixture
def report(trained_run: Run, _report_place: Path) -> Path:
    """Return the report of `trained_run`, written once; do not change it."""
    if not _report_place.exists():
        write_report(trained_run, out=_report_place)
    return _report_place


def test_report_tells_every_part(trained_run: Run, report: Path) -> None:
    """Headings in order, the figures of the run, and the command that repeats it."""
    page = _read(report)

    sections = [each["id"] for each in page.find("section")]
    assert sections == ["summary", "data", "curves", "classes", "mistakes", "trust", "map"]
    assert trained_run.manifest.sha256 in page.text
    assert f"{100 * trained_run.info['val_accuracy']:.1f} %" in page.text
    assert "mnv2tl train" in page.text
    assert "--config run/run.json" in page.text
    for name in trained_run.class_names:
        assert name in page.text
    assert f"{len(trained_run.manifest.of_split('val'))} pictures" in page.text
    assert str(trained_run.folder.parent) not in report.read_text("utf-8")


def test_report_tells_of_bundle_and_benchmark(trained_run: Run, tmp_path: Path) -> None:
    """The parity table, with a failed check in words, and a chart for each batch size."""
    path = write_report(
        trained_run,
        bundle=write_bundle(trained_run, tmp_path / "bundle"),
        benchmark=write_benchmark(tmp_path / "result.json"),
        out=tmp_path / "report.html",
    )

    page = _read(path)
    assert page.find("section")[-1]["id"] == "export"
    for words in ("model.onnx", "onnx-int8: FAILED", "<b>difference</b>", "at most 5e-05"):
        assert words in page.text
    assert "Time of a call, batches of 16" in page.text
    assert "onnxruntime <b>" in page.text


def test_report_is_safe_whatever_the_names(trained_run: Run, tmp_path: Path) -> None:
    """No name becomes markup, none turns the direction of the text, and all of them are seen."""
    run = rename(trained_run, tmp_path)

    path = write_report(run, bundle=write_bundle(run, tmp_path / "bundle"))

    content = path.read_text("utf-8")
    page = _Page(content)
    assert path == tmp_path / "run" / "report.html"
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "b", "i", "u"})
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src", "xlink:href", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/webp;base64,"))
    assert "\u202e" not in content
    assert CLASS_NAMES[0] in page.text
    assert r"disc\u202egnp.exe\nsecond line" in page.text
    assert CLASS_NAMES[2] in page.text
    assert r"new\nline.png" in page.text
    assert r"\udcff\udcfe.png" in page.text
    assert r"<b>bad</b>\udcff.gif" in page.text
    assert "49" not in re.findall(r"quoted.{0,40}", content)


def test_report_forbids_everything_but_its_own_style(report: Path) -> None:
    """The policy names the hash of the one style sheet; pictures are in the file itself."""
    content = report.read_text("utf-8")

    styles = re.findall(r"<style>(.*?)</style>", content, re.DOTALL)
    assert len(styles) == 1
    digest = base64.b64encode(hashlib.sha256(styles[0].encode("utf-8")).digest()).decode("ascii")
    metas = {each.get("http-equiv"): each.get("content") for each in _Page(content).find("meta")}
    policy = metas["Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"data:[^\"]*", "", content).replace("http-equiv", "")


def test_report_says_every_picture_in_words(report: Path) -> None:
    """Each img has a text, each drawing a name or is hidden, each id is used once."""
    page = _read(report)

    assert all(each["alt"] for each in page.find("img"))
    for each in page.find("svg"):
        is_named = "aria-label" in each or "aria-labelledby" in each
        assert each.get("aria-hidden") == "true" or (each["role"] == "img" and is_named)
    ids = [each["id"] for _, each in page.tags if "id" in each]
    assert len(ids) == len(set(ids))
    named = {
        name for each in page.find("svg") for name in (each.get("aria-labelledby") or "").split()
    }
    assert named <= set(ids)


def test_report_is_the_same_for_the_same_run(
    trained_run: Run, report: Path, tmp_path: Path
) -> None:
    """No date, no random names: two reports can be compared."""
    again = write_report(trained_run, out=tmp_path / "again.html")

    assert again.read_bytes() == report.read_bytes()


def test_report_goes_on_without_some_pictures(trained_run: Run, tmp_path: Path) -> None:
    """A lost and a changed picture are named, and the figures are of the others."""
    manifest = trained_run.manifest
    shutil.copytree(manifest.root, tmp_path / "data")
    lost, changed = manifest.of_split("val")[:2]
    (tmp_path / "data" / lost.path).unlink()
    Image.new("RGB", (64, 64)).save(tmp_path / "data" / changed.path)

    path = write_report(trained_run, data=tmp_path / "data", out=tmp_path / "report.html")

    text = _read(path).text
    assert "2 pictures of the split val" in text
    assert lost.path in text
    assert f"{len(manifest.of_split('val')) - 2} pictures" in text


def test_report_refuses_a_folder_without_the_pictures(trained_run: Run, tmp_path: Path) -> None:
    """Nothing is written, and the message names --data."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="--data") as caught:
        write_report(trained_run, data=tmp_path / "empty", out=tmp_path / "report.html")

    assert caught.value.code == "E309"
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("bundle.json", None, "E410"),
        ("bundle.json", "[", "E412"),
        ("bundle.json", "[]", "E412"),
        ("bundle.json", '{"artifacts": [{"format": 1}]}', "E412"),
        ("bundle.json", '{"artifacts": [], "checkpoint_sha256": "00"}', "E413"),
        ("parity.json", None, "E410"),
        ("parity.json", '[{"format": "onnx", "passed": true, "checks": [{}]}]', "E412"),
    ],
)
def test_report_refuses_a_bundle_that_is_none(
    trained_run: Run, tmp_path: Path, name: str, content: str | None, code: str
) -> None:
    """Missing, damaged, of another shape, or made from another checkpoint."""
    bundle = write_bundle(trained_run, tmp_path / "bundle")
    (bundle / name).unlink()
    if content is not None:
        (bundle / name).write_text(content)

    with pytest.raises(ArtifactError) as caught:
        write_report(trained_run, bundle=bundle, out=tmp_path / "report.html")

    assert caught.value.code == code


@pytest.mark.parametrize("change", [{"p50_ms": "4"}, {"p99_ms": float("nan")}, {"format": None}])
def test_report_refuses_a_benchmark_that_is_none(
    trained_run: Run, tmp_path: Path, change: dict[str, object]
) -> None:
    """A figure that is a text, or is not finite, would spoil the chart."""
    path = write_benchmark(tmp_path / "result.json")
    value = json.loads(path.read_bytes())
    value["rows"][0] |= change
    path.write_text(json.dumps(value))

    with pytest.raises(ArtifactError, match="as mnv2tl writes it"):
        write_report(trained_run, benchmark=path, out=tmp_path / "report.html")


def test_report_judges_trust_on_the_test_split(trained_run: Run, tmp_path: Path) -> None:
    """Where there is a test split the temperature was not fitted on it."""
    manifest = trained_run.manifest
    train = manifest.of_split("train")
    moved = {entry.path for entry in train[::3]}
    entries = Entries(
        dataclasses.replace(entry, split="test") if entry.path in moved else entry
        for entry in manifest.entries
    )
    shutil.copytree(trained_run.folder, tmp_path / "run")
    run = replace_manifest(tmp_path / "run", dataclasses.replace(manifest, entries=entries))

    text = _read(write_report(run)).text

    assert "Judged on the test pictures" in text
    assert "accuracy, test" in text
    assert "All test pictures are answered" in text


def test_report_command_prints_the_path(trained_run: Run, tmp_path: Path) -> None:
    """The promised key of --json; no progress with --quiet."""
    out = tmp_path / "page.html"

    result = _call(trained_run.folder, "--out", out, "--json", "--quiet")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"path": str(out)}
    assert result.stderr == ""
    assert out.is_file()


def test_report_command_refuses_what_is_no_run(tmp_path: Path) -> None:
    """One line and exit 4."""
    result = _call(tmp_path)

    assert result.exit_code == 4
    assert "E410" in result.stderr


def test_report_of_2000_validation_pictures_stays_small(trained_run: Run, tmp_path: Path) -> None:
    """Noise is what thumbnails shrink least; 15 MB is promised."""
    rng = np.random.default_rng(0)
    entries = []
    for number in range(2000):
        path = tmp_path / "data" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path, compress_level=1)
        entries.append(
            Entry(
                path=path.name,
                label=number % 3,
                split="val",
                sha256=store.sha256_file(path),
                bytes=path.stat().st_size,
                width=64,
                height=64,
            )
        )
    shutil.copytree(trained_run.folder, tmp_path / "run")
    manifest = dataclasses.replace(
        trained_run.manifest, root=tmp_path / "data", entries=Entries(entries)
    )
    run = replace_manifest(tmp_path / "run", manifest)

    path = write_report(run)

    assert path.stat().st_size < 15_000_000
    text = _read(path).text
    assert "Map of 2000" in path.read_text("utf-8")
    assert re.search(r"24 of \d+ mistakes are shown", text)
