from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("yaml")
pytest.importorskip("markdown_it")

import yaml
from markdown_it import MarkdownIt

from mnv2tl import store
from mnv2tl.checkpoint import Run
from mnv2tl.data.entries import Entries, Entry
from mnv2tl.data.manifest import LeftOut, Manifest
from mnv2tl.data.split import SPLITS, Split
from mnv2tl_export.model_card import Subject, write_model_card
from mnv2tl_export.parity import Parity

BAD_NAMES = (
    'a|b "q" \\ # no comment',
    "<script>alert(1)</script>",
    "- x\n---\n[y](z) `c`",
    ": y {{ @@{classes} }} <!-- end -->",
    "\u202egnp\U0001f600\u2028\udcff",
)
"""A cell, HTML, the end of the head, a place to fill in, and what no YAML may hold as it is."""
SHOWN_NAMES = (
    'a|b "q" \\ # no comment',
    "<script>alert(1)</script>",
    r"- x\n---\n[y](z) `c`",
    ": y {{ @@{classes} }} <!-- end -->",
    "\\u202egnp\U0001f600\\u2028\\udcff",
)


def _entry(number: int, label: int, split: Split) -> Entry:
    path, digest = f"{label}/{number}.png", f"{number:064d}"
    return Entry(path=path, label=label, split=split, sha256=digest, bytes=1, width=8, height=8)


def _manifest(class_names: tuple[str, ...], **changes: Any) -> Manifest:
    """Return six pictures of each class: four to train, two to validate."""
    splits: tuple[Split, ...] = (*("train",) * 4, *("val",) * 2)
    entries = [
        _entry(6 * label + number, label, split)
        for label in range(len(class_names))
        for number, split in enumerate(splits)
    ]
    manifest = Manifest(
        root=Path("/home/somebody/stamps"), class_names=class_names, entries=Entries()
    )
    return dataclasses.replace(manifest, entries=Entries(entries), **changes)


def _subject(class_names: tuple[str, ...] = ("cat", "dog", "owl"), **changes: Any) -> Subject:
    """Return a subject whose first picture is answered with the last class, all others rightly."""
    manifest = changes.pop("manifest", None) or _manifest(class_names)
    labels = [entry.label for entry in manifest.of_split("val")]
    logits = np.eye(len(class_names), dtype=np.float32)[labels]
    logits[0] = logits[0, ::-1]
    subject = Subject(info={}, manifest=manifest, logits=logits, temperature=0.5, versions={})
    return dataclasses.replace(subject, **changes)


def _write(subject: Subject, *, passed: tuple[bool, ...] = (True, True)) -> str:
    formats = {"onnx": "model.onnx", "onnx-int8": "model-int8.onnx"}
    figures = {
        **{"val_accuracy": 0.75, "val_accuracy_interval": (0.5, 0.9)},
        **{"top1_agreement": 0.99, "max_abs_diff": 4.2e-6},
    }
    artifacts = [
        {"format": name, "path": path, "bytes": 1_234_567, "sha256": "ab" * 32, "passed": each}
        for (name, path), each in zip(formats.items(), passed, strict=True)
    ]
    parities = [Parity(format=name, checks=(), figures=figures) for name in formats]
    return write_model_card(subject, artifacts, parities)


def _read_head(card: str) -> dict[str, Any]:
    """Return what a YAML parser finds in the head of a card."""
    start, head, _ = card.split("---\n", 2)
    assert start == ""
    value: dict[str, Any] = yaml.safe_load(head)
    return value


