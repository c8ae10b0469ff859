"""Write a bundle's model card: what it is for, of what it was made, how good it is, its limits.

The text is `model_card.md` beside this module. Its head is YAML as the Hugging Face hub reads it
(https://github.com/huggingface/hub-docs/blob/main/modelcard.md).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data.manifest import Manifest
from mnv2tl.data.split import SPLITS
from mnv2tl.metrics import (
    expected_calibration_error,
    log_loss,
    per_class,
    softmax,
    top1_accuracy,
    wilson_interval,
)
from mnv2tl.text import count_of, name_of, percent, printable
from mnv2tl_export.markdown import escape_markdown, fill, make_row, show_share
from mnv2tl_export.parity import Floats, Parity

UNKNOWN = "unknown"
_FEW = 100
_FEW_IN_CLASS = 5
_DIGITS = 4
_PLAIN = re.compile(r"[\w.:+-][\w.:+, -]*", re.ASCII)
_RECIPE = (
    *("epochs", "batch_size", "learning_rate", "schedule", "trainable_layers", "batch_norm"),
    *("dropout", "label_smoothing", "class_weights", "scaling", "views", "best_by", "patience"),
    *("finetune_epochs", "finetune_layers", "finetune_learning_rate", "seed"),
)
"""Settings that are told; none of them is a path."""

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a card is about."""

    info: Mapping[str, Any]
    """Content of `run.json`."""
    manifest: Manifest
    """The images of the run."""
    logits: Floats
    """Answers of Keras on the validation images, in their order, shape (n, classes)."""
    temperature: float | None
    """What the exported graphs divide logits by; None if it was left out."""
    versions: Mapping[str, str]
    """Versions of what made the files."""

    @property
    def labels(self) -> Labels:
        """True classes of the validation images, shape (n,)."""
        return np.array([entry.label for entry in self.manifest.of_split("val")], np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probabilities as the exported files give them, shape (n, classes)."""
        return softmax(self.logits, temperature=self.temperature or 1.0)


def write_model_card(
    subject: Subject, artifacts: Sequence[Mapping[str, Any]], parities: Sequence[Parity]
) -> str:
    """Return the text of MODEL_CARD.md, equal for equal arguments.

    Args:
        subject: The run, and what it answers.
        artifacts: `format`, `path`, `bytes`, `sha256` and `passed` of each, as in bundle.json; at
            least one passed.
        parities: What the gate found, in the same order.
    """
    pairs = list(zip(artifacts, parities, strict=True))
    published = [pair for pair in pairs if pair[0]["passed"]]
    failed = [artifact["format"] for artifact, _ in pairs if not artifact["passed"]]
    manifest, weights = subject.manifest, subject.info.get("weights", {})
    names = [escape_markdown(name) for name in manifest.class_names]
    counts = zip(names, manifest.counts(), strict=True)
    values = {
        "front_matter": _make_front_matter(subject, published),
        "data_name": escape_markdown(name_of(manifest.root)),
        "classes": len(names),
        "images": f"{len(subject.labels):,}",
        "data_rows": _make_table(_describe_data(manifest)),
        "count_rows": "\n".join(
            make_row(name, *(f"{count[split]:,}" for split in SPLITS)) for name, count in counts
        ),
        "training_rows": _make_table(_describe_training(subject.info)),
        "setting_rows": _make_table(_describe_settings(subject.info.get("config", {}))),
        "export_versions": _list_versions(subject.versions),
        "metric_rows": _make_table(_describe_metrics(subject)),
        "class_rows": "\n".join(_describe_classes(subject, names)),
        "artifact_rows": "\n".join(_describe_artifact(*pair) for pair in published),
        "failed": ", ".join(failed),
        "limit_lines": "\n".join(f"- {each}" for each in _list_limits(subject, published)),
        "model": published[0][0]["path"],
        "weights_name": _say(weights.get("name")),
        "weights_licence": _say(weights.get("licence")),
    }
    return fill("model_card.md", parts={"failed": bool(failed)}, values=values)


def _make_front_matter(
    subject: Subject, published: Sequence[tuple[Mapping[str, Any], Parity]]
) -> str:
    """Return the YAML of the head."""
    data_name = printable(name_of(subject.manifest.root))
    formats = {artifact["format"] for artifact, _ in published}
    kinds = {"onnx": any(each.startswith("onnx") for each in formats)}
    kinds |= {"saved-model": "savedmodel" in formats}
    accuracy = top1_accuracy(subject.logits, subject.labels)
    metrics = [
        {"type": "accuracy", "value": accuracy, "name": "Accuracy, Keras"},
        {"type": "f1", "value": _macro_f1(subject), "name": "F1, mean over the classes, Keras"},
    ] + [
        {
            "type": "accuracy",
            "value": parity.figures["val_accuracy"],
            "name": f"Accuracy, {artifact['path']}",
        }
        for artifact, parity in published
    ]
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {
            # What `datasets` calls a folder of pictures, one sub-folder per class.
            "type": "imagefolder",
            "name": data_name,
            "split": "validation",
            "revision": subject.manifest.sha256,
        },
        # So rounded, no figure is written as 5e-05, which is a text in YAML 1.1.
        "metrics": [each | {"value": round(float(each["value"]), _DIGITS)} for each in metrics],
    }
    head = {
        "license": UNKNOWN,
        "library_name": "mnv2tl",
        "pipeline_tag": "image-classification",
        "tags": [
            "image-classification",
            "mobilenet-v2",
            *(k for k, is_in in kinds.items() if is_in),
        ],
        "metrics": ["accuracy", "f1"],
        "model-index": [{"name": f"mobilenet-v2 {data_name}", "results": [result]}],
    }
    return _to_yaml(head).lstrip()


def _to_yaml(value: Any, pad: str = "") -> str:
    """Return a value as YAML that stands behind its key; texts are JSON, which is YAML too.

    Texts must be printable: JSON's escape of a character above U+FFFF is two characters in YAML.
    """
    if isinstance(value, dict):
        rows = (f"\n{pad}{key}:{_to_yaml(each, pad + '  ')}" for key, each in value.items())
        return "".join(rows)
    if isinstance(value, list):
        return "".join(f"\n{pad}- {_to_yaml(each, pad + '  ').lstrip()}" for each in value)
    return f" {json.dumps(value, ensure_ascii=False, allow_nan=False)}"


def _macro_f1(subject: Subject) -> float:
    """Return the mean F1 of the classes that have a picture or an answer."""
    rows = per_class(subject.logits, subject.labels, subject.manifest.class_names)
    return float(np.mean([row["f1"] for row in rows if row["f1"] is not None]))


def _describe_data(manifest: Manifest) -> dict[str, str]:
    rule = manifest.split_rule
    near = manifest.near_duplicates
    reasons = Counter(each.code for each in manifest.left_out)
    codes = ", ".join(f"{count:,} {code}" for code, count in sorted(reasons.items()))
    totals = [f"{len(manifest.of_split(split)):,} {split}" for split in SPLITS]
    return {
        "folder": _say(name_of(manifest.root)),
        "classes": str(len(manifest.class_names)),
        "pictures": ", ".join(totals),
        "split": _list(f"{key} {value}" for key, value in rule.items() if value not in ([], None)),
        "files left out": _code(codes) if codes else "none",
        "groups of equal files": f"{len(manifest.duplicates):,}",
        "pairs of near duplicates": (
            f"{near['pairs']:,}, of these in two splits {near['across_splits']:,}"
            if near
            else "not looked for"
        ),
        "SHA-256 of the manifest": f"`{manifest.sha256}`",
    }


def _describe_training(info: Mapping[str, Any]) -> dict[str, str]:
    config, weights = info.get("config", {}), info.get("weights", {})
    trainable, seconds = info.get("trainable", {}), info.get("seconds", {}).get("total")
    layers, px = trainable.get("layers"), _say(config.get("image_px"))
    return {
        "network": f"MobileNetV2, alpha {_say(config.get('alpha'))}, {px} x {px} pixels",
        "base weights": _say(weights.get("name")),
        "their licence": _say(weights.get("licence")),
        "their SHA-256": _say(weights.get("sha256")),
        "layers that were trained": UNKNOWN if layers is None else f"{len(layers):,}",
        "their weights": _say(trainable.get("parameters")),
        "best epoch": f"{_say(info.get('best_epoch'))} of {_say(info.get('epochs'))}",
        "Keras backend": _say(info.get("backend")),
        "begun": _say(info.get("created")),
        "seconds": UNKNOWN if seconds is None else f"{seconds:.0f}",
        "machine": _list((info.get("machine") or {}).values()),
        "versions": _list_versions(info.get("versions") or {}),
    }


def _describe_settings(config: Mapping[str, Any]) -> dict[str, str]:
    augment = config.get("augment") or dict.fromkeys(("augment",))
    rows = {key: config.get(key) for key in _RECIPE} | dict(augment)
    return {_code(key): _say(value) for key, value in rows.items()}


def _describe_metrics(subject: Subject) -> dict[str, str]:
    labels, shares = subject.labels, subject.probabilities
    accuracy, count = top1_accuracy(shares, labels), len(labels)
    before = expected_calibration_error(softmax(subject.logits), labels)
    rows = {
        "accuracy": show_share(accuracy, wilson_interval(round(accuracy * count), count)),
        "F1, mean over the classes": percent(_macro_f1(subject)),
        "log loss": f"{log_loss(shares, labels):.4f}",
        "expected calibration error, without a temperature": f"{before:.4f}",
    }
    if subject.temperature is None:
        return rows | {"temperature": "left out of the files"}
    after = expected_calibration_error(shares, labels)
    return rows | {
        "expected calibration error, with the temperature": f"{after:.4f}",
        "temperature": f"{subject.temperature:.4g}, in the files",
    }


def _describe_classes(subject: Subject, names: Sequence[str]) -> list[str]:
    labels, predicted = subject.labels, subject.logits.argmax(axis=1)
    rows = per_class(subject.logits, labels, subject.manifest.class_names)
    called = np.bincount(predicted, minlength=len(names))
    hits = np.bincount(labels[predicted == labels], minlength=len(names))
    return [
        make_row(
            names[index],
            f"{row['support']:,}",
            percent(row["precision"]),
            _show_interval(int(hits[index]), int(called[index])),
            percent(row["recall"]),
            _show_interval(int(hits[index]), row["support"]),
            percent(row["f1"]),
        )
        for index, row in enumerate(rows)
    ]


def _describe_artifact(artifact: Mapping[str, Any], parity: Parity) -> str:
    figures = parity.figures
    return make_row(
        f"`{artifact['path']}`",
        artifact["format"],
        f"{artifact['bytes']:,}",
        show_share(figures["val_accuracy"], figures["val_accuracy_interval"]),
        percent(figures["top1_agreement"]),
        f"{figures['max_abs_diff']:.1g}",
        f"`{artifact['sha256']}`",
    )


def _list_limits(
    subject: Subject, published: Sequence[tuple[Mapping[str, Any], Parity]]
) -> list[str]:
    manifest = subject.manifest
    count, test = len(subject.labels), len(manifest.of_split("test"))
    few = sum(each["val"] < _FEW_IN_CLASS for each in manifest.counts())
    across = manifest.near_duplicates.get("across_splits", 0)
    chosen = "the best epoch and the temperature"
    if "onnx-int8" in {artifact["format"] for artifact, _ in published}:
        chosen = "the best epoch, the temperature and the 8-bit recipe"
    limits = [
        f"The validation pictures chose {chosen}, so the figures above flatter a little.",
        f"{count_of(test, 'test picture')} had no part in that, and no figure here is of them: "
        "`mnv2tl evaluate RUN --split test` measures it."
        if test
        else "There is no test split, so how good it is on pictures that chose nothing is unknown.",
    ]
    if count < _FEW:
        limits.append(f"Only {count_of(count, 'validation picture')}: the intervals are wide.")
    if few:
        limits.append(
            f"Classes with fewer than {_FEW_IN_CLASS} validation pictures: {few} of "
            f"{len(manifest.class_names)}. Their figures say little."
        )
    if across:
        limits.append(
            f"Near duplicates in two splits, {count_of(across, 'pair')}: the figures may flatter."
        )
    return limits


def _make_table(rows: Mapping[str, str]) -> str:
    return "\n".join(make_row(name, value) for name, value in rows.items())


def _show_interval(hits: int, total: int) -> str:
    if not total:
        return "-"
    low, high = wilson_interval(hits, total)
    return f"{percent(low)} to {percent(high)}"


def _list_versions(versions: Mapping[str, Any]) -> str:
    return _list(f"{name} {version}" for name, version in sorted(versions.items()))


def _list(words: Iterable[Any]) -> str:
    return _code(", ".join(map(str, words))) or UNKNOWN


def _say(value: Any) -> str:
    """Return a value of the run as Markdown; None is unknown."""
    if value is None:
        return UNKNOWN
    return escape_markdown(value) if isinstance(value, str) else _code(json.dumps(value))


def _code(text: str) -> str:
    """Return a text as code where that shows it as it is, for it is easier to read unescaped."""
    return f"`{text}`" if _PLAIN.fullmatch(text) else escape_markdown(text)
