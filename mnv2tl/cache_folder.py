"""Where the caches lie: base weights, computed features, and the index of known images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import platformdirs

VARIABLE = "MNV2TL_CACHE"
"""Environment variable that names the cache folder."""

Part = Literal["weights", "features", "index"]


def cache_folder(part: Part) -> Path:
    """Return the folder of one cache; it may not exist yet.

    Args:
        part: "weights" for base weights, "features" for what the trunk computed, "index" for the
            table that knows a file's hash by its size and times.

    Returns:
        `$MNV2TL_CACHE/<part>` if the variable is set and not empty, else the folder that the
        system gives to caches, such as `~/.cache/mnv2tl/<part>`.
    """
    root = os.environ.get(VARIABLE)
    if root:
        return Path(root).expanduser() / part
    return platformdirs.user_cache_path("mnv2tl", appauthor=False) / part
