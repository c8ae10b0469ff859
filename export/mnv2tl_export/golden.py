"""The self-test that travels in an exported file: a small picture, and what Keras answers to it.

Whoever deploys the file can show with it that the model and the runtime work where they run.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl.data import images
from mnv2tl.sample_picture import encode_png

HEIGHT_PX, WIDTH_PX = 72, 100
"""Neither square nor a side of a network, so that both passes of the resize take part."""

TOLERANCE = 1e-4
"""Allowed difference of a probability for float32: the answer is rounded to six digits."""

Predict = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What a self-test found."""

    resized_diff: float
    """Largest difference of a probability for the picture as Pillow resizes it; NaN counts."""
    direct_diff: float
    """The same for the picture in its own size, which the graph resizes."""
    tolerance: float = TOLERANCE
    """How large both may be."""

    @property
    def max_abs_diff(self) -> float:
        """The larger of both; NaN if one of them is."""
        return float(np.max([self.resized_diff, self.direct_diff]))

    @property
    def passed(self) -> bool:
        """Whether both are within the tolerance."""
        return self.max_abs_diff <= self.tolerance


def draw_picture() -> NDArray[np.uint8]:
    """Return the picture, shape (72, 100, 3): waves with hard edges laid over them."""
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    waves = [128 + 110 * np.sin(x / (7 + k) + k) * np.cos(y / (11 - 2 * k)) for k in range(3)]
    pixels = np.stack(waves, axis=-1).round().astype(np.uint8)
    pixels[10:40, 15:50] = (230, 60, 20)
    pixels[30:66, 60:84, 1] = 200
    return pixels


def describe(probabilities: Sequence[float], *, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Return the metadata's `selftest`.

    Args:
        probabilities: What is answered to `draw_picture()`, one per class.
        tolerance: By how much another answer to it may differ.
    """
    return {
        "png": base64.b64encode(encode_png(draw_picture())).decode("ascii"),
        # Six digits: the last bits of a backend's sums may differ from run to run.
        "probabilities": [round(float(each), 6) for each in probabilities],
        "tolerance": tolerance,
    }


def check(selftest: Mapping[str, Any], predict: Predict, *, image_px: int) -> SelfTest:
    """Ask a model about the picture, as Pillow resizes it and as it is.

    Args:
        selftest: The metadata's `selftest`.
        predict: From pixels (1, h, w, 3) of any size to probabilities (1, classes).
        image_px: Side that Pillow resizes to, in pixels.

    Raises:
        ValueError: The picture or the probabilities are damaged.
    """
    try:
        pixels = images.decode(base64.b64decode(selftest["png"], validate=True)).pixels
    except (KeyError, TypeError, binascii.Error, images.UnreadableImageError) as error:
        raise ValueError(f"the self-test's picture is damaged ({error})") from error
    expected = np.array(selftest["probabilities"], np.float64)
    tolerance = float(selftest["tolerance"])

    def compare(shown: NDArray[np.uint8]) -> float:
        return float(np.abs(predict(shown[np.newaxis])[0] - expected).max())

    return SelfTest(
        resized_diff=compare(images.resize(pixels, image_px)),
        direct_diff=compare(pixels),
        tolerance=tolerance,
    )
