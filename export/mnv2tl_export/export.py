"""From a run to a bundle: write each artifact, send it through the gate, seal and publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnv2tl import store
from mnv2tl.backend import list_versions
from mnv2tl.checkpoint import Run
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.split import SPLITS
from mnv2tl.errors import ArtifactError, ResultError
from mnv2tl.progress import say
from mnv2tl_export.artifacts import Artifact, Workshop
from mnv2tl_export.bundle import new_bundle, seal
from mnv2tl_export.defaults import (
    ACCURACY_BUDGET,
    DERIVED,
    FILES,
    FORMATS,
    ROADS,
    default_formats,
)
from mnv2tl_export.deploy_readme import write_readme
from mnv2tl_export.gate import ask_reference, measure
from mnv2tl_export.model_card import Subject, write_model_card
from mnv2tl_export.parity import Floats, Parity, judge, limits_of
from mnv2tl_export.source import Source, open_source

# What is told of an artifact that could not be made at all.
_NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("via", "path", "bytes", "sha256")),
    **dict.fromkeys(("max_abs_diff", "top1_agreement", "val_accuracy")),
    "passed": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an export gave."""

    bundle: Path
    """The published folder."""
    artifacts: tuple[Mapping[str, Any], ...]
    """`format`, `via`, `path`, `bytes`, `sha256`, `max_abs_diff`, `top1_agreement`,
    `val_accuracy`, `passed` of each; those that failed are not in the folder."""
    parities: tuple[Parity, ...]
    """What the gate found about each that could be made, in the same order."""


def export_run(
    run: Run,
    out: Path,
    *,
    data: Path | None = None,
    formats: Sequence[str] | None = None,
    via: str = "native",
    accuracy_budget: float = ACCURACY_BUDGET,
    with_temperature: bool = True,
    keep_passing: bool = False,
    force: bool = False,
    show: Callable[[Parity], object] = lambda parity: None,
) -> Result:
    """Write, judge and publish the artifacts of a run.

    Args:
        run: A finished run.
        out: Folder of the bundle.
        data: Folder of the images, if it moved since the training.
        formats: Of `FORMATS`; None for onnx, and savedmodel where TensorFlow is installed.
        via: Of `ROADS`: what writes the graph of the ONNX files.
        accuracy_budget: Validation accuracy that fp16 and int8 may lose, as a share.
        with_temperature: Divide logits by the run's temperature in the graph.
        keep_passing: Publish the artifacts that pass, though others fail.
        force: Replace a bundle that is there.
        show: Called with what the gate found about each artifact, passed or not.

    Raises:
        ValueError: A format or the road is not known, there is no format, or the budget is not
            a share.
        ExistsError: `out` holds something (E504).
        DataError: There is no validation image (E301), or one is missing or has changed (E309).
        ArtifactError: The run is refused.
        MachineError: A format needs a package that is not installed (E508).
        ResultError: An artifact fails the gate; nothing is published (E601).
    """
    names = tuple(dict.fromkeys(default_formats() if formats is None else formats))
    if not names or not set(names) <= set(FORMATS):
        raise ValueError(f"formats must be of {FORMATS}, got {names}")
    if via not in ROADS:
        raise ValueError(f"via must be one of {ROADS}, got {via!r}")
    if not 0 <= accuracy_budget <= 1:
        raise ValueError(f"accuracy_budget must be from 0 to 1, got {accuracy_budget}")
    with new_bundle(out, force=force) as folder:
        source = open_source(run, data=data, with_temperature=with_temperature)
        pictures = source.pictures("val")
        expected = ask_reference(source.reference, pictures)
        workshop = Workshop(source, folder, via=via, accuracy_budget=accuracy_budget)
        artifacts: list[dict[str, Any]] = []
        parities: list[Parity] = []
        is_sound = True
        for name in _put_source_first(names):
            limits = limits_of(name, accuracy_budget=accuracy_budget)
            try:
                if name in DERIVED and not is_sound:
                    raise ResultError("E601", "it is made of the float32 file, which failed")
                with workshop.make(name) as artifact:
                    measured = measure(
                        artifact.candidate,
                        expected,
                        pictures,
                        temperature=source.temperature or 1.0,
                    )
            except (ArtifactError, ResultError) as error:
                _remove(folder / FILES[name])
                if not keep_passing:
                    message = f"{name}: {error.message}"
                    raise ResultError("E601", message, path=error.path, fix=error.fix) from error
                say(f"warning: {name} is not published: {error.message}")
                artifacts.append({**_NOTHING, "format": name})
                continue
            parity = judge(measured, format_name=name, limits=limits)
            is_sound = is_sound and (name != "onnx" or parity.passed)
            show(parity)
            if name not in names:  # the float32 file, which others are made of
                parity.raise_if_failed()
                _remove(artifact.path)
                continue
            parities.append(parity)
            artifacts.append(_describe_artifact(artifact, parity))
            if not parity.passed:
                _remove(artifact.path)
        _check_passed(parities, keep_passing=keep_passing)
        made = [artifact for artifact in artifacts if artifact["path"]]
        _write_papers(folder, source, made, parities)
        _write_card(folder, source, expected, made, parities)
        info = {"class_names": run.class_names, "image_px": source.config["image_px"]}
        seal(folder, source.describe() | info | {"artifacts": artifacts})
    return Result(bundle=out, artifacts=tuple(artifacts), parities=tuple(parities))


