"""What each choice of the default recipe brings: one row per changed choice.

Every setting trains on the same folds and seeds by mnv2tl's own stages (without the self-check
and the files of a run, which change no figure). Accuracy and log loss are those of the best
epoch, pooled over all pictures and seeds, with a paired interval against the default; the best
epoch is chosen on the same pictures, which flatters every row alike, so the accuracy of the last
epoch, chosen by nobody, stands beside it. Seconds are features and fit of the first fold, from an
empty cache.

    python -m benchmarks.ablation stamps=DATA patches=DATA --pieces DIR --backend tensorflow

DATA with train/ and val/ keeps that split; any other is cut into folds. Each finished piece is
kept in --pieces, so a stopped run goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import record
from benchmarks.folds import assign_folds, has_own_split, read_data
from benchmarks.pooled import compare, pool, read_pieces
from mnv2tl import store
from mnv2tl.augment import PRESETS
from mnv2tl.backend import BACKENDS, use_backend
from mnv2tl.config import RECIPES, TrainConfig
from mnv2tl.manifest import Manifest
from mnv2tl.progress import set_quiet

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "scaling unit": {"scaling": "unit"},
    "views 1": {"views": 1},
    "views 2": {"views": 2},
    "views 4": {"views": 4},
    "views 10": {"views": 10},
    "augment none": {"augment": PRESETS["none"]},
    "augment light": {"augment": PRESETS["light"]},
    "augment strong": {"augment": PRESETS["strong"]},
    "batch norm train": {"batch_norm": "train"},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "schedule constant": {"schedule": "constant"},
    "schedule cosine": {"schedule": "cosine"},
    "dropout 0.2": {"dropout": 0.2},
    "trainable layers 0": {"trainable_layers": 0},
    "trainable layers 0, rate 1e-2": {"trainable_layers": 0, "learning_rate": 1e-2},
    "trainable layers 4": {"trainable_layers": 4},
    "trainable layers 13": {"trainable_layers": 13},
    "rate 1e-3": {"learning_rate": 1e-3},
    "rate 3e-4": {"learning_rate": 3e-4},
    "rate 1e-4": {"learning_rate": 1e-4},
    "best by val_accuracy": {"best_by": "val_accuracy"},
    "best by val_loss": {"best_by": "val_loss"},
    "second phase": {
        "finetune_layers": 20,
        "finetune_epochs": 5,
        "finetune_learning_rate": 1e-5,
    },
    "recipe classic": RECIPES["classic"],
}
"""Name -> what differs from the default; those that are the default are left out by themselves."""


def make_config(overrides: dict[str, Any], *, seed: int, **more: Any) -> TrainConfig:
    """Return the settings of a run that has no data folder and no run folder."""
    return TrainConfig(data=Path(), out=Path(), seed=seed, **(more | overrides))


def is_default(overrides: dict[str, Any]) -> bool:
    """Tell whether a setting changes nothing."""
    defaults = make_config({}, seed=0)
    return all(getattr(defaults, name) == value for name, value in overrides.items())


def split_manifests(manifest: Manifest, folds: int) -> list[Manifest]:
    """Return one manifest for each fold; with its own split, the manifest itself.

    Args:
        manifest: The data set.
        folds: Number of folds; 1 keeps the split that it has.
    """
    if folds == 1:
        return [manifest]
    fold_of = assign_folds(((e.sha256, e.label) for e in manifest.entries), folds=folds)
    return [
        dataclasses.replace(
            manifest,
            entries=tuple(
                dataclasses.replace(e, split="val" if fold_of[e.sha256] == fold else "train")
                for e in manifest.entries
            ),
        )
        for fold in range(folds)
    ]


class Stages:
    """mnv2tl's stages from features to the best epoch, on a manifest that is split already."""

    def __init__(self, config: TrainConfig, *, cache_root: Path) -> None:
        from mnv2tl.mobilenet import list_layers  # noqa: PLC0415  Keras' backend is chosen first
        from mnv2tl.weights import load  # noqa: PLC0415

        self.config, self.cache_root = config, cache_root
        self.layers = list_layers(alpha=config.alpha, image_px=config.image_px)
        self.base = dict(load(config.weights).arrays)
        self.trunks: dict[int, Any] = {}
        self.seconds: dict[str, float] = {}

    def fit(self, manifest: Manifest) -> dict[str, Any]:
        """Train; return history and the best epoch's prediction of each validation picture."""
        import keras  # noqa: PLC0415
        import numpy as np  # noqa: PLC0415

        from mnv2tl.keras_model import initial_dense, set_arrays  # noqa: PLC0415
        from mnv2tl.metrics import softmax  # noqa: PLC0415
        from mnv2tl.phase import build_head, list_phases, predict_logits  # noqa: PLC0415
        from mnv2tl.state import StateStore  # noqa: PLC0415

        config, classes = self.config, len(manifest.class_names)
        self.seconds = {"features": 0.0, "fit": 0.0}
        rng = np.random.default_rng([config.seed, 0xDE45E])
        arrays = self.base | initial_dense(self.layers[-1].channels, classes, rng)
        keras.utils.set_random_seed(config.seed)
        val = manifest.of_split("val")
        with tempfile.TemporaryDirectory() as made:
            state = StateStore(Path(made))
            commit, sources = None, []
            for phase in list_phases(config):
                with self._timed("features"):
                    sources.append(self._features(phase, manifest))
                with self._timed("fit"):
                    commit = self._fit_phase(phase, sources[-1], manifest, arrays, state, commit)
            if commit is None:
                raise ValueError("there is no phase to train")
            best = state.load_arrays(commit.best.file)
        phase = list_phases(config)[commit.best.phase]
        source = sources[phase.index]
        head = build_head(self.layers, phase, config, classes=classes, shape=source.shape)
        set_arrays(head, best)
        probabilities = softmax(predict_logits(head, source, val))
        keras.backend.clear_session()
        return {
            "history": commit.history,
            "best_epoch": commit.best.epoch,
            "predictions": [
                {
                    "path": entry.path,
                    "label": entry.label,
                    "predicted": int(row.argmax()),
                    "probability": float(row[entry.label]),
                }
                for entry, row in zip(val, probabilities, strict=True)
            ],
            "seconds": dict(self.seconds),
        }

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

    def _features(self, phase: Any, manifest: Manifest) -> Any:
        from mnv2tl.features import prepare  # noqa: PLC0415
        from mnv2tl.mobilenet import cut_at  # noqa: PLC0415
        from mnv2tl.trunk import choose_runtime, open_trunk  # noqa: PLC0415
        from mnv2tl.views import PLAIN, ViewMaker  # noqa: PLC0415

        config = self.config
        cut = cut_at(self.layers, phase.trainable_layers)
        if cut not in self.trunks:
            self.trunks[cut] = open_trunk(
                self.layers[:cut],
                self.base,
                scaling=config.scaling,
                runtime=choose_runtime(config.trunk_runtime),
                image_px=config.image_px,
            )
        maker = ViewMaker(
            root=manifest.root, image_px=config.image_px, augment=config.augment, seed=config.seed
        )
        views = tuple(range(config.walked_views)) if config.is_augmented else (PLAIN,)
        jobs = [(entry, views) for entry in manifest.of_split("train")]
        jobs += [(entry, (PLAIN,)) for entry in manifest.of_split("val")]
        limit = int(config.cache_limit_gb * 1e9)
        return prepare(maker, self.trunks[cut], jobs, cache_root=self.cache_root, limit_bytes=limit)

    def _fit_phase(
        self, phase: Any, source: Any, manifest: Manifest, arrays: Any, state: Any, commit: Any
    ) -> Any:
        from mnv2tl.phase import Split, build_head, fit_phase  # noqa: PLC0415

        classes = len(manifest.class_names)
        head = build_head(self.layers, phase, self.config, classes=classes, shape=source.shape)
        return fit_phase(
            head,
            phase,
            self.config,
            source=source,
            split=Split(train=manifest.of_split("train"), val=manifest.of_split("val")),
            state=state,
            start=commit,
            first_arrays=arrays | state.load_arrays(commit.best.file) if commit else arrays,
            advance=lambda count: None,
            report=lambda row, is_best: None,
        )


