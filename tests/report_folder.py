"""A finished run whose classes and files have names that no page should trust."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from mnv2tl import store
from mnv2tl.checkpoint import Run, load_run
from mnv2tl.data.entries import Entries
from mnv2tl.data.manifest import LeftOut, Manifest

CLASS_NAMES = (
    "<img src=x onerror=alert(1)>",
    "disc\u202egnp.exe\nsecond line",
    "$x^2$ & 'quoted' \"class\" {{ 7 * 7 }} שלום",
)
FILE_NAMES = (
    "<script>alert(2)<.png",
    '" onload="alert(3)" x=".png',
    "new\nline.png",
    "\u202egnp.png",
    "\udcff\udcfe.png",
    "]]><style>.png",
)
"""One is given to the first images of each class, in turn."""


def rename(run: Run, folder: Path) -> Run:
    """Return a copy of a run of three classes, with bad names in it and in its images.

    Args:
        run: As the fixture `trained_run` gives it.
        folder: Gets `run` and `data`.
    """
    manifest = run.manifest
    entries = []
    for index, entry in enumerate(manifest.entries):
        path = entry.path
        if index % 2 == 0:
            path = f"{entry.label}/{index:02d} {FILE_NAMES[index // 2 % len(FILE_NAMES)]}"
        target = folder / "data" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(manifest.path_of(entry), os.fsencode(target))
        entries.append(dataclasses.replace(entry, path=path))
    entries.sort(key=lambda entry: entry.path)
    first, second = entries[:2]
    renamed = dataclasses.replace(
        manifest,
        root=folder / "data",
        class_names=CLASS_NAMES,
        entries=Entries(entries),
        left_out=(LeftOut(path="<b>bad</b>\udcff.gif", code="truncated", reason="<i>cut</i>"),),
        duplicates=((first.path, second.path),),
        near_duplicates={
            **{"bits": 2, "pairs": 1, "across_splits": 1, "complete": True},
            "examples": [[first.path, entries[-1].path, 1]],
        },
        warnings=("<u>mind</u>\u202e",),
    )
    shutil.copytree(run.folder, folder / "run")
    return replace_manifest(folder / "run", renamed, class_names=list(CLASS_NAMES))


def replace_manifest(folder: Path, manifest: Manifest, **changes: Any) -> Run:
    """Give a run another manifest and further values in run.json, as if it had had them before."""
    manifest.save(folder / "manifest.json")
    info = json.loads((folder / "run.json").read_bytes())
    info |= {"manifest_sha256": manifest.sha256, **changes}
    store.write_sealed_json(folder / "run.json", info)
    return load_run(folder)


def write_bundle(run: Run, folder: Path) -> Path:
    """Write what a bundle of a run says of itself, without its model, and return the folder."""
    folder.mkdir()
    figures = {"max_abs_diff": 9e-6, "top1_agreement": 1.0, "val_accuracy": 0.875}
    artifact = {
        **{"format": "onnx", "via": "native", "path": "model.onnx", "bytes": 8_923_475},
        **{"sha256": "ab" * 32, "passed": True},
        **figures,
    }
    check = {"name": "<b>difference</b>", "value": 9e-6, "limit": 5e-5, "is_least": False}
    checks = [check | {"passed": True, "worst": "a\udcff.png"}]
    failed = check | {"value": "nan", "limit": None, "passed": False, "worst": None}
    parities = [
        {"format": "onnx", "passed": True, "checks": checks, **figures},
        {"format": "onnx-int8", "passed": False, "checks": [failed], **figures},
    ]
    info = {
        "artifacts": [artifact],
        "checkpoint_sha256": run.info["files"]["best.keras"],
        "created": "2026-11-22T10:00:00+00:00",
    }
    store.write_json(folder / "bundle.json", info)
    store.write_json(folder / "parity.json", parities)
    return folder


def write_benchmark(path: Path) -> Path:
    """Write what `mnv2tl benchmark --out` writes, with two batch sizes, and return the path."""
    row = {
        **{"runtime": "onnxruntime <b>", "format": "onnx", "via": "native", "threads": 1},
        **{"p50_ms": 3.9, "p90_ms": 4.2, "p99_ms": 9.1, "images_per_s": 256.0},
        **{"import_ms": 80.0, "load_ms": 35.5, "bytes": 8_923_475, "peak_rss_mb": None},
        **{"val_accuracy": 0.875, "max_abs_diff": 9e-6},
    }
    rows = [row | {"batch": batch} for batch in (1, 16)]
    machine = {"processor": "a processor", "cores": 2, "system": "Linux"}
    store.write_json(path, {"date": "2026-11-22", "machine": machine, "rows": rows})
    return path
