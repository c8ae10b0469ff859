"""What a training starts from: the images, the base weights, and whether a resume fits its run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.checkpoint import Run, load_run
from mnv2tl.config import TrainConfig
from mnv2tl.errors import ArtifactError
from mnv2tl.judge import check_share
from mnv2tl.keras_model import initial_dense
from mnv2tl.manifest import LeftOut, Manifest, changes
from mnv2tl.progress import say
from mnv2tl.scan import scan
from mnv2tl.weights import Weights, hash_arrays, load

# What may differ between a run and its resume: where things lie, how long it goes on, and what
# leaves the result alone.
_FREE = {"data", "out", "backend", "epochs", "finetune_epochs", "patience", "cache_limit_gb"}
_FREE |= {"tensorboard"}
_FREE_SCAN = {"workers", "index", "rehash", "near_duplicates", "max_bad"}


def scan_data(config: TrainConfig, former: Path, *, accept_changes: bool) -> Manifest:
    """Scan the data folder; on a resume, compare it with the run's manifest.

    Args:
        config: Settings of the run.
        former: The manifest of the run that is resumed; it need not exist.
        accept_changes: Take the folder as it is now, though it differs.

    Raises:
        DataError: The folder cannot be used.
        ArtifactError: The classes (E402) or the images (E401) are not those of the run.
    """
    manifest = scan(config.data, config.scan)
    for warning in manifest.warnings:
        say(f"warning: {warning}")
    if not former.is_file():
        return manifest
    known = Manifest.load(former)
    _check_same_classes(known, manifest)
    if accept_changes:
        return manifest
    _check_same_images(known, manifest)
    # The known one also tells which images could not be read later on.
    return dataclasses.replace(known, root=manifest.root)


def check_same_settings(config: TrainConfig, former: Mapping[str, Any]) -> None:
    """Refuse to resume a run with settings that would change its result.

    Args:
        config: Settings of the resume.
        former: `config` of the run's `run.json`.

    Raises:
        ArtifactError: The differing settings with both values (E404).
    """
    ours = config.to_json()
    differing = [key for key in ours if key not in _FREE | {"scan"} and ours[key] != former[key]]
    lines = [f"{key} was {former[key]}, now {ours[key]}" for key in differing]
    for key, value in ours["scan"].items():
        if key not in _FREE_SCAN and value != former["scan"][key]:
            lines.append(f"{key} was {former['scan'][key]}, now {value}")
    for key in ("epochs", "finetune_epochs"):
        if config.schedule == "cosine" and ours[key] != former[key]:
            lines.append(f"{key} was {former[key]}, now {ours[key]}, with schedule cosine")
    if lines:
        fix = "leave them out of the command, or start a new run"
        raise ArtifactError("E404", "; ".join(lines), path=config.out, fix=fix)


def load_base(
    config: TrainConfig, class_names: tuple[str, ...], *, channels: int
) -> tuple[Weights, dict[str, NDArray[np.float32]]]:
    """Return the base weights, and the first values of the Dense layer.

    Args:
        config: Settings of the run.
        class_names: Names of the classes; a former run's Dense layer is kept if it has the same.
        channels: Length of the pooled features.

    Raises:
        ArtifactError: Weights are missing or refused, or the former run has another network (E404).
    """
    rng = np.random.default_rng([config.seed, 0xDE45E])
    dense = initial_dense(channels, len(class_names), rng)
    if config.start_from is None:
        seed = config.seed
        return load(config.weights, alpha=config.alpha, image_px=config.image_px, seed=seed), dense
    former = load_run(config.start_from)
    _check_same_network(former, config)
    arrays = former.read_arrays()
    former_dense = {key: arrays.pop(key) for key in dense}
    name = f"run of {former.info['created']}"
    licence, sha256 = former.info["weights"]["licence"], hash_arrays(arrays)
    weights = Weights(arrays=arrays, name=name, sha256=sha256, licence=licence, px=None)
    return weights, former_dense if former.class_names == class_names else dense


def leave_out(manifest: Manifest, lost: tuple[LeftOut, ...], config: TrainConfig) -> Manifest:
    """Return the manifest without images that vanished or changed since the scan.

    Raises:
        DataError: They are too many (E308).
    """
    if not lost:
        return manifest
    paths = {each.path for each in lost}
    smaller = dataclasses.replace(
        manifest,
        entries=tuple(entry for entry in manifest.entries if entry.path not in paths),
        left_out=tuple(sorted((*manifest.left_out, *lost), key=lambda each: each.path)),
    )
    check_share(smaller, config.scan.max_bad, manifest.root)
    return smaller


def _check_same_classes(known: Manifest, manifest: Manifest) -> None:
    if known.class_names != manifest.class_names:
        message = f"the run has {known.class_names}, the folder {manifest.class_names}"
        raise ArtifactError("E402", ascii(message)[1:-1], path=manifest.root)


def _check_same_images(known: Manifest, manifest: Manifest) -> None:
    added, removed, changed = changes(known, manifest)
    # What a former start left out is known to it.
    left_out = {each.path for each in known.left_out}
    added = tuple(path for path in added if path not in left_out)
    if added or removed or changed:
        message = f"dataset differs: +{len(added)} -{len(removed)} ~{len(changed)}"
        fix = "resume with --accept-changes, or start a new run"
        raise ArtifactError("E401", message, path=manifest.root, fix=fix)


def _check_same_network(former: Run, config: TrainConfig) -> None:
    for name in ("alpha", "image_px", "scaling"):
        theirs, ours = former.info["config"][name], getattr(config, name)
        if theirs != ours:
            message = f"{name} is {theirs} in the former run, {ours} was asked for"
            raise ArtifactError("E404", message, path=former.folder)
