"""Hold finished runs against each other: their figures, and their answers on the same images.

Every run is compared with the first one. The answers are computed anew from the image files, as
for the report, only for those validation images that both runs have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mnv2tl.checkpoint import Run
from mnv2tl.data.entries import Entry
from mnv2tl.data.manifest import Manifest
from mnv2tl.errors import ArtifactError, DataError, show
from mnv2tl.paired import difference_interval, holm, mcnemar
from mnv2tl.report.answers import Network, predict
from mnv2tl.report.differences import find_differences
from mnv2tl.report.run_info import check_info
from mnv2tl.text import name_of

SURE_BELOW = 0.05
"""Corrected p-value below which a difference is taken as shown."""

Images = Mapping[str, tuple[Entry, str]]
"""SHA-256 -> image and name of its true class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a run says of itself."""

    number: int
    """Place among the runs, from 1."""
    name: str
    """Name of its folder."""
    run: str
    """Its folder, as it was given."""
    images: int
    """Validation images that its accuracy and loss are of."""
    accuracy: float
    """Share of them that are right, 0 to 1."""
    accuracy_interval: tuple[float, float]
    """95 % interval of it."""
    log_loss: float
    """In nats, after the temperature."""
    ece: float
    """Expected calibration error after the temperature, 0 to 1."""
    best_epoch: int
    """Counted from 1."""
    epochs: int
    """How many were trained."""
    seconds: float
    """Of the whole training."""
    trained_parameters: int
    """Weights that were trained."""
    backend: str
    """Of Keras."""
    manifest_sha256: str
    """Of its images and their split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """How the first run and another one answer the validation images that both have."""

    number: int
    """Of the other run, from 2."""
    shared: int
    """Images in both validation splits with the same class, files with equal bytes once."""
    lost: int
    """Those of them that cannot be read any more; all figures are of the others."""
    first_accuracy: float
    """Of the first run on them, 0 to 1."""
    accuracy: float
    """Of the other run on them."""
    only_first: int
    """Images that only the first run answers rightly."""
    only_other: int
    """Images that only the other run does."""
    difference: float
    """Accuracy of the other run less that of the first."""
    interval: tuple[float, float]
    """95 % interval of the difference, of this pair alone."""
    test: str
    """Form of McNemar's test: `exact binomial` or `chi-squared`."""
    p_value: float
    """Of this pair alone."""
    corrected_p_value: float
    """After Holm's correction over all pairs."""

    @property
    def verdict(self) -> str:
        """What follows from it, in one sentence."""
        if self.corrected_p_value >= SURE_BELOW:
            return f"No difference is shown between run {self.number} and run 1"
        return f"Run {self.number} is {'better' if self.difference > 0 else 'worse'} than run 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Several runs beside each other."""

    rows: tuple[Row, ...]
    """One for each run, in the order given."""
    differences: Mapping[str, tuple[str, ...]]
    """Setting or version -> its value in each run, where they are not all equal."""
    pairs: tuple[Pair, ...]
    """The first run with each other one; empty if the answers were not asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return the keys that `--json` prints."""
        return {
            "runs": [asdict(row) for row in self.rows],
            "differences": dict(self.differences),
            "pairs": [asdict(pair) | {"verdict": pair.verdict} for pair in self.pairs],
        }


def compare_runs(
    runs: Sequence[Run], *, data: Path | None = None, with_test: bool = True
) -> Comparison:
    """Hold runs against the first of them.

    Args:
        runs: Finished runs, at least two.
        data: Folder of the images of all of them, if it moved since the trainings.
        with_test: Whether answers on images are compared, or figures alone.

    Raises:
        ValueError: There are fewer than two runs.
        ArtifactError: A run is not finished (E403) or refused, or shares no validation image with
            the first one (E401).
        DataError: No image can be read (E309).
    """
    if len(runs) < 2:
        raise ValueError(f"compare takes two runs or more, got {len(runs)}")
    for run in runs:
        check_info(run)
    return Comparison(
        rows=tuple(_describe(run, number) for number, run in enumerate(runs, 1)),
        differences=find_differences([run.info for run in runs]),
        pairs=tuple(_test(runs, data)) if with_test else (),
    )


