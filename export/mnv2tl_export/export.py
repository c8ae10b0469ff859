"""From a run to a bundle: write each artifact, send it through the gate, seal and publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl import images, store
from mnv2tl.backend import list_versions
from mnv2tl.checkpoint import Run
from mnv2tl.errors import DataError
from mnv2tl.evaluate import open_model
from mnv2tl.manifest import Manifest
from mnv2tl.metrics import softmax
from mnv2tl.split import SPLITS
from mnv2tl_export import golden
from mnv2tl_export.bundle import new_bundle, seal
from mnv2tl_export.defaults import FORMATS
from mnv2tl_export.gate import Ask, Pictures, measure
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_candidate import open_candidate
from mnv2tl_export.onnx_model import write_model
from mnv2tl_export.parity import Parity, judge

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A finished run, read and opened in Keras."""

    run: Run
    """Where it comes from."""
    arrays: Arrays
    """All weights of its best epoch."""
    manifest: Manifest
    """Its images."""
    reference: Ask
    """Keras: from pixels (n, px, px, 3) to logits (n, classes)."""
    temperature: float | None
    """What exported graphs divide logits by; None to leave it out."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of the training."""
        config: Mapping[str, Any] = self.run.info["config"]
        return config

    def expect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the probabilities that an artifact must give, shape (n, classes)."""
        return softmax(self.reference(pixels), temperature=self.temperature or 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an export gave."""

    bundle: Path
    """The published folder."""
    artifacts: tuple[Mapping[str, Any], ...]
    """`format`, `path`, `bytes`, `sha256`, `max_abs_diff`, `top1_agreement`, `val_accuracy`,
    `passed` of each; those that failed have no file."""
    parities: tuple[Parity, ...]
    """What the gate found, in the same order."""


def export_run(
    run: Run,
    out: Path,
    *,
    data: Path | None = None,
    formats: Sequence[str] = FORMATS,
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
        formats: Of `FORMATS`.
        with_temperature: Divide logits by the run's temperature in the graph.
        keep_passing: Publish the artifacts that pass, though others fail.
        force: Replace a bundle that is there.
        show: Called with what the gate found about each artifact, passed or not.

    Raises:
        ValueError: A format is not one of `FORMATS`, or there is none.
        ExistsError: `out` holds something (E504).
        DataError: There is no validation image (E301), or one is missing or has changed (E309).
        ArtifactError: The run is refused.
        ResultError: An artifact fails the gate; nothing is published (E601).
    """
    if not formats or not set(formats) <= set(FORMATS):
        raise ValueError(f"formats must be of {FORMATS}, got {tuple(formats)}")
    with new_bundle(out, force=force) as folder:
        source = open_source(run, with_temperature=with_temperature)
        pictures = _validation_images(source, data)
        artifacts, parities = [], []
        for name in dict.fromkeys(formats):
            path = _WRITERS[name](source, folder)
            parity = _send_through_gate(source, path, pictures, name)
            show(parity)
            parities.append(parity)
            artifacts.append(_describe_artifact(path, parity))
            if not parity.passed:
                path.unlink()
        _check_passed(parities, keep_passing=keep_passing)
        store.write_json(folder / "parity.json", [parity.to_json() for parity in parities])
        store.write_json(folder / "split.json", _describe_split(source.manifest))
        seal(folder, _describe_source(source) | {"artifacts": artifacts})
    return Result(bundle=out, artifacts=tuple(artifacts), parities=tuple(parities))


def open_source(run: Run, *, with_temperature: bool = True) -> Source:
    """Read a run's best checkpoint and open it in Keras, on the backend that Keras was given."""
    arrays = run.read_arrays()
    config = run.info["config"]
    reference = open_model(
        arrays,
        alpha=config["alpha"],
        image_px=config["image_px"],
        scaling=config["scaling"],
        classes=len(run.class_names),
    )
    return Source(
        run=run,
        arrays=arrays,
        manifest=run.manifest,
        reference=reference,
        temperature=float(run.info["temperature"]) if with_temperature else None,
    )


def write_onnx(source: Source) -> bytes:
    """Return the ONNX file of a run; equal for equal runs and versions."""
    return write_model(
        source.arrays,
        alpha=source.config["alpha"],
        image_px=source.config["image_px"],
        scaling=source.config["scaling"],
        temperature=source.temperature,
        metadata=make_metadata(source).to_texts(),
    )


def make_metadata(source: Source) -> Metadata:
    """Return what travels in every artifact of a run."""
    info, config = source.run.info, source.config
    picture = images.resize(golden.draw_picture(), config["image_px"])
    return Metadata(
        class_names=source.run.class_names,
        image_px=config["image_px"],
        preprocessing=images.PREPROCESSING | {"scaling": config["scaling"]},
        temperature=source.temperature,
        run=_describe_source(source),
        base_weights=info["weights"],
        val_accuracy={
            "accuracy": info["val_accuracy"],
            "interval": info["val_accuracy_interval"],
            "images": info["val_images"],
        },
        versions=list_versions(),
        selftest=golden.describe(source.expect(picture[np.newaxis])[0].tolist()),
    )


def _write_onnx_file(source: Source, folder: Path) -> Path:
    path = folder / "model.onnx"
    store.write_bytes(path, write_onnx(source))
    return path


_WRITERS: Mapping[str, Callable[[Source, Path], Path]] = {"onnx": _write_onnx_file}


def _send_through_gate(source: Source, path: Path, pictures: Pictures, name: str) -> Parity:
    candidate = open_candidate(path.read_bytes(), format_name=name)
    temperature = source.temperature or 1.0
    measured = measure(candidate, source.reference, pictures, temperature=temperature)
    return judge(measured, format_name=name)


def _check_passed(parities: Sequence[Parity], *, keep_passing: bool) -> None:
    failed = [parity for parity in parities if not parity.passed]
    if failed and (not keep_passing or len(failed) == len(parities)):
        failed[0].raise_if_failed()


def _validation_images(source: Source, data: Path | None) -> Pictures:
    root = data or source.manifest.root
    entries = source.manifest.of_split("val")
    if not entries:
        raise DataError("E301", "the run has no validation image to compare on", path=root)
    return Pictures(
        entries=entries,
        root=root,
        image_px=source.config["image_px"],
        max_pixels=source.config["scan"]["max_pixels"],
    )


def _describe_artifact(path: Path, parity: Parity) -> dict[str, Any]:
    keys = ("max_abs_diff", "top1_agreement", "val_accuracy")
    return {
        "format": parity.format,
        "path": path.name,
        "bytes": path.stat().st_size,
        "sha256": store.sha256_file(path),
        **{key: parity.figures[key] for key in keys},
        "passed": parity.passed,
    }


def _describe_source(source: Source) -> dict[str, Any]:
    return {
        "run_sha256": store.sha256_file(source.run.folder / "run.json"),
        "checkpoint_sha256": source.run.info["files"]["best.keras"],
        "manifest_sha256": source.manifest.sha256,
        "backend": source.run.info["backend"],
        "split": source.manifest.split_rule,
    }


def _describe_split(manifest: Manifest) -> dict[str, Any]:
    """Return split -> SHA-256 and label of each image; file names are not for those who deploy."""
    splits: dict[str, list[tuple[str, int]]] = {
        name: [(entry.sha256, entry.label) for entry in manifest.of_split(name)] for name in SPLITS
    }
    return {"schema": 1, "class_names": manifest.class_names, **splits}
