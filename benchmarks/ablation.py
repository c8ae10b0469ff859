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

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.parts import record
from benchmarks.parts.folds import has_own_split, read_data
from benchmarks.parts.pooled import compare, pool, read_pieces
from benchmarks.parts.settings import SETTINGS, is_default, make_config
from mnv2tl import store
from mnv2tl.backend import BACKENDS, use_backend
from mnv2tl.progress import set_quiet


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


@click.command(help=record.help_text(__doc__))
@click.argument("data", nargs=-1, required=True, metavar="NAME=DATA...")
@click.option("--pieces", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=record.RESULTS / "ablation.json",
    show_default="benchmarks/results/ablation.json",
    help="JSON file.",
)
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
    from benchmarks.parts.stages import run_piece  # noqa: PLC0415  Keras' backend is chosen first

    set_quiet(True)
    more = {"epochs": epochs, "weights": weights, "backend": backend}
    tables = {}
    for name, _, folder in (each.partition("=") for each in data):
        count = 1 if has_own_split(Path(folder)) else folds
        manifest = read_data(Path(folder))
        rows: dict[str, Any] = {}
        default: list[dict[str, Any]] = []
        for setting in _choose(only):
            found = []
            for seed in range(seeds):
                config = make_config(SETTINGS[setting], seed=seed, **more)
                key = store.sha256_json([config.to_json(), count, manifest.sha256])[:8]
                path = pieces / f"ablation-{name}-{setting}-{backend}-s{seed}-{key}.json"
                if not path.is_file():
                    click.echo(f"{name}: {setting}, seed {seed}", err=True)
                    about = {"data": name, "setting": setting, "seed": seed, "folds": count}
                    piece = run_piece(manifest, config, folds=count, cache=cache)
                    record.write(path, {"backend": backend, **about, **piece})
                found += read_pieces([path])
            default = default or found
            rows[setting] = summarise(found, default)
            click.echo(f"{name}: {setting}: {_show(rows[setting])}", err=True)
        tables[name] = {"folds": count, "images": len(manifest.entries), "rows": rows}
    record.write(out, more | {"seeds": seeds, "data": tables})


def _choose(only: tuple[str, ...]) -> list[str]:
    """Return the settings to run, the default first; others that equal it are left out."""
    unknown = sorted(set(only) - set(SETTINGS))
    if unknown:
        raise click.BadParameter(f"no setting {unknown[0]!r}; there are {', '.join(SETTINGS)}")
    changed = [name for name, overrides in SETTINGS.items() if not is_default(overrides)]
    return ["default", *(name for name in changed if not only or name in only)]


def _show(row: dict[str, Any]) -> str:
    low, high = row["points_interval"]
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
    return (
        f"accuracy {row['accuracy']:.4f} ({row['points']:+.2f} points, {low:+.2f} to {high:+.2f}), "
        f"last epoch {row['last_epoch_accuracy']:.4f}, log loss {row['log_loss']:.4f}, {seconds} s"
    )


if __name__ == "__main__":
    main()
