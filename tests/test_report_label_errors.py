from __future__ import annotations

import numpy as np
import pytest

from mnv2tl.report.label_errors import class_thresholds, find_suspects

# Three classes. Rows 2 and 5 lie in the wrong folder; row 7 is merely unsure.
_PROBABILITIES = np.array(
    [
        [0.90, 0.05, 0.05],
        [0.80, 0.10, 0.10],
        [0.04, 0.95, 0.01],
        [0.05, 0.90, 0.05],
        [0.10, 0.80, 0.10],
        [0.10, 0.05, 0.85],
        [0.05, 0.15, 0.80],
        [0.40, 0.25, 0.35],
    ]
)
_LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2])


def test_class_thresholds_are_the_mean_self_confidence() -> None:
    """Of class 0: (0.90 + 0.80 + 0.04) / 3."""
    found = class_thresholds(_PROBABILITIES, _LABELS)

    np.testing.assert_allclose(found, [1.74 / 3, 1.75 / 3, 1.15 / 2])


def test_find_suspects_names_wrong_folders_and_not_doubts() -> None:
    """Sorted by how much surer the network is of the other class; the unsure picture is left."""
    suspects = find_suspects(_PROBABILITIES, _LABELS)

    assert [(each.row, each.suggested) for each in suspects] == [(2, 1), (5, 2)]
    assert [each.margin for each in suspects] == pytest.approx([0.91, 0.80])


def test_find_suspects_never_suggests_a_class_without_images() -> None:
    """Its threshold is infinite, since nothing says how sure is sure."""
    probabilities = np.array([[0.1, 0.0, 0.9], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    labels = np.array([0, 0, 1])

    assert find_suspects(probabilities, labels) == []


def test_find_suspects_finds_labels_that_were_swapped() -> None:
    """Of 300 well separated images 12 get a wrong label: all of them are named, and no other."""
    rng = np.random.default_rng(3)
    true = rng.integers(0, 4, 300)
    probabilities = np.full((300, 4), 0.02)
    sure = rng.uniform(0.91, 0.94, 300)
    probabilities += ((1 - sure) / 4 - 0.02)[:, np.newaxis]
    probabilities[np.arange(300), true] = sure
    labels = true.copy()
    swapped = rng.choice(300, 12, replace=False)
    labels[swapped] = (labels[swapped] + 1) % 4

    suspects = find_suspects(probabilities, labels)

    assert {each.row for each in suspects} == set(swapped.tolist())
    assert all(each.suggested == true[each.row] for each in suspects)


def test_find_suspects_agrees_with_cleanlab() -> None:
    """A foreign judge, where it is installed: the off-diagonal of the confident joint."""
    filters = pytest.importorskip("cleanlab.filter")
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(400, 5))
    true = rng.integers(0, 5, 400)
    logits[np.arange(400), true] += 2.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(rng.uniform(size=400) < 0.1, rng.integers(0, 5, 400), true)

    found = {each.row for each in find_suspects(probabilities, labels)}

    mask = filters.find_label_issues(
        labels, probabilities, filter_by="confident_learning", n_jobs=1, min_examples_per_class=0
    )
    assert found == set(np.flatnonzero(mask).tolist())
