"""Train folds by `mnv2tl.train`, many in one process, and keep what each answered.

The counterpart of seed_recipe.py: the same folds, the same form of result. A setting is a name
of `settings.SETTINGS`.

    python -m benchmarks.parts.our_recipe DATA --backend jax --pieces DIR
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.folds import has_own_split, read_data, write_fold
from benchmarks.parts.pooled import list_predictions
from benchmarks.parts.settings import SETTINGS, make_config
from mnv2tl import store
from mnv2tl.backend import BACKENDS, use_backend
from mnv2tl.config import TrainConfig
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.progress import set_quiet


def piece_path(
    pieces: Path, config: TrainConfig, manifest: Manifest, *, fold: int, folds: int, name: str
) -> Path:
    """Return where the piece of one fold lies; other settings or pictures give another name."""
    key = store.sha256_json([config.to_json(), folds, manifest.sha256])[:8]
    return pieces / f"{name}-{config.backend}-f{fold}of{folds}-s{config.seed}-{key}.json"


def count_folds(data: Path, folds: int) -> int:
    """Return the number of folds: 1 for data with a split of its own."""
    return 1 if has_own_split(data) else folds


def run_fold(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Train on a split folder; return history and the prediction of each validation picture.

    Args:
        folder: Holds train/ and val/.
        settings: Fields of `TrainConfig`.
    """
    from mnv2tl.evaluate import evaluate_run  # noqa: PLC0415  Keras' backend is chosen first
    from mnv2tl.train import train  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "run"
        scan = ScanConfig(near_duplicates=False)
        run = train(TrainConfig(data=folder, out=out, scan=scan, **settings))
        evaluation = evaluate_run(run)
    return {
        "history": run.history,
        "best_epoch": run.info["best_epoch"],
        "temperature": run.info["temperature"],
        "self_check": run.info["self_check"],
        "predictions": list_predictions(
            [entry.path.removeprefix("val/") for entry in evaluation.entries],
            [entry.label for entry in evaluation.entries],
            evaluation.probabilities,
        ),
        "seconds": run.info["seconds"],
    }


@click.command(help=record.help_text(__doc__))
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pieces", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--setting", type=click.Choice(list(SETTINGS)), default="default", show_default=True)
@click.option("--backend", type=click.Choice(BACKENDS), default="jax", show_default=True)
@click.option("--folds", default=5, show_default=True, help="Number of folds.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@click.option("--epochs", default=10, show_default=True, help="Epochs of the first phase.")
@click.option("--weights", default="imagenet-dogs", show_default=True, help="Base weights.")
def main(
    data: Path,
    pieces: Path,
    setting: str,
    backend: str,
    folds: int,
    seeds: int,
    epochs: int,
    weights: str,
) -> None:
    """Train what is missing."""
    use_backend(backend)
    set_quiet(True)
    manifest, folds = read_data(data), count_folds(data, folds)
    for seed in range(seeds):
        more = {"epochs": epochs, "weights": weights, "backend": backend}
        config = make_config(SETTINGS[setting], seed=seed, **more)
        for fold in range(folds):
            path = piece_path(pieces, config, manifest, fold=fold, folds=folds, name=setting)
            if path.is_file():
                continue
            click.echo(f"{data.name}: {setting} on {backend}, fold {fold}, seed {seed}", err=True)
            with tempfile.TemporaryDirectory() as made:
                folder = data
                if folds > 1:
                    folder = Path(made)
                    write_fold(manifest, folder, fold=fold, folds=folds)
                result = run_fold(folder, SETTINGS[setting] | more | {"seed": seed})
            about = {"data": data.name, "setting": setting, "seed": seed, "fold": fold}
            record.write(path, about | {"folds": folds, "backend": backend, **result})


if __name__ == "__main__":
    main()
