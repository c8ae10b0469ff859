"""`mnv2tl train DATA --out RUN`: from a folder of images to the best checkpoint."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mnv2tl.backend import BACKENDS, choose_backend
from mnv2tl.cli import log_options, print_json, usage_errors
from mnv2tl.commands.options import data_argument, scan_options, take_scan_config
from mnv2tl.commands.report import make_report, require_report, show_report
from mnv2tl.commands.settings import fill_in, flatten, read_settings
from mnv2tl.config import (
    ALL_LAYERS,
    BATCH_NORMS,
    BEST_BY,
    CLASS_WEIGHTS,
    RECIPES,
    RUNTIMES,
    SCHEDULES,
    TRACKERS,
    TrainConfig,
)
from mnv2tl.data.augment import PRESETS, AugmentConfig
from mnv2tl.errors import Mnv2tlError, show
from mnv2tl.mobilenet import ALPHAS, SIZES_PX
from mnv2tl.progress import say
from mnv2tl.scaling import SCALINGS

if TYPE_CHECKING:
    from mnv2tl.checkpoint import Run

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
_POSITIVE = click.IntRange(min=1)
_NOT_NEGATIVE = click.IntRange(min=0)
_SHARE = click.FloatRange(0.0, 1.0, max_open=True)
_RATE = click.FloatRange(0.0, 10.0, min_open=True)

_RECIPE = click.Choice(list(RECIPES))

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _setting(option: str, kind: Any, text: str) -> Decorator:
    """Return an option whose default is that of `TrainConfig`."""
    default = _DEFAULTS[option[2:].replace("-", "_")]
    return click.option(option, type=kind, default=default, show_default=True, help=text)


def _amount(option: str, limit: float, text: str) -> Decorator:
    """Return an option that replaces one amount of the augmentation preset."""
    return click.option(
        option, type=click.FloatRange(0.0, limit), help=text + "  [default: preset]"
    )


class _LayerCount(click.ParamType[int]):
    """A count of layers, or `all`."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Turn the text into a count."""
        if value == "all":
            return ALL_LAYERS
        count: int = click.IntRange(0, ALL_LAYERS).convert(value, param, ctx)
        return count


_LAYERS = _LayerCount()


