"""The names of base weights; apart from what reads them, so that settings can be checked early."""

from __future__ import annotations

from pathlib import Path

SOURCES = {
    "imagenet": "Keras Applications, trained on ImageNet",
    "imagenet-dogs": "trained on ImageNet, its last blocks adapted to 19 dog breeds; alpha 1.0",
    "none": "no training: initial values from the seed",
}
"""Name -> what it is. Any other source is a path."""

LICENCES = {"imagenet": "Apache-2.0", "imagenet-dogs": "MIT", "none": "none"}
SUFFIXES = (".keras", ".h5")


def check_source(source: str) -> None:
    """Refuse a source that is neither a name nor a path of a known kind.

    Raises:
        ValueError: See above.
    """
    if source not in SOURCES and Path(source).suffix not in SUFFIXES:
        names = ", ".join(SOURCES)
        raise ValueError(f"weights must be {names} or a path to .keras or .h5, got {source!r}")
