"""From a folder of images to a run folder: the one road through all stages.

scan -> base weights -> frozen trunk -> features -> head, epoch by epoch -> best.keras -> self-check
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mnv2tl import backend, checkpoint, images, store
from mnv2tl.cache_folder import cache_folder
from mnv2tl.checkpoint import Run, full_shapes, load_run
from mnv2tl.config import TrainConfig
from mnv2tl.errors import ArtifactError, ExistsError, InterruptError, ResultError, show
from mnv2tl.evaluate import Evaluation, evaluate_files, open_model
from mnv2tl.features import FeatureSource, prepare
from mnv2tl.judge import check_share
from mnv2tl.keras_model import build_model, freeze, initial_dense, set_arrays
from mnv2tl.manifest import LeftOut, Manifest, changes
from mnv2tl.metrics import expected_calibration_error, fit_temperature, softmax
from mnv2tl.mobilenet import cut_at, list_layers
from mnv2tl.phase import Phase, Split, build_head, fit_phase, list_phases, predict_logits
from mnv2tl.plots import write_curves
from mnv2tl.progress import say, show_bar
from mnv2tl.scan import scan
from mnv2tl.state import Commit, StateStore
from mnv2tl.trunk import choose_runtime, open_trunk
from mnv2tl.views import PLAIN, ViewMaker
from mnv2tl.weights import Weights, hash_arrays, load

SELF_CHECK_IMAGES = 2000
"""How many validation images the finished checkpoint is evaluated on, from their files."""

# Cached features are float16; on photographs that moves probabilities by 1e-4 or less.
SELF_CHECK_TOLERANCE = 1e-3


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    force: bool = False,
    accept_changes: bool = False,
) -> Run:
    """Train, and return the finished run.

    Args:
        config: All settings.
        resume: Go on from the last committed epoch of `config.out`, to the same result as if the
            training had not stopped.
        force: Replace a run that is already there.
        accept_changes: Resume though images were added, removed or changed.

    Raises:
        ValueError: A setting is wrong.
        Mnv2tlError: Everything else that a user can meet; see `errors`.
    """
    with _replaceable(config.out, resume=resume, force=force), store.lock_folder(config.out):
        store.remove_stale_parts(config.out)
        try:
            return _Training(config, accept_changes=accept_changes).run()
        except KeyboardInterrupt as error:
            raise _interrupted(config, 2) from error
        except InterruptError as error:
            raise _interrupted(config, error.signal_number) from error


@contextlib.contextmanager
def _replaceable(out: Path, *, resume: bool, force: bool) -> Iterator[None]:
    """Refuse to write over a folder; with force keep the former one until the new is finished."""
    is_empty = not out.exists() or all(file.name == ".lock" for file in out.iterdir())
    if is_empty or (resume and (out / "run.json").is_file()):
        yield
        return
    if not force:
        fix = "choose another --out, or --resume it, or replace it with --force"
        raise ExistsError("E504", "the folder exists and is not empty", path=out, fix=fix)
    if not (out / "run.json").is_file():
        message = "not a run folder, so --force does not replace it"
        raise ExistsError("E504", message, path=out, fix="choose another --out")
    former = out.with_name(f"{out.name}.replaced")
    if former.exists():
        raise ExistsError("E504", "left by a --force that failed", path=former, fix="remove it")
    out.rename(former)
    yield
    shutil.rmtree(former)


def _interrupted(config: TrainConfig, signal_number: int) -> InterruptError:
    commit = StateStore(config.out / "state").load()
    done = len(commit.history) if commit else 0
    return InterruptError(
        signal_number,
        f"{done} of {config.all_epochs} epochs are saved in {show(config.out)}",
        fix=f"to go on: mnv2tl train {show(config.data)} --out {show(config.out)} --resume",
    )


class _Training:
    """One training; its methods are the stages, in order."""

    def __init__(self, config: TrainConfig, *, accept_changes: bool) -> None:
        self.config = config
        self.accept_changes = accept_changes
        self.out = config.out
        self.layers = list_layers(alpha=config.alpha, image_px=config.image_px)
        self.state = StateStore(config.out / "state")
        self.seconds: dict[str, float] = {}
        self.began = time.perf_counter()

    def run(self) -> Run:
        """Go through all stages."""
        commit = self.state.load()
        with self._timed("scan"):
            manifest = self._scan(is_resumed=commit is not None)
        weights, dense = self._base_weights(manifest)
        self.arrays = dict(weights.arrays) | dense
        maker = self._view_maker(manifest)
        info = self._first_info(manifest, weights)
        keras.utils.set_random_seed(self.config.seed)
        for phase in list_phases(self.config):
            if commit is not None and commit.phase > phase.index:
                continue
            with self._timed("features"):
                source = self._features(phase, maker, manifest)
                manifest = self._drop_lost(manifest, source)
            if commit is None:
                self._write_start(info, manifest)
            with self._timed("fit"):
                commit = self._fit(phase, source, manifest, commit)
        if commit is None:
            raise ValueError("there is no phase to train")
        return self._finish(info, manifest, maker, source, commit)

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def _scan(self, *, is_resumed: bool) -> Manifest:
        manifest = scan(self.config.data, self.config.scan)
        for warning in manifest.warnings:
            say(f"warning: {warning}")
        former_path = self.out / "manifest.json"
        if is_resumed and former_path.is_file() and not self.accept_changes:
            former = Manifest.load(former_path)
            _check_same_data(former, manifest)
            # The former one also knows which files could not be read later on.
            return dataclasses.replace(former, root=manifest.root)
        return manifest

    def _base_weights(
        self, manifest: Manifest
    ) -> tuple[Weights, dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
        config = self.config
        rng = np.random.default_rng([config.seed, 0xDE45E])
        dense = initial_dense(self.layers[-1].channels, len(manifest.class_names), rng)
        if config.start_from is None:
            base = load(
                config.weights, alpha=config.alpha, image_px=config.image_px, seed=config.seed
            )
            return base, dense
        former = load_run(config.start_from)
        _check_same_network(former, config)
        arrays = former.read_arrays()
        former_dense = {key: arrays.pop(key) for key in dense}
        if former.class_names == manifest.class_names:
            dense = former_dense
        name = f"run {former.info['created']}"
        licence = former.info["weights"]["licence"]
        sha256 = hash_arrays(arrays)
        return Weights(arrays=arrays, name=name, sha256=sha256, licence=licence, px=None), dense

    def _view_maker(self, manifest: Manifest) -> ViewMaker:
        return ViewMaker(
            root=manifest.root,
            image_px=self.config.image_px,
            augment=self.config.augment,
            seed=self.config.seed,
            max_pixels=self.config.scan.max_pixels,
        )

    def _features(self, phase: Phase, maker: ViewMaker, manifest: Manifest) -> FeatureSource:
        config = self.config
        gpu = backend.has_gpu(config.backend)
        trunk = open_trunk(
            self.layers[: cut_at(self.layers, phase.trainable_layers)],
            self.arrays,
            scaling=config.scaling,
            runtime=choose_runtime(config.trunk_runtime, has_gpu=gpu),
            image_px=config.image_px,
        )
        views = tuple(range(config.walked_views)) if config.is_augmented else (PLAIN,)
        val = manifest.of_split("val")
        jobs = [(entry, views) for entry in manifest.of_split("train")]
        jobs += [(entry, (PLAIN,)) for entry in val]
        return prepare(
            maker,
            trunk,
            jobs,
            cache_root=cache_folder("features"),
            limit_bytes=int(config.cache_limit_gb * 1e9),
        )

    def _drop_lost(self, manifest: Manifest, source: FeatureSource) -> Manifest:
        """Leave out images that vanished or changed since the scan."""
        if not source.lost:
            return manifest
        lost = [
            LeftOut(path=path, code=error.reason, reason=error.message)
            for path, error in source.lost.items()
        ]
        for each in lost:
            say(f"warning: left out {show(each.path)}: {each.reason}")
        entries = tuple(entry for entry in manifest.entries if entry.path not in source.lost)
        pass
        left_out = tuple(sorted((*manifest.left_out, *lost), key=lambda each: each.path))
        return dataclasses.replace(manifest, entries=entries, left_out=left_out)

    def _first_info(self, manifest: Manifest, weights: Weights) -> dict[str, Any]:
        config = self.config
        return {
            "schema": checkpoint.SCHEMA,
            "finished": False,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "config": config.to_json(),
            "backend": config.backend,
            "class_names": manifest.class_names,
            "preprocessing": images.PREPROCESSING,
            "weights": {
                "name": weights.name,
                "sha256": weights.sha256,
                "licence": weights.licence,
            },
            "versions": backend.list_versions(),
            "machine": {"platform": platform.platform(), "processor": platform.machine()},
            "git": checkpoint.git_state(Path.cwd()),
        }

    def _write_start(self, info: dict[str, Any], manifest: Manifest) -> None:
        info["manifest_sha256"] = manifest.sha256
        manifest.save(self.out / "manifest.json")
        store.write_json(self.out / "run.json", info)

    def _fit(
        self, phase: Phase, source: FeatureSource, manifest: Manifest, commit: Commit | None
    ) -> Commit:
        config = self.config
        split = Split(train=manifest.of_split("train"), val=manifest.of_split("val"))
        head = build_head(
            self.layers,
            phase,
            config,
            classes=len(manifest.class_names),
            shape=source.shape,
        )
        _say_trainable(head, phase)
        first_arrays = self.arrays
        if commit is not None and commit.phase < phase.index:
            first_arrays = self.arrays | self.state.load_arrays(commit.best.file)
        done = len(commit.history) if commit is not None and commit.phase == phase.index else 0
        with show_bar("train", total=(phase.epochs - done) * len(split.train)) as advance:
            return fit_phase(
                head,
                phase,
                config,
                source=source,
                split=split,
                state=self.state,
                start=commit,
                first_arrays=first_arrays,
                advance=advance,
                report=lambda row, is_best: _say_epoch(row, config, is_best=is_best),
            )

    def _finish(
        self,
        info: dict[str, Any],
        manifest: Manifest,
        maker: ViewMaker,
        source: FeatureSource,
        commit: Commit,
    ) -> Run:
        config = self.config
        best = self.state.load_arrays(commit.best.file)
        classes = len(manifest.class_names)
        val = manifest.of_split("val")
        phase = list_phases(config)[commit.best.phase]
        val_labels = np.array([entry.label for entry in val])
        logits = self._best_logits(phase, source, maker, manifest, best)
        temperature = fit_temperature(logits, val_labels)
        model = build_model(
            self.layers,
            classes=classes,
            input_shape=(config.image_px, config.image_px, 3),
            scaling=config.scaling,
            dropout=config.dropout,
        )
        set_arrays(model, self.arrays | best)
        names = [layer.name for layer in self.layers[len(self.layers) - phase.trainable_layers :]]
        freeze(model, names, batch_norm=config.batch_norm)
        digest = checkpoint.write_keras(model, self.out / "best.keras")
        checked = self._self_check(manifest, maker, temperature)
        expected = softmax(logits, temperature=temperature)
        difference = _compare(checked, expected[: len(checked.entries)])
        checkpoint.write_history(self.out / "history.csv", commit.history)
        write_curves(self.out / "curves.png", commit.history, best_epoch=commit.best.epoch)
        summary = checked.summary()
        self.seconds["total"] = time.perf_counter() - self.began
        info |= {
            "finished": True,
            "manifest_sha256": manifest.sha256,
            "history": commit.history,
            "epochs": len(commit.history),
            "best_epoch": commit.best.epoch,
            "trainable": _describe_trainable(model),
            "temperature": temperature,
            "ece": {
                "before": expected_calibration_error(softmax(logits), val_labels),
                "after": expected_calibration_error(expected, val_labels),
            },
            "train_images": len(manifest.of_split("train")),
            "val_images": len(val),
            "val_accuracy": summary["accuracy"],
            "val_accuracy_interval": summary["accuracy_interval"],
            "val_loss": summary["loss"],
            "per_class": summary["per_class"],
            "self_check": {"images": len(checked.entries), "max_abs_diff": difference},
            "trunk_runtime": source.trunk.runtime,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "files": {"best.keras": digest},
        }
        store.write_json(self.out / "run.json", info)
        return load_run(self.out)

    def _best_logits(
        self,
        phase: Phase,
        source: FeatureSource,
        maker: ViewMaker,
        manifest: Manifest,
        best: dict[str, Any],
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the best epoch's logits on the validation split, from cached features."""
        if phase.index != list_phases(self.config)[-1].index:
            source = self._features(phase, maker, manifest)
        head = build_head(
            self.layers,
            phase,
            self.config,
            classes=len(manifest.class_names),
            shape=source.shape,
        )
        set_arrays(head, best)
        return predict_logits(head, source, manifest.of_split("val"))

    def _self_check(
        self, manifest: Manifest, maker: ViewMaker, temperature: float
    ) -> Evaluation:
        """Evaluate the file best.keras, read back, from the files of validation images."""
        config = self.config
        path = self.out / "best.keras"
        shapes = full_shapes(
            alpha=config.alpha, image_px=config.image_px, classes=len(manifest.class_names)
        )
        content = checkpoint.weight_file.read_content(path)
        predict = open_model(
            checkpoint.weight_file.read_arrays(content, shapes, path=path),
            alpha=config.alpha,
            image_px=config.image_px,
            scaling=config.scaling,
            classes=len(manifest.class_names),
        )
        return evaluate_files(
            predict,
            maker,
            manifest.of_split("val")[:SELF_CHECK_IMAGES],
            class_names=manifest.class_names,
            temperature=temperature,
        )


