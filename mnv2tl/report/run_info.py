"""What the pages about runs need to find in run.json, looked for before work is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mnv2tl.checkpoint import Run
from mnv2tl.errors import ArtifactError

_NEEDED = (
    *("versions", "epochs", "trunk_runtime", "val_accuracy_interval"),
    *("seconds.total", "self_check.images", "ece.after", "trainable.layers"),
    *("trainable.parameters", "weights.name", "weights.licence", "weights.sha256"),
    *("config.alpha", "config.image_px", "config.scaling", "config.scan.max_pixels"),
)
"""Every finished run has them; a dot leads into an object."""


def check_info(run: Run) -> None:
    """Refuse a run that is not finished, or whose run.json lacks what every finished run has.

    Raises:
        ArtifactError: It is not finished (E403), or something is missing (E412).
    """
    if not run.is_finished:
        fix = "finish it with mnv2tl train --resume"
        raise ArtifactError("E403", "the training is not finished", path=run.folder, fix=fix)
    missing = [name for name in _NEEDED if not _has(run.info, name.split("."))]
    if missing:
        message = f"not a run.json of mnv2tl: it lacks {', '.join(missing)}"
        raise ArtifactError("E412", message, path=run.folder / "run.json")


def _has(value: Mapping[str, Any], names: list[str]) -> bool:
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True