def _read_tables(card: str) -> list[list[list[str]]]:
    """Return the text of each cell of each table, as a Markdown parser shows it."""
    body = card.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    assert {each.type for each in tokens}.isdisjoint({"html_block", "hr"})
    tables: list[list[list[str]]] = []
    for token, inner in itertools.pairwise(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            parts = inner.children or []
            assert {part.type for part in parts} <= {"text", "code_inline", "text_special"}
            tables[-1][-1].append("".join(part.content for part in parts))
    return tables


def _find_row(card: str, name: str) -> list[str]:
    return next(row for table in _read_tables(card) for row in table if row[0] == name)


def test_head_is_what_model_hubs_read() -> None:
    """The keys of the Hugging Face card, with a result for Keras and for each file."""
    head = _read_head(_write(_subject()))

    (entry,) = head.pop("model-index")
    (result,) = entry["results"]
    assert head == {
        "license": "unknown",
        "library_name": "mnv2tl",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "mobilenet-v2", "onnx"],
        "metrics": ["accuracy", "f1"],
    }
    assert entry["name"] == "mobilenet-v2 stamps"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"]["type"] == "imagefolder"
    assert result["dataset"]["name"] == "stamps"
    found = [(each["type"], each["value"], each["name"]) for each in result["metrics"]]
    assert found == [
        ("accuracy", 0.8333, "Accuracy, Keras"),
        ("f1", 0.8222, "F1, mean over the classes, Keras"),
        ("accuracy", 0.75, "Accuracy, model.onnx"),
        ("accuracy", 0.75, "Accuracy, model-int8.onnx"),
    ]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_head_holds_a_bad_folder_name(name: str) -> None:
    """The name of the data set is one text, and nothing ends the head before its time."""
    root = Path("/data") / name.replace("/", "")
    manifest = dataclasses.replace(_manifest(("cat", "dog", "owl")), root=root)

    card = _write(_subject(manifest=manifest))

    shown = SHOWN_NAMES[BAD_NAMES.index(name)].replace("/", "")
    (entry,) = _read_head(card)["model-index"]
    assert entry["results"][0]["dataset"]["name"] == shown
    assert entry["name"] == f"mobilenet-v2 {shown}"
    assert _find_row(card, "folder") == ["folder", shown.strip()]


def test_bad_class_names_are_shown_as_they_are() -> None:
    """In both tables, one row for each class, and no place in them is filled in."""
    card = _write(_subject(BAD_NAMES))

    tables = [table for table in _read_tables(card) if table[0][0] == "class"]
    assert len(tables) == 2
    for table in tables:
        assert [row[0] for row in table[1:]] == list(SHOWN_NAMES)
    assert "<script" not in card.replace("\\<", "")
    assert "\u202e" not in card


def test_figures_of_each_class_are_counted() -> None:
    """One cat is taken for an owl: recall of cat, precision of owl; intervals are Wilson's."""
    card = _write(_subject())

    table = next(each for each in _read_tables(card) if each[0][:2] == ["class", "pictures"])
    half, whole, thirds = "9.5 % to 90.5 %", "34.2 % to 100.0 %", "20.8 % to 93.9 %"
    assert table[1:] == [
        ["cat", "2", "100.0 %", "20.7 % to 100.0 %", "50.0 %", half, "66.7 %"],
        ["dog", "2", "100.0 %", whole, "100.0 %", whole, "100.0 %"],
        ["owl", "2", "66.7 %", thirds, "100.0 %", whole, "80.0 %"],
    ]
    assert _find_row(card, "accuracy")[1] == "83.3 % (95 % interval 43.6 to 97.0 %)"


def test_class_that_is_never_answered_has_no_precision() -> None:
    """A share of nothing is a dash, and the mean F1 is that of the others."""
    subject = _subject(logits=np.tile(np.array([3, 2, 1], np.float32), (6, 1)))

    card = _write(subject)

    owl = [row for table in _read_tables(card) for row in table if row[0] == "owl"][1]
    assert owl == ["owl", "2", "-", "-", "0.0 %", "0.0 % to 65.8 %", "0.0 %"]


def test_what_the_run_does_not_know_is_unknown() -> None:
    """An empty run.json gives a card with fewer facts, and no invented ones."""
    card = _write(_subject(temperature=None))

    for name in ("base weights", "their licence", "Keras backend", "versions", "machine", "split"):
        assert _find_row(card, name) == [name, "unknown"]
    assert _find_row(card, "best epoch")[1] == "unknown of unknown"
    assert _find_row(card, "temperature")[1] == "left out of the files"
    assert "their licence, and whether those who are seen agreed: unknown" in card


def test_card_tells_of_the_training() -> None:
    """Recipe, base weights and versions as in run.json; no path stands in it."""
    info = {
        "config": {"epochs": 7, "data": "/secret/data", "weights": "/secret/mine.keras"},
        "weights": {"name": "mine|.keras", "licence": "CC-BY 4.0", "sha256": "12" * 32},
        "best_epoch": 5,
        "epochs": 7,
        "versions": {"keras": "3.15.1", "jax": "0.10.2"},
        "trainable": {"layers": ["a", "b"], "parameters": 422_410},
    }

    card = _write(_subject(info=info))

    assert _find_row(card, "epochs") == ["epochs", "7"]
    assert _find_row(card, "base weights")[1] == "mine|.keras"
    assert _find_row(card, "their licence")[1] == "CC-BY 4.0"
    assert _find_row(card, "best epoch")[1] == "5 of 7"
    assert _find_row(card, "versions")[1] == "jax 0.10.2, keras 3.15.1"
    assert _find_row(card, "their weights")[1] == "422410"
    assert "secret" not in card
    assert "somebody" not in card


