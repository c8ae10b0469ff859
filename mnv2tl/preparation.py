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
from mnv2tl.data.judge import check_share
from mnv2tl.data.manifest import LeftOut, Manifest, changes
from mnv2tl.data.scan import scan
from mnv2tl.errors import ArtifactError, DataError
from mnv2tl.mobilenet import DENSE
from mnv2tl.progress import say
from mnv2tl.weights import Weights, hash_arrays, load

# What may differ between a run and its resume: where things lie, how long it goes on, and what
# leaves the result alone.
_FREE = {"data", "backend", "epochs", "finetune_epochs", "patience", "cache_limit_gb"}
_FREE |= {"trackers"}
_FREE_SCAN = {"workers", "index", "rehash", "near_duplicates", "max_bad", "decode_seconds"}


def scan_data(config: TrainConfig, former: Path, *, accept_changes: bool) -> Manifest:
    """Scan the data folder; on a resume, compare it with the run's manifest.

    Args:
        config: Settings of the run.
        former: The manifest of the run that is resumed; it need not exist.
        accept_changes: Take the folder as it is now, though it differs.

    Raises:
        DataError: The folder cannot be used, or has no image for validation (E303).
        ArtifactError: The classes (E402) or the images (E401) are not those of the run.
    """
    manifest = scan(config.data, config.scan)
    for warning in manifest.warnings:
        say(f"warning: {warning}")
    if not manifest.of_split("val"):
        fix = "add images: each class keeps one to learn from"
        if "val" in manifest.split_rule["folders"]:
            fix = "put images into val/, or remove that folder to have some split off"
        raise DataError("E303", "no image is left for validation", path=manifest.root, fix=fix)
    if not former.is_file():
        return manifest
    known = Manifest.load(former)
    _check_same_classes(known, manifest)
    if accept_changes:
        return manifest
    _check_same_images(known, manifest)
    # The known one also tells which images could not be read later on.
    return dataclasses.replace(known, root=manifest.root)


def check_same_settings(config: TrainConfig, run: Mapping[str, Any]) -> None:
    """Refuse to resume a run with settings that would change its result.

    Args:
        config: Settings of the resume.
        run: `config` of the run's `run.json`.

    Raises:
        ArtifactError: The differing settings with both values (E404).
    """
    ours = config.to_json()
    # A setting that a former version did not have counts as its default.
    defaults = TrainConfig(data=config.data, out=config.out).to_json()
    scan = defaults["scan"] | run["scan"]
    former = defaults | dict(run)
    differing = [key for key in ours if key not in _FREE | {"scan"} and ours[key] != former[key]]
    lines = [f"{key} was {former[key]}, now {ours[key]}" for key in differing]
    for key, value in ours["scan"].items():
        if key not in _FREE_SCAN and value != scan[key]:
            lines.append(f"{key} was {scan[key]}, now {value}")
    for key in ("epochs", "finetune_epochs"):
        if config.schedule == "cosine" and ours[key] != former[key]:
            lines.append(f"{key} was {former[key]}, now {ours[key]}, with schedule cosine")
    if former["finetune_epochs"] and ours["epochs"] != former["epochs"]:
        lines.append(f"epochs was {former['epochs']}, now {ours['epochs']}, with a second phase")
    if lines:
        fix = "leave them out of the command, or start a new run"
        raise ArtifactError("E404", "; ".join(lines), path=config.out, fix=fix)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LastLayer:
    """The Dense layer of a former run."""

    class_names: tuple[str, ...]
    """The classes that it tells apart."""
    arrays: dict[str, NDArray[np.float32]]
    """Its weights."""


def load_base(config: TrainConfig) -> tuple[Weights, LastLayer | None]:
    """Return the base weights, and the last layer of the run that they come from, if any.

    Raises:
        ArtifactError: Weights are missing or refused, or the former run has another network (E404).
    """
    if config.start_from is None:
        seed = config.seed
        return load(config.weights, alpha=config.alpha, image_px=config.image_px, seed=seed), None
    former = load_run(config.start_from)
    _check_same_network(former, config)
    arrays = former.read_arrays()
    dense = {key: arrays.pop(key) for key in list(arrays) if key.startswith(f"{DENSE}/")}
    name = f"run of {former.info['created']}"
    licence, sha256 = former.info["weights"]["licence"], hash_arrays(arrays)
    weights = Weights(arrays=arrays, name=name, sha256=sha256, licence=licence, px=None)
    return weights, LastLayer(class_names=former.class_names, arrays=dense)


def first_dense(
    config: TrainConfig, class_names: tuple[str, ...], former: LastLayer | None, *, channels: int
) -> dict[str, NDArray[np.float32]]:
    """Return the first values of the Dense layer: a former run's if it has the same classes.

    Args:
        config: Settings of the run.
        class_names: Names of the classes.
        former: The last layer of the run to start from.
        channels: Length of the pooled features.
    """
    if former is not None and former.class_names == class_names:
        return former.arrays
    rng = np.random.default_rng([config.seed, 0xDE45E])
    return initial_dense(channels, len(class_names), rng)


def initial_dense(
    channels: int, classes: int, rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Return NumPy-made first values of the Dense layer: Glorot uniform, biases zero.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010; the default of Keras' Dense, but equal on both backends.
    """
    limit = np.sqrt(6.0 / (channels + classes))
    kernel = rng.uniform(-limit, limit, (channels, classes)).astype(np.float32)
    return {f"{DENSE}/kernel": kernel, f"{DENSE}/bias": np.zeros(classes, np.float32)}


def check_same_weights(weights: Weights, former: Run) -> None:
    """Refuse to resume on other base weights than the run began with.

    Raises:
        ArtifactError: Their hash differs (E404).
    """
    expected = former.info["weights"]["sha256"]
    if weights.sha256 != expected:
        message = f"base weights were {expected[:12]}, now {weights.sha256[:12]} ({weights.name})"
        fix = "give the weights that the run began with"
        raise ArtifactError("E404", message, path=former.folder, fix=fix)


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
        entries=manifest.entries.take(
            number for number, path in enumerate(manifest.entries.paths()) if path not in paths
        ),
        left_out=tuple(sorted((*manifest.left_out, *lost), key=lambda each: each.path)),
    )
    check_share(smaller, config.scan.max_bad, manifest.root)
    return smaller


def _check_same_classes(known: Manifest, manifest: Manifest) -> None:
    if known.class_names != manifest.class_names:
        message = f"the run has {known.class_names}, the folder {manifest.class_names}"
        fix = "give the folder that the run was trained on, or another --out"
        raise ArtifactError("E402", ascii(message)[1:-1], path=manifest.root, fix=fix)


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
    theirs = former.info["config"]
    lines = [
        f"{name} is {theirs[name]} in the former run, {getattr(config, name)} was asked for"
        for name in ("alpha", "image_px", "scaling")
        if theirs[name] != getattr(config, name)
    ]
    if lines:
        raise ArtifactError("E404", "; ".join(lines), path=former.folder)
