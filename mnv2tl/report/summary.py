"""The report's first part: what was trained on what, how good it is, and what to mind."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnv2tl.checkpoint import Run
from mnv2tl.data.manifest import Manifest
from mnv2tl.metrics import top1_accuracy, wilson_interval
from mnv2tl.report.answers import Answers
from mnv2tl.report.differences import flatten_settings, say
from mnv2tl.text import count_of, name_of, percent

_FEW = 100
_FEW_IN_CLASS = 5
# A picture that sits on the border between two classes may fall either way on another runtime.
_TOLERANCE = 0.005

Fact = tuple[str, str]
"""A name, and what is said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The head of the report."""

    tiles: tuple[tuple[str, str, str], ...]
    """Name, figure, and what it means."""
    notes: tuple[str, ...]
    """What lessens the trust in the figures; one sentence each."""
    data: tuple[Fact, ...]
    """Of the data set."""
    training: tuple[Fact, ...]
    """How it was trained, where and when."""
    settings: tuple[Fact, ...]
    """Every setting of the run."""
    versions: tuple[Fact, ...]
    """Package and version."""
    command: str
    """What trains the same again."""


def summarise(run: Run, manifest: Manifest, answers: Mapping[str, Answers]) -> Summary:
    """Return the head of the report.

    Args:
        run: A finished run.
        manifest: Its images.
        answers: Of the split `val`, and of `test` where there is one.
    """
    info = run.info
    return Summary(
        tiles=_make_tiles(info, answers),
        notes=tuple(_make_notes(info, manifest, answers)),
        data=_describe_data(manifest),
        training=_describe_training(info),
        settings=tuple(flatten_settings(info["config"]).items()),
        versions=tuple(info["versions"].items()),
        command=_make_command(run, manifest),
    )


def _make_tiles(
    info: Mapping[str, Any], answers: Mapping[str, Answers]
) -> tuple[tuple[str, str, str], ...]:
    tiles = []
    for split, word in (("val", "validation"), ("test", "test")):
        if split in answers:
            shares, labels = answers[split].probabilities, answers[split].labels
            accuracy = top1_accuracy(shares, labels)
            low, high = wilson_interval(round(accuracy * len(labels)), len(labels))
            meaning = f"95 % interval {percent(low)} to {percent(high)}, {len(labels)} pictures"
            tiles.append((f"accuracy, {word}", percent(accuracy), meaning))
    tiles.append(
        ("best epoch", f"{info['best_epoch']} of {info['epochs']}", "by the validation split")
    )
    temperature = info["temperature"]
    meaning = "fitted on the validation split; it divides the logits"
    if temperature == 1.0:
        meaning = "not calibrated: no validation picture is wrong, so none tells how sure to be"
    tiles.append(("temperature", f"{temperature:.3f}", meaning))
    seconds = info["seconds"]["total"]
    tiles.append(("time", f"{seconds:.0f} s", "the whole training, on the machine below"))
    return tuple(tiles)


def _make_notes(
    info: Mapping[str, Any], manifest: Manifest, answers: Mapping[str, Answers]
) -> list[str]:
    val = answers["val"]
    count = len(val.entries)
    notes = []
    if count < _FEW:
        words = count_of(count, "validation picture")
        notes.append(f"Only {words}: the intervals are wide.")
    few = sum(each["val"] < _FEW_IN_CLASS for each in manifest.counts())
    if few:
        notes.append(
            f"Classes with fewer than {_FEW_IN_CLASS} validation pictures: {few} of "
            f"{len(manifest.class_names)}. Their figures say little."
        )
    across = manifest.near_duplicates.get("across_splits", 0)
    if across:
        notes.append(
            f"Near duplicates that lie in two splits: {count_of(across, 'pair')}. "
            "The accuracy may flatter."
        )
    for split, each in answers.items():
        if each.lost:
            path, reason = each.lost[0]
            notes.append(
                f"Missing from the figures, since it could not be read any more: "
                f"{count_of(len(each.lost), 'picture')} of the split {split}; the first: "
                f"{path}: {reason}."
            )
    accuracy = top1_accuracy(val.probabilities, val.labels)
    if not val.lost and abs(accuracy - info["val_accuracy"]) > _TOLERANCE:
        notes.append(
            f"The training itself found {percent(info['val_accuracy'])} on "
            f"{info['self_check']['images']} validation pictures."
        )
    return notes + [f"The scan said: {warning}" for warning in manifest.warnings]


def _describe_data(manifest: Manifest) -> tuple[Fact, ...]:
    rule = manifest.split_rule
    counts = [(split, len(manifest.of_split(split))) for split in ("train", "val", "test")]
    return (
        ("folder", name_of(manifest.root)),
        ("classes", str(len(manifest.class_names))),
        ("pictures", ", ".join(f"{count} {split}" for split, count in counts if count)),
        ("left out", str(len(manifest.left_out))),
        ("split", ", ".join(f"{key} {say(value)}" for key, value in rule.items() if value)),
        ("SHA-256 of the manifest", manifest.sha256),
    )


def _describe_training(info: Mapping[str, Any]) -> tuple[Fact, ...]:
    config, weights, trainable = info["config"], info["weights"], info["trainable"]
    git, machine = info.get("git"), info.get("machine", {})
    facts = [
        ("network", f"MobileNetV2, alpha {config['alpha']}, {config['image_px']} pixels"),
        ("base weights", f"{weights['name']} ({weights['licence']}), {weights['sha256'][:12]}"),
        (
            "trained layers",
            f"{len(trainable['layers'])} with {trainable['parameters']:,} weights: "
            + ", ".join(trainable["layers"]),
        ),
        ("backend", f"Keras on {info['backend']}; frozen layers by {info['trunk_runtime']}"),
        ("machine", ", ".join(str(value) for value in machine.values())),
        ("begun", info["created"]),
        (
            "seconds",
            ", ".join(f"{name} {value:.1f}" for name, value in info["seconds"].items()),
        ),
        ("SHA-256 of best.keras", info["files"]["best.keras"]),
    ]
    if git:
        clean = "clean" if git["clean"] else "with changes"
        facts.append(("commit around the run", f"{git['commit'][:12]}, {clean}"))
    return tuple(facts)


def _make_command(run: Run, manifest: Manifest) -> str:
    """Return the command line that trains the same again, with folders by their names only."""
    folder = name_of(run.folder.resolve())
    words = ("mnv2tl", "train", name_of(manifest.root), "--out", f"{folder}-again")
    options = ("--config", str(Path(folder, "run.json")), "--backend", run.info["backend"])
    return shlex.join((*words, *options))
