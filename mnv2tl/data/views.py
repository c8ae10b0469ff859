"""Make the pixels of an image and of its augmented views, from a file named by its hash."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data import augment, images
from mnv2tl.data.augment import AugmentConfig
from mnv2tl.data.entries import Entry
from mnv2tl.store import sha256_bytes, sha256_json

PLAIN = -1
"""The view that is not augmented: validation and test images have no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewMaker:
    """Turns entries of a manifest into square pixels."""

    root: Path
    """Folder that the entries' paths start from."""
    image_px: int
    """Side of the pixels that come out."""
    augment: AugmentConfig
    """How views other than `PLAIN` differ from the image."""
    seed: int
    """Seed of the augmentation."""
    max_pixels: int = images.MAX_PIXELS
    """Largest image that is decoded."""

    def identity(self) -> dict[str, Any]:
        """Return what decides the plain pixels, besides the file's content."""
        return {
            "preprocessing": images.PREPROCESSING,
            "pillow": images.pillow_version(),
            "image_px": self.image_px,
        }

    def key(self, sha256: str, view: int) -> str:
        """Return 32 hexadecimal digits that are equal only for equal pixels of one `identity`.

        Args:
            sha256: Of the image's file.
            view: Which one.
        """
        rule = "plain"
        if view != PLAIN:
            rule = f"{_name_rule(augment.RULE_VERSION, self.augment, self.seed)}:{view}"
        # Short, since all views of a data set have theirs in memory.
        return sha256_bytes(f"{sha256}:{rule}".encode())[:32]

    def load(self, entry: Entry) -> NDArray[np.uint8]:
        """Return the plain pixels of an image, shape (image_px, image_px, 3).

        Raises:
            UnreadableImageError: It cannot be read, or is no longer the file of the manifest.
        """
        content = images.read_bytes(self.root / entry.path)
        if sha256_bytes(content) != entry.sha256:
            raise images.UnreadableImageError("changed", "the file changed since it was scanned")
        decoded = images.decode(content, max_pixels=self.max_pixels)
        return images.resize(decoded.pixels, self.image_px)

    def vary(self, pixels: NDArray[np.uint8], entry: Entry, view: int) -> NDArray[np.uint8]:
        """Return one view of plain pixels; the same for the same seed, content and view."""
        if view == PLAIN:
            return pixels
        return augment.augment(pixels, self.augment, seed=self.seed, sha256=entry.sha256, view=view)


@functools.lru_cache
def _name_rule(version: int, config: AugmentConfig, seed: int) -> str:
    """Return a short name of how views are made; it is asked for once per view and epoch."""
    return sha256_json([version, config.to_json(), seed])[:16]