def _put_source_first(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the formats with the float32 file before those that are made of it."""
    if not DERIVED.isdisjoint(names):
        return ("onnx", *(name for name in names if name != "onnx"))
    return names


def _check_passed(parities: Sequence[Parity], *, keep_passing: bool) -> None:
    failed = [parity for parity in parities if not parity.passed]
    if failed and (not keep_passing or len(failed) == len(parities)):
        failed[0].raise_if_failed()
    if not parities:
        raise ResultError("E601", "no artifact could be made")


def _describe_artifact(artifact: Artifact, parity: Parity) -> dict[str, Any]:
    keys = ("max_abs_diff", "top1_agreement", "val_accuracy")
    return {
        "format": artifact.format,
        "via": artifact.via,
        "path": artifact.path.name,
        "bytes": sum(file.stat().st_size for file in _list_files(artifact.path)),
        "sha256": _hash(artifact.path),
        **{key: parity.figures[key] for key in keys},
        "passed": parity.passed,
        **artifact.notes,
    }


def _list_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's list of names and hashes."""
    if path.is_file():
        return store.sha256_file(path)
    return store.sha256_json(
        {file.relative_to(path).as_posix(): store.sha256_file(file) for file in _list_files(path)}
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_papers(
    folder: Path,
    source: Source,
    artifacts: Sequence[Mapping[str, Any]],
    parities: Sequence[Parity],
) -> None:
    """Write what lies beside the artifacts: the gate's figures, the split, how to deploy."""
    store.write_json(folder / "parity.json", [parity.to_json() for parity in parities])
    store.write_json(folder / "split.json", _describe_split(source.manifest))
    metadata = source.make_metadata(format_name="onnx", via="native")
    readme = write_readme(metadata, artifacts, parities)
    store.write_bytes(folder / "README.md", readme.encode("utf-8"))


def _write_card(
    folder: Path,
    source: Source,
    logits: Floats,
    artifacts: Sequence[Mapping[str, Any]],
    parities: Sequence[Parity],
) -> None:
    """Write what the model is for, of what it was made and how good it is."""
    subject = Subject(
        info=source.run.info,
        manifest=source.manifest,
        logits=logits,
        temperature=source.temperature,
        versions=list_versions(),
    )
    card = write_model_card(subject, artifacts, parities)
    store.write_bytes(folder / "MODEL_CARD.md", card.encode("utf-8"))


def _describe_split(manifest: Manifest) -> dict[str, Any]:
    """Return split -> SHA-256 and label of each image; file names are not for those who deploy."""
    splits: dict[str, list[tuple[str, int]]] = {
        name: [(entry.sha256, entry.label) for entry in manifest.of_split(name)] for name in SPLITS
    }
    return {"schema": 1, "class_names": manifest.class_names, **splits}