@click.command()
@data_argument
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Run folder."
)
@click.option(
    "--recipe",
    type=_RECIPE,
    default="default",
    show_default=True,
    help="A set of choices; flags and --config win over it.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file of options (with underscores), or a former run.json; flags win over it.",
)
@_setting("--epochs", _POSITIVE, "Passes over the training images.")
@_setting("--batch-size", _POSITIVE, "Images per training step.")
@_setting("--image-px", click.IntRange(SIZES_PX[0], SIZES_PX[-1]), f"Side in pixels: {SIZES_PX}.")
@_setting("--alpha", click.FloatRange(ALPHAS[0], ALPHAS[-1]), f"Width of the network: {ALPHAS}.")
@_setting("--weights", str, "Base weights: imagenet, imagenet-dogs, none, or a path.")
@click.option(
    "--from",
    "start_from",
    type=click.Path(path_type=Path, file_okay=False),
    help="Former run folder to start from, in place of --weights.",
)
@_setting(
    "--trainable-layers",
    _LAYERS,
    "Layers of MobileNetV2 that train, counted from the end, BatchNorm and activations too; 0: the "
    "new Dense only. More than some 8 need a lower --learning-rate, such as 1e-4.",
)
@_setting("--batch-norm", click.Choice(BATCH_NORMS), "BatchNorm in layers that train.")
@_setting("--dropout", _SHARE, "Share of pooled features dropped in a step, 0 to 1.")
@_setting("--scaling", click.Choice(list(SCALINGS)), "symmetric: -1 to 1. unit: 0 to 1.")
@click.option(
    "--augment",
    type=click.Choice(list(PRESETS)),
    default="light",
    show_default=True,
    help="Preset of how training images are varied.",
)
@_amount("--rotation-degrees", 180.0, "Rotation either way, in degrees.")
@_amount("--shift", 0.5, "Shift along each axis, as a share of the side.")
@_amount("--zoom", 0.9, "Zoom in and out, as a share.")
@click.option("--horizontal-flip/--no-horizontal-flip", default=None, help="Mirror half of them.")
@_amount("--brightness", 1.0, "Brightness either way, as a share.")
@_setting("--views", _POSITIVE, "Augmented views per image; epochs walk through them.")
@_setting("--seed", _NOT_NEGATIVE, "Seed of first weights, order and augmentation.")
@_setting("--learning-rate", _RATE, "Step size of Adam.")
@_setting("--schedule", click.Choice(SCHEDULES), "Course of the step size.")
@_setting("--label-smoothing", _SHARE, "Share of each target spread over all classes, 0 to 1.")
@_setting("--class-weights", click.Choice(CLASS_WEIGHTS), "balanced: rare classes weigh more.")
@_setting("--best-by", click.Choice(BEST_BY), "Figure that names the best epoch.")
@_setting("--patience", _NOT_NEGATIVE, "Epochs without a better figure before the end; 0: never.")
@_setting("--finetune-layers", _LAYERS, "Layers that train in a second phase.")
@_setting("--finetune-epochs", _NOT_NEGATIVE, "Epochs of the second phase; 0 leaves it out.")
@_setting("--finetune-learning-rate", _RATE, "Step size of Adam in the second phase.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Keras backend.  [default: KERAS_BACKEND, else jax if installed, else tensorflow]",
)
@_setting("--trunk-runtime", click.Choice(["auto", *RUNTIMES]), "What runs the frozen layers.")
@_setting("--cache-limit-gb", click.FloatRange(0.0), "Size of the feature cache in GB; 0: none.")
@click.option(
    "--tracker",
    "trackers",
    type=click.Choice(TRACKERS),
    multiple=True,
    help="Tell a program of settings, epochs and result; may be given several times. mlflow: a "
    "database beside RUN, or MLFLOW_TRACKING_URI. wandb: offline in RUN, or as WANDB_MODE says.",
)
@click.option("--tensorboard", is_flag=True, help="The same as --tracker tensorboard.")
@scan_options
@click.option(
    "--resume", is_flag=True, help="Go on from the last saved epoch of RUN; without one, start."
)
@click.option("--accept-changes", is_flag=True, help="Resume though the images changed.")
@click.option("--force", is_flag=True, help="Replace the run in RUN.")
@click.option(
    "--report", "with_report", is_flag=True, help="Write report.html into RUN at the end."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@log_options
@click.pass_context
def train(ctx: click.Context, /, data: Path, out: Path, **values: Any) -> None:
    """Train on DATA, a folder of images with one sub-folder per class.

    A folder that holds train/, val/ and perhaps test/ is taken as that split. The run folder gets
    best.keras, run.json, manifest.json, history.csv and curves.png.
    """
    config_file, recipe = values.pop("config_file"), values.pop("recipe")
    resume, force, as_json = values.pop("resume"), values.pop("force"), values.pop("as_json")
    accept_changes, with_report = values.pop("accept_changes"), values.pop("with_report")
    if with_report:
        require_report()  # before hours of training
    settings = {} if config_file is None else read_settings(config_file)
    if "recipe" in settings:
        named = settings.pop("recipe")
        recipe = recipe if _is_flag(ctx, "recipe") else _RECIPE.convert(named, None, ctx)
    former = _load_former(out) if resume else None
    base = _load_former(values["start_from"]) if values["start_from"] else None
    same_network = ("alpha", "image_px", "scaling")
    fill_in(
        ctx,
        values,
        [
            flatten(former.info["config"]) if former else {},
            settings,
            {name: base.info["config"][name] for name in same_network} if base else {},
            RECIPES[recipe],
        ],
    )
    if _is_flag(ctx, "weights") and not _is_flag(ctx, "start_from"):
        values["start_from"] = None
    with usage_errors():
        values["backend"] = _choose_backend(values["backend"], former)
    scan = take_scan_config(values)
    if values.pop("tensorboard"):
        values["trackers"] = ("tensorboard", *values["trackers"])
    values["trackers"] = tuple(dict.fromkeys(values["trackers"]))
    with usage_errors():
        augment = _take_augment(ctx, values)
        config = TrainConfig(data=data, out=out, scan=scan, augment=augment, **values)

    from mnv2tl import train as training

    run = training.train(config, resume=resume, force=force, accept_changes=accept_changes)
    if not as_json:
        show_run(run)
    summary = summarise(run)
    if with_report:
        try:
            path = make_report(run)
        except Mnv2tlError:
            if as_json:
                print_json(summary | {"report": None})
            raise
        summary["report"] = str(path)
        if not as_json:
            show_report(path)
    if as_json:
        print_json(summary)


def summarise(run: Any) -> dict[str, Any]:
    """Return the keys that `mnv2tl train --json` prints."""
    keys = (
        *("backend", "class_names", "train_images", "val_images", "epochs", "best_epoch"),
        *("val_accuracy", "val_accuracy_interval", "val_loss", "temperature", "ece"),
        *("trainable", "self_check", "seconds"),
    )
    return {"run": str(run.folder), **{key: run.info[key] for key in keys}}


def _is_flag(ctx: click.Context, name: str) -> bool:
    """Tell whether a parameter was given on the command line."""
    return ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE


def _load_former(folder: Path) -> Run | None:
    """Return the run in a folder, or None if there is none."""
    from mnv2tl.checkpoint import load_run

    return load_run(folder) if (folder / "run.json").is_file() else None


def _choose_backend(flag: str | None, former: Run | None) -> str:
    """Return the backend: of a resumed run its own, unless a flag or KERAS_BACKEND says other."""
    if former is None:
        return choose_backend(flag)
    began: str = former.info["backend"]
    name = choose_backend(flag or os.environ.get("KERAS_BACKEND") or began)
    if name != began:
        say(f"warning: the run began on {began}; on {name} its numbers differ in the last digits")
    return name


def _take_augment(ctx: click.Context, values: dict[str, Any]) -> AugmentConfig:
    """Return the preset with the amounts that were given; a preset flag beats a file's amounts."""
    preset = PRESETS[values.pop("augment")]
    names = [field.name for field in dataclasses.fields(AugmentConfig)]
    given = {name: values.pop(name) for name in names}
    if _is_flag(ctx, "augment"):
        given = {name: value for name, value in given.items() if _is_flag(ctx, name)}
    return dataclasses.replace(preset, **{k: v for k, v in given.items() if v is not None})


def show_run(run: Any) -> None:
    """Print the figures of a finished run for a person."""
    info = run.info
    low, high = info["val_accuracy_interval"]
    click.echo(
        f"best epoch {info['best_epoch']} of {info['epochs']}: validation accuracy "
        f"{info['val_accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f}, "
        f"{info['self_check']['images']} images)"
    )
    click.echo(
        f"temperature {info['temperature']:.3f}: validation loss {info['val_loss']:.4f} with it, "
        f"calibration error {info['ece']['before']:.3f} before, {info['ece']['after']:.3f} after"
    )
    click.echo(f"checkpoint {show(run.best_path)}, {info['seconds']['total']:.1f} s")