def run_piece(
    manifest: Manifest, config: TrainConfig, *, folds: int, cache: Path | None
) -> dict[str, Any]:
    """Train all folds with one setting and seed.

    Args:
        manifest: The data set.
        config: The setting.
        folds: Number of folds; 1 keeps the data set's own split.
        cache: Feature cache to share; None for a new one, as timings need it.
    """
    with tempfile.TemporaryDirectory() as made:
        stages = Stages(config, cache_root=cache or Path(made))
        fits = [stages.fit(each) for each in split_manifests(manifest, folds)]
    return {
        "predictions": [row for fit in fits for row in fit["predictions"]],
        "histories": [fit["history"] for fit in fits],
        "best_epochs": [fit["best_epoch"] for fit in fits],
        "val_images": [len(fit["predictions"]) for fit in fits],
        "seconds": None if cache else fits[0]["seconds"],
    }


def summarise(
    pieces: Sequence[dict[str, Any]], default: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return one row of the table."""
    ours, other = pool(pieces), pool(default)
    seconds = [sum(piece["seconds"].values()) for piece in pieces if piece["seconds"]]
    return {
        "accuracy": ours.accuracy,
        "accuracy_by_seed": ours.by_seed,
        "log_loss": float(ours.losses.mean()),
        "last_epoch_accuracy": _last_epoch(pieces),
        "seconds": statistics.median(seconds) if seconds else None,
        **compare(ours, other),
    }


def _last_epoch(pieces: Sequence[dict[str, Any]]) -> float:
    right = images = 0.0
    for piece in pieces:
        for history, count in zip(piece["histories"], piece["val_images"], strict=True):
            right += history[-1]["val_accuracy"] * count
            images += count
    return right / images


@click.command(help=__doc__)
@click.argument("data", nargs=-1, required=True, metavar="NAME=DATA...")
@click.option("--pieces", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--out", type=click.Path(path_type=Path), default=record.RESULTS / "ablation.json")
@click.option("--backend", type=click.Choice(BACKENDS), default="tensorflow", show_default=True)
@click.option("--folds", default=5, show_default=True, help="Number of folds.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@click.option("--epochs", default=10, show_default=True, help="Epochs of the first phase.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
@click.option("--only", multiple=True, help="A setting to run; several are possible.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Feature cache shared by all settings: quicker, and no seconds are reported.",
)
def main(
    data: tuple[str, ...],
    pieces: Path,
    out: Path,
    backend: str,
    folds: int,
    seeds: int,
    epochs: int,
    weights: str,
    only: tuple[str, ...],
    cache: Path | None,
) -> None:
    """Run what is missing, then write the table of all that is there."""
    use_backend(backend)
    set_quiet(True)
    names = [n for n, o in SETTINGS.items() if n == "default" or not is_default(o)]
    names = [n for n in names if not only or n in (*only, "default")]
    tables = {}
    for name, _, folder in (each.partition("=") for each in data):
        count = 1 if has_own_split(Path(folder)) else folds
        manifest = read_data(Path(folder))
        rows: dict[str, Any] = {}
        default: list[dict[str, Any]] = []
        for setting in names:
            done = []
            for seed in range(seeds):
                config = make_config(SETTINGS[setting], seed=seed, epochs=epochs, weights=weights)
                key = store.sha256_json([config.to_json(), count, manifest.sha256])[:8]
                path = pieces / f"ablation-{backend}-{name}-{setting}-s{seed}-{key}.json"
                if not path.is_file():
                    click.echo(f"{name}: {setting}, seed {seed}", err=True)
                    piece = run_piece(manifest, config, folds=count, cache=cache)
                    settings = {"data": name, "setting": setting, "seed": seed, "folds": count}
                    record.write(path, {"backend": backend, **settings, **piece})
                done.append(path)
            found = read_pieces(done)
            default = default or found
            rows[setting] = summarise(found, default)
            click.echo(f"{name}: {setting}: {_show(rows[setting])}", err=True)
        tables[name] = {"folds": count, "images": len(manifest.entries), "rows": rows}
    settings = {"backend": backend, "seeds": seeds, "epochs": epochs, "weights": weights}
    record.write(out, settings | {"data": tables})


def _show(row: dict[str, Any]) -> str:
    low, high = row["points_interval"]
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
    return (
        f"accuracy {row['accuracy']:.4f} ({row['points']:+.2f} points, {low:+.2f} to {high:+.2f}), "
        f"last epoch {row['last_epoch_accuracy']:.4f}, log loss {row['log_loss']:.4f}, {seconds} s"
    )


if __name__ == "__main__":
    main()