def test_card_tells_what_was_left_out() -> None:
    """By reason and number; files are not named."""
    left_out = [("a.gif", "truncated"), ("b.gif", "truncated"), ("c.txt", "other-file")]
    manifest = _manifest(
        ("cat", "dog", "owl"),
        left_out=tuple(LeftOut(path=path, code=code, reason="") for path, code in left_out),
        near_duplicates={"pairs": 3, "across_splits": 2},
        split_rule={"rule": "threshold", "val_fraction": 0.2},
    )

    card = _write(_subject(manifest=manifest))

    assert _find_row(card, "files left out")[1] == "1 other-file, 2 truncated"
    assert _find_row(card, "split")[1] == "rule threshold, val_fraction 0.2"
    assert "Near duplicates in two splits, 2 pairs" in card
    assert "a.gif" not in card


def test_limits_are_those_of_the_data() -> None:
    """Few pictures, no test split, and what the validation pictures chose."""
    manifest = _manifest(("cat", "dog", "owl"))
    tested = dataclasses.replace(
        manifest,
        entries=Entries([*manifest.entries, *(_entry(90 + n, 0, "test") for n in range(2))]),
    )

    without, with_test = _write(_subject()), _write(_subject(manifest=tested), passed=(True, False))

    assert "There is no test split" in without
    assert "the temperature and the 8-bit recipe" in without
    assert "Only 6 validation pictures" in without
    assert "fewer than 5 validation pictures: 3 of 3" in without
    assert "2 test pictures had no part in that" in with_test
    assert "8-bit recipe" not in with_test


def test_file_that_failed_is_named_as_not_published() -> None:
    """It has no row and no result."""
    card = _write(_subject(), passed=(False, True))

    assert "did not pass: onnx.\n" in card
    assert "mnv2tl predict model-int8.onnx" in card
    assert "model.onnx" not in card
    assert "Not published" not in _write(_subject())


def test_small_figures_are_numbers() -> None:
    """YAML 1.1 takes 5e-05 for a text."""
    logits = np.zeros((20_000, 3), np.float32)
    logits[:, 1] = 1
    entries = Entries([_entry(0, 1, "val"), *(_entry(n, 0, "val") for n in range(1, 20_000))])
    manifest = dataclasses.replace(_manifest(("cat", "dog", "owl")), entries=entries)

    head = _read_head(_write(_subject(manifest=manifest, logits=logits)))

    values = [each["value"] for each in head["model-index"][0]["results"][0]["metrics"]]
    assert all(isinstance(value, float) for value in values)


def test_export_writes_a_card_of_the_run_and_seals_it(trained_run: Run, tmp_path: Path) -> None:
    """Figures as in run.json and parity.json; bundle.json has the hash of the card."""
    pytest.importorskip("onnx")
    from mnv2tl_export.export import export_run

    out = tmp_path / "bundle"

    export_run(trained_run, out, formats=("onnx",))

    card = (out / "MODEL_CARD.md").read_text("utf-8")
    seal = json.loads((out / "bundle.json").read_bytes())
    assert seal["files"]["MODEL_CARD.md"]["sha256"] == store.sha256_file(out / "MODEL_CARD.md")
    info = trained_run.info
    (result,) = _read_head(card)["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(info["val_accuracy"], abs=5e-5)
    assert result["dataset"]["revision"] == trained_run.manifest.sha256
    (parity,) = json.loads((out / "parity.json").read_bytes())
    assert result["metrics"][2]["value"] == pytest.approx(parity["val_accuracy"], abs=5e-5)
    _check_classes(card, info)
    # Of Keras on the pictures, where run.json has it of features in float16; and four digits of it.
    ece = float(_find_row(card, "expected calibration error, with the temperature")[1])
    assert ece == pytest.approx(info["ece"]["after"], abs=1e-4 + 5e-5)
    assert seal["artifacts"][0]["sha256"] in card
    counts = {split: len(trained_run.manifest.of_split(split)) for split in SPLITS}
    assert _find_row(card, "pictures")[1] == ", ".join(f"{n} {name}" for name, n in counts.items())
    assert str(trained_run.manifest.root.parent) not in card
    assert re.findall(r"@@|<!--", card) == []


def _check_classes(card: str, info: Mapping[str, Any]) -> None:
    table = next(each for each in _read_tables(card) if each[0][:2] == ["class", "pictures"])
    for row, expected in zip(table[1:], info["per_class"], strict=True):
        assert row[:2] == [expected["class_name"], str(expected["support"])]
        assert row[4] == f"{100 * expected['recall']:.1f} %"
