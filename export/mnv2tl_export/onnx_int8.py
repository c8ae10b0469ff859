"""Quantise an ONNX file to 8 bits with onnxruntime, by the recipe that loses least.

The network's convolutions, additions and its last layer get QuantizeLinear and DequantizeLinear
around them (QDQ); resize, scaling, temperature and softmax are not touched. What was found on
photographs of 10 classes, MobileNetV2 1.0 at 224 px, onnxruntime 1.31:

- **Seven bits where a product may saturate.** On x86 processors without VNNI (Intel before
  Cascade Lake, AMD before Zen 4) onnxruntime adds two products of a byte and a signed byte in 16
  bits, which overflow. All weights in 8 bits gave 0.896 with VNNI and 0.774 on an emulated
  Haswell, and nobody is told: the gate runs on the machine of the export. So weights that are
  summed over channels have 7 bits; accuracy, loss and largest difference are then the same on both
  to the digits printed. Depthwise convolutions are summed otherwise and keep 8. Unsigned weights
  are safe with 8 bits too, but hardly faster than float32 even with VNNI.
- **The first three convolutions stay float32.** They make half of the error and are no slower.
  Only layers at the start can be left out: a convolution between quantised ones is quantised by
  onnxruntime itself when it loads the file, by the tensor (`WeightBiasQuantization`): 0.49.
- **One scale per channel.** One per tensor gives 0.36, or three times the mean difference where
  the first convolutions are left out.
- **Calibration matters less**: 16 to 128 pictures and all three methods lie close together, so the
  search decides between the methods on the validation images.

Time is no part of the search, or the same export would not give the same file twice. Recipes are
grouped by the graph that they make, and the order of the groups was measured once
(`benchmarks/quantised.py`): the first group in which a recipe holds is the fastest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.errors import ResultError
from mnv2tl.progress import show_bar
from mnv2tl_export.onnx_quantise import Ranges, Recipe, apply, calibrate

CALIBRATION_IMAGES = 64
"""Enough: twice as many change the error less than another choice of pictures does."""

RECIPES = (
    Recipe(name="min-max", calibration="min-max"),
    Recipe(name="percentile", calibration="percentile"),
    Recipe(name="entropy", calibration="entropy"),
    Recipe(name="uint8 min-max", group=1, seven_bits=False, unsigned_weights=True),
    Recipe(
        name="uint8 entropy",
        calibration="entropy",
        group=1,
        seven_bits=False,
        unsigned_weights=True,
    ),
)
"""What `search` tries, in this order: about twice as fast as float32, then about as fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good a file is on the validation split."""

    accuracy: float
    """From 0 to 1."""
    loss: float
    """Log loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of a recipe."""

    recipe: Recipe
    """The recipe."""
    score: Score
    """How good it was."""

    def to_json(self) -> dict[str, Any]:
        """Return the keys of the recipe and of the score."""
        return {**asdict(self.recipe), **asdict(self.score)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The chosen recipe and what it was chosen from."""

    content: bytes
    """The quantised file."""
    recipe: Recipe
    """How it was made."""
    trials: tuple[Trial, ...]
    """All that was tried, in the order of the trials."""


def search(
    content: bytes,
    pixels: NDArray[np.uint8],
    score: Callable[[bytes], Score],
    *,
    budget: float,
    recipes: Sequence[Recipe] = RECIPES,
) -> Found:
    """Return the file of the fastest group in which a recipe holds; in it, the least log loss.

    Args:
        content: A float32 file, as for `onnx_quantise.quantise`.
        pixels: Calibration pictures, as for `onnx_quantise.quantise`.
        score: Measures a file on the validation split; float32 is measured too.
        budget: Accuracy that may be lost against float32, as a share.
        recipes: What to try, in the order of their groups.

    Raises:
        ResultError: None holds; the trials are named (E601).
    """
    # A share of images may miss the sum by its last bit.
    least = score(content).accuracy - budget - 1e-9
    ranges: dict[str, Ranges] = {}
    trials: list[Trial] = []
    for group, members in itertools.groupby(recipes, key=lambda recipe: recipe.group):
        tried = list(members)
        found: list[tuple[float, Recipe, bytes]] = []
        with show_bar(f"int8, group {group}", total=len(tried), unit="recipes") as advance:
            for recipe in tried:
                if recipe.calibration not in ranges:
                    ranges[recipe.calibration] = calibrate(content, recipe, pixels)
                made = apply(content, recipe, ranges[recipe.calibration])
                trials.append(Trial(recipe=recipe, score=score(made)))
                if trials[-1].score.accuracy >= least:
                    found.append((trials[-1].score.loss, recipe, made))
                advance(1)
        if found:
            _, recipe, made = min(found, key=lambda each: each[0])
            return Found(content=made, recipe=recipe, trials=tuple(trials))
    raise _refusal(trials, least=least, budget=budget)


def _refusal(trials: Sequence[Trial], *, least: float, budget: float) -> ResultError:
    tried = ", ".join(f"{each.recipe.name} {each.score.accuracy:.4f}" for each in trials)
    message = f"no int8 recipe keeps the validation accuracy at {least:.4f} or more: {tried}"
    fix = f"raise --accuracy-budget, now {100 * budget:g}, or export onnx-fp16"
    return ResultError("E601", message, fix=fix)
