"""Options that several sub-commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from mnv2tl.cli import usage_errors
from mnv2tl.data.scan_config import OnConflict, ScanConfig
from mnv2tl.data.split import RULES
from mnv2tl.data.stat_index import INDEX_NAME
from mnv2tl.errors import MachineError, install_extra

Command = TypeVar("Command", bound=Callable[..., Any])

# Whether it exists and may be read is for the scan to say: that is exit 3, not wrong usage.
_DATA = click.Path(path_type=Path, readable=False)
_DEFAULTS = ScanConfig()
_SHARE = click.FloatRange(0.0, 1.0)
_OPTIONS = (
    click.option(
        "--val-fraction",
        type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
        default=_DEFAULTS.val_fraction,
        show_default=True,
        help="Share of each class for validation, 0 to 1.",
    ),
    click.option(
        "--test-fraction",
        type=click.FloatRange(0.0, 1.0, max_open=True),
        default=_DEFAULTS.test_fraction,
        show_default=True,
        help="Share of each class for a test split, 0 to 1.",
    ),
    click.option(
        "--test-dir",
        type=_DATA,
        help="A folder with the same classes, taken as the test split.",
    ),
    click.option(
        "--split",
        "split_rule",
        type=click.Choice(RULES),
        default=_DEFAULTS.split_rule,
        show_default=True,
        help="threshold: added files move no others. exact: exact shares by rank in the class.",
    ),
    click.option(
        "--split-seed",
        type=int,
        default=_DEFAULTS.split_seed,
        show_default=True,
        help="Another number gives another split.",
    ),
    click.option(
        "--max-bad",
        type=_SHARE,
        default=_DEFAULTS.max_bad,
        show_default=True,
        help="Share of images that may be unreadable, 0 to 1; the number is rounded up.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        default=_DEFAULTS.max_pixels,
        show_default=True,
        help="Largest image that is decoded, width times height in pixels.",
    ),
    click.option(
        "--skip-empty-classes",
        is_flag=True,
        help="Leave out classes without a readable image.",
    ),
    click.option(
        "--allow-tiny",
        is_flag=True,
        help="Put classes of one distinct image in train only.",
    ),
    click.option(
        "--on-conflict",
        type=click.Choice(get_args(OnConflict)),
        default=_DEFAULTS.on_conflict,
        show_default=True,
        help="Equal bytes in two classes: stop, or drop all of them.",
    ),
    click.option(
        "--follow-links",
        is_flag=True,
        help="Follow links whose target lies inside the data folder.",
    ),
    click.option(
        "--near-duplicates/--no-near-duplicates",
        default=_DEFAULTS.near_duplicates,
        show_default=True,
        help="Count pairs of images that look the same.",
    ),
    click.option(
        "--index",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File that remembers unchanged images.  [default: in the cache folder]",
    ),
    click.option("--no-index", is_flag=True, help="Read every image, and remember none."),
    click.option("--rehash", is_flag=True, help="Read every image again, and remember it anew."),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Processes that read images.  [default: one per core]",
    ),
    click.option(
        "--decode-seconds",
        type=click.FloatRange(min=0.0, min_open=True),
        default=_DEFAULTS.decode_seconds,
        show_default=True,
        help="How long one image may take to decode; it is left out after that, in seconds.",
    ),
)
_NAMES = {
    *("val_fraction", "test_fraction", "test_dir", "split_rule", "split_seed", "max_bad"),
    *("max_pixels", "skip_empty_classes", "allow_tiny", "on_conflict", "follow_links"),
    *("near_duplicates", "rehash", "index", "workers", "decode_seconds"),
}


def data_argument(command: Command) -> Command:
    """Add the argument DATA, a folder of images that the scan will judge."""
    return click.argument("data", type=_DATA)(command)


def scan_options(command: Command) -> Command:
    """Add the options of `ScanConfig`; `take_scan_config` takes their values."""
    return functools.reduce(lambda each, option: option(each), reversed(_OPTIONS), command)


def take_scan_config(values: dict[str, Any]) -> ScanConfig:
    """Take the values of `scan_options` out of a command's parameters.

    Args:
        values: What click passed; the scan's own names are removed from it.

    Raises:
        click.UsageError: Two values contradict each other, exit 2.
        MachineError: The place of the default index is not known without platformdirs (E508).
    """
    taken = {name: values.pop(name) for name in list(values) if name in _NAMES}
    if values.pop("no_index"):
        taken["index"] = None
    elif taken["index"] is None:
        taken["index"] = _default_index()
    with usage_errors():
        return ScanConfig(**taken)


def _default_index() -> Path:
    try:
        from mnv2tl.cache_folder import cache_folder
    except ImportError as error:
        message = "the place of the index needs the package platformdirs"
        fix = f"{install_extra('train')}; or give --index or --no-index"
        raise MachineError("E508", message, fix=fix) from error
    return cache_folder("index") / INDEX_NAME
