from __future__ import annotations

import numpy as np
import pytest

from mnv2tl.report.projection import project


def test_project_finds_the_plane_that_features_lie_in() -> None:
    """Points of a plane in 20 dimensions keep their distances, and all variance is shown."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) * [5, 2]
    axes = np.linalg.qr(rng.normal(size=(20, 2)))[0].T

    positions, share = project(plane @ axes + 7)

    assert share == pytest.approx(1.0)
    for points in (positions, plane):
        points -= points[0]
    np.testing.assert_allclose(
        np.linalg.norm(positions, axis=1), np.linalg.norm(plane, axis=1), atol=1e-9
    )


def test_project_never_enlarges_a_distance() -> None:
    """What is far on the map is far: the page says so."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(30, 12)).astype(np.float32)

    positions, share = project(features)

    real = np.linalg.norm(features[:, np.newaxis] - features, axis=2)
    shown = np.linalg.norm(positions[:, np.newaxis] - positions, axis=2)
    assert (shown <= real + 1e-5).all()
    assert 0 < share < 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_project_takes_few_or_equal_images(count: int) -> None:
    """One image, or equal ones, have no variance: they lie on one spot."""
    positions, share = project(np.ones((count, 4), np.float32))

    np.testing.assert_array_equal(positions, np.zeros((count, 2)))
    assert share == 0.0


def test_project_is_the_same_for_the_same_features() -> None:
    """An axis does not flip from one report to the next."""
    features = np.random.default_rng(2).normal(size=(10, 6))

    np.testing.assert_array_equal(project(features)[0], project(features.copy())[0])
