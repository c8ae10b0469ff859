"""What a benchmark times besides a bundle: Keras, and the other road to ONNX.

It needs the packages of the training; `benchmark` alone does without.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from mnv2tl.backend import BACKENDS
from mnv2tl.checkpoint import Run, load_run
from mnv2tl_export import onnx_model, tf2onnx_model
from mnv2tl_export.benchmark import Subject
from mnv2tl_export.onnx_file import read_onnx


def list_more(
    run: Path, subjects: Sequence[Subject], *, folder: Path
) -> tuple[list[Subject], list[str]]:
    """Return what else can be timed here, and a line for each thing that cannot.

    Args:
        run: The run that the bundle was exported from.
        subjects: Those of the bundle.
        folder: Where an ONNX file is written.

    Raises:
        ArtifactError: The run is refused.
    """
    more, left_out = [], []
    onnx = [subject for subject in subjects if subject.format == "onnx"]
    if onnx and (onnx[0].via == "tf2onnx" or _is_installed("tf2onnx")):
        more.append(_write_other_road(load_run(run), onnx[0], folder))
    elif onnx:
        left_out.append("onnx via tf2onnx: tf2onnx is not installed")
    for name in BACKENDS:
        if _is_installed(name):
            more.append(_make_keras(run, name))
        else:
            left_out.append(f"keras on {name}: {name} is not installed")
    return more, left_out


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _make_keras(run: Path, backend: str) -> Subject:
    return Subject(
        runtime=f"keras-{backend}",
        format="keras",
        via=backend,
        kind="keras",
        path=run,
        env={"KERAS_BACKEND": backend},
    )


def _write_other_road(run: Run, subject: Subject, folder: Path) -> Subject:
    metadata = read_onnx(subject.path).metadata
    via = "native" if subject.via == "tf2onnx" else "tf2onnx"
    writer = onnx_model if via == "native" else tf2onnx_model
    content = writer.write_model(
        run.read_arrays(),
        **{key: run.info["config"][key] for key in ("alpha", "image_px", "scaling")},
        temperature=metadata.temperature,
        metadata=metadata.to_texts(),
    )
    path = folder / "model.onnx"
    path.write_bytes(content)
    return dataclasses.replace(subject, via=via, path=path)
