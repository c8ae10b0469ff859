"""Lay images out on a plane by what the network sees in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def project(features: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], float]:
    """Return the first two principal components of features.

    PCA and not t-SNE or UMAP: it is linear, has no settings, needs no package, and distances on
    the plane are never larger than the real ones.

    Args:
        features: Pooled features, shape (n, channels), at least 2 channels.

    Returns:
        Positions, shape (n, 2), and the share of the variance that they show, 0 to 1. The largest
        weight of a component is positive, so that equal features give equal pictures.
    """
    centred = np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)
    # Eigenvectors of the small product are right singular vectors, whatever the number of images.
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, [-1, -2]]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    total = float(values.clip(0).sum())
    share = float(values[[-1, -2]].clip(0).sum()) / total if total else 0.0
    return centred @ axes, share