def _compare(checked: Evaluation, expected: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return the largest difference of probabilities; refuse a checkpoint that answers otherwise.

    Raises:
        ResultError: It differs by more than `SELF_CHECK_TOLERANCE` (E603).
    """
    differences = np.abs(checked.probabilities - expected).max(axis=1)
    worst = int(differences.argmax())
    if not differences[worst] <= SELF_CHECK_TOLERANCE:
        message = (
            f"best.keras answers otherwise than the training by {differences[worst]:.1e}, "
            f"allowed {SELF_CHECK_TOLERANCE:.0e}"
        )
        raise ResultError("E603", message, path=checked.entries[worst].path)
    return float(differences[worst])


def _check_same_data(former: Manifest, manifest: Manifest) -> None:
    if former.class_names != manifest.class_names:
        message = f"the run has {list(former.class_names)}, the folder {list(manifest.class_names)}"
        raise ArtifactError("E402", ascii(message)[1:-1], path=manifest.root)
    added, removed, changed = changes(former, manifest)
    # Files that a former start left out are known to it, not new.
    known = {each.path for each in former.left_out}
    added = tuple(path for path in added if path not in known)
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


def _describe_trainable(model: keras.Model) -> dict[str, Any]:
    names = [layer.name for layer in model.layers if layer.trainable_weights]
    return {
        "layers": names,
        "parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights),
    }


def _say_trainable(head: keras.Model, phase: Phase) -> None:
    described = _describe_trainable(head)
    names: Sequence[str] = described["layers"]
    listed = ", ".join(names if len(names) <= 8 else [*names[:3], "...", *names[-3:]])
    count = f"{described['parameters']:,} parameters in {len(names)} layers"
    say(f"phase {phase.index + 1} trains {count}: {listed}")


def _say_epoch(row: dict[str, Any], config: TrainConfig, *, is_best: bool) -> None:
    figures = "  ".join(
        f"{name} {row[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy")
    )
    say(f"epoch {row['epoch']:>3}/{config.all_epochs}  {figures}{'  best' if is_best else ''}")