def _describe(run: Run, number: int) -> Row:
    info = run.info
    return Row(
        number=number,
        name=name_of(run.folder.resolve()),
        run=str(run.folder),
        images=info["self_check"]["images"],
        accuracy=info["val_accuracy"],
        accuracy_interval=tuple(info["val_accuracy_interval"]),
        log_loss=info["val_loss"],
        ece=info["ece"]["after"],
        best_epoch=info["best_epoch"],
        epochs=info["epochs"],
        seconds=info["seconds"]["total"],
        trained_parameters=info["trainable"]["parameters"],
        backend=info["backend"],
        manifest_sha256=str(info.get("manifest_sha256", "")),
    )


def _test(runs: Sequence[Run], data: Path | None) -> list[Pair]:
    """Return each later run held against the first."""
    manifests = [run.manifest for run in runs]
    splits = [_index_val(manifest) for manifest in manifests]
    shared = [_find_shared(splits[0], split) for split in splits]
    for run, hashes in zip(runs[1:], shared[1:], strict=True):
        if not hashes:
            message = f"has no validation image in common with {show(runs[0].folder)}"
            fix = "compare runs on the same images and split, or leave the test out by --no-test"
            raise ArtifactError("E401", message, path=run.folder, fix=fix)
    shared[0] = frozenset().union(*shared[1:])
    answers = [
        _ask(run, [split[each][0] for each in sorted(hashes)], data or manifest.root)
        for run, split, hashes, manifest in zip(runs, splits, shared, manifests, strict=True)
    ]
    truth = {digest: name for digest, (_, name) in splits[0].items()}
    pairs = [
        _compare(answers[0], other, truth, number=number, shared=len(hashes))
        for number, (other, hashes) in enumerate(zip(answers[1:], shared[1:], strict=True), 2)
    ]
    corrected = holm([pair["p_value"] for pair in pairs])
    return [Pair(**pair, corrected_p_value=p) for pair, p in zip(pairs, corrected, strict=True)]


def _index_val(manifest: Manifest) -> Images:
    entries = manifest.of_split("val")
    return {entry.sha256: (entry, manifest.class_names[entry.label]) for entry in entries}


def _find_shared(first: Images, other: Images) -> frozenset[str]:
    """Return the images that both have with the same class."""
    return frozenset(each for each in first.keys() & other if first[each][1] == other[each][1])


def _ask(run: Run, entries: Sequence[Entry], root: Path) -> dict[str, str]:
    config = run.info["config"]
    return predict(
        Network.open(run),
        entries,
        root,
        image_px=config["image_px"],
        max_pixels=config["scan"]["max_pixels"],
    )


def _compare(
    first: Mapping[str, str],
    other: Mapping[str, str],
    truth: Mapping[str, str],
    *,
    number: int,
    shared: int,
) -> dict[str, Any]:
    """Return the fields of a pair but for the corrected p-value.

    Raises:
        DataError: No image is left that both answered (E309).
    """
    both = first.keys() & other
    if not both:
        message = f"runs 1 and {number} have no validation image in common that can be read"
        raise DataError("E309", message, fix="give the folder by --data")
    right = [(first[each] == truth[each], other[each] == truth[each]) for each in both]
    only_first = sum(is_first and not is_other for is_first, is_other in right)
    only_other = sum(is_other and not is_first for is_first, is_other in right)
    count = len(right)
    p_value, test = mcnemar(only_first, only_other)
    return {
        "number": number,
        "shared": shared,
        "lost": shared - count,
        "first_accuracy": sum(is_first for is_first, _ in right) / count,
        "accuracy": sum(is_other for _, is_other in right) / count,
        "only_first": only_first,
        "only_other": only_other,
        "difference": (only_other - only_first) / count,
        "interval": difference_interval(only_first, only_other, count),
        "test": test,
        "p_value": p_value,
    }
