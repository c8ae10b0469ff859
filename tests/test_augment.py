from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv2tl.data import augment as augment_module
from mnv2tl.data.augment import PRESETS, AugmentConfig, View, augment, draw_view, render

WIDEST = AugmentConfig(
    rotation_degrees=180, shift=0.5, zoom=0.9, horizontal_flip=True, brightness=1
)


def draw(side: int = 32) -> NDArray[np.uint8]:
    """Draw soft waves and a hard-edged block off the middle."""
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([x * 5 + y, x * y // 4, x + y * 7], axis=-1) % 256
    pixels[side // 8 : side // 3, side // 2 : side - 4] = (250, 20, 30)
    return pixels.astype(np.uint8)


def middle_of(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Return x and y of the middle of what is bright, in pixels."""
    weights = pixels[..., 0].astype(float)
    y, x = np.mgrid[0 : len(weights), 0 : len(weights)] + 0.5
    return float((x * weights).sum() / weights.sum()), float((y * weights).sum() / weights.sum())


def dot(x: int, y: int, side: int = 64) -> NDArray[np.uint8]:
    """Draw one white dot of 4 x 4 pixels on black, from (x, y)."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[y : y + 4, x : x + 4] = 255
    return pixels


def reference(pixels: NDArray[np.uint8], view: View) -> NDArray[np.float64]:
    """Sample a view in floats, with coordinates clamped to the picture."""
    side = len(pixels)
    y, x = np.mgrid[0:side, 0:side] + 0.5
    x, y = x - (0.5 + view.shift_x) * side, y - (0.5 + view.shift_y) * side
    angle = np.radians(view.degrees)
    u = (np.cos(angle) * x - np.sin(angle) * y) / view.scale
    v = (np.sin(angle) * x + np.cos(angle) * y) / view.scale
    u = (-u if view.is_flipped else u) + side / 2 - 0.5
    v = v + side / 2 - 0.5
    u, v = u.clip(0, side - 1), v.clip(0, side - 1)
    left, top = np.minimum(u.astype(int), side - 2), np.minimum(v.astype(int), side - 2)
    du, dv = (u - left)[..., None], (v - top)[..., None]
    levels = pixels.astype(float)
    upper = levels[top, left] * (1 - du) + levels[top, left + 1] * du
    lower = levels[top + 1, left] * (1 - du) + levels[top + 1, left + 1] * du
    return np.asarray(upper * (1 - dv) + lower * dv)


@pytest.mark.parametrize("preset", ["light", "strong"])
def test_render_is_one_bilinear_warp_with_the_edge_repeated(preset: str) -> None:
    """An independent implementation that clamps coordinates agrees."""
    for number in range(20):
        view = draw_view(PRESETS[preset], seed=0, sha256="ab", view=number)

        found = render(draw(), replace(view, brightness=1.0))

        # Pillow cuts a level to a whole number; the reference does not.
        difference = reference(draw(), view) - found
        assert difference.min() > -1e-6
        assert difference.max() < 1 + 1e-6


def test_augment_gives_golden_levels() -> None:
    """Every supported Pillow and NumPy gives the same bytes."""
    found = {
        name: hashlib.sha256(
            b"".join(
                augment(draw(), config, seed=3, sha256="ab" * 32, view=view).tobytes()
                for view in range(4)
            )
        ).hexdigest()[:16]
        for name, config in {**PRESETS, "widest": WIDEST}.items()
    }

    assert found == {
        "none": "2e4f508c6501cf15",
        "light": "f3c21662f220cfe5",
        "strong": "a5185e1dc8fec69f",
        "widest": "eb2cebee5a4d3d6e",
    }


def test_augment_depends_on_its_arguments_only() -> None:
    """A view can be made again, in any order."""
    numbers = [4, 0, 2, 0, 4]
    views = [augment(draw(), PRESETS["strong"], seed=1, sha256="ab", view=n) for n in numbers]

    assert np.array_equal(views[0], views[4])
    assert np.array_equal(views[1], views[3])
    assert not np.array_equal(views[0], views[1])


@pytest.mark.parametrize("preset", ["light", "strong"])
def test_augment_differs_by_seed_picture_and_view(preset: str) -> None:
    """No two of many views are equal, and none is the picture itself."""
    found = {
        augment(draw(), PRESETS[preset], seed=seed, sha256=sha256, view=view).tobytes()
        for seed, sha256, view in itertools.product((0, 1), ("ab", "cd"), range(8))
    }

    assert len(found | {draw().tobytes()}) == 33


def test_augment_without_any_difference_returns_the_pixels() -> None:
    """The preset none costs nothing."""
    pixels = draw()

    assert augment(pixels, PRESETS["none"], seed=0, sha256="ab", view=3) is pixels
    assert augment(pixels, AugmentConfig(), seed=0, sha256="ab", view=3) is pixels


@pytest.mark.parametrize("side", [1, 2, 31, 32])
def test_render_of_the_plain_view_is_the_picture(side: int) -> None:
    """The warp neither blurs nor moves what it need not."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)

    assert np.array_equal(render(pixels, View()), pixels)
    assert np.array_equal(render(pixels, View(is_flipped=True)), pixels[:, ::-1])


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_render_rotates_counter_clockwise(degrees: float, turns: int) -> None:
    """Positive degrees turn as in mathematics, with y up."""
    found = render(draw(), View(degrees=degrees))

    # Sine and cosine miss 0 and 1 by a hair, and Pillow cuts levels to whole numbers.
    assert np.abs(found - np.rot90(draw(), turns).astype(int)).max() <= 1


def test_render_flips_before_it_rotates() -> None:
    """The order is part of the rule."""
    found = render(draw(), View(degrees=90, is_flipped=True))

    # As above: one level is lost where a sine misses 0.
    assert np.abs(found - np.rot90(draw()[:, ::-1]).astype(int)).max() <= 1


@pytest.mark.parametrize(("shift_x", "shift_y"), [(0.25, 0.0), (0.0, -0.25), (0.125, 0.25)])
def test_render_shifts_right_and_down(shift_x: float, shift_y: float) -> None:
    """Whole pixels are exact; the edge fills what was left behind."""
    found = render(draw(), View(shift_x=shift_x, shift_y=shift_y))

    x, y = int(shift_x * 32), int(shift_y * 32)
    rows = (np.arange(32) - y).clip(0, 31)
    columns = (np.arange(32) - x).clip(0, 31)
    assert np.array_equal(found, draw()[rows][:, columns])


def test_render_scales_about_the_middle() -> None:
    """A dot moves away from the middle when the picture is enlarged, and back when it shrinks."""
    for scale, expected in ((1.5, 32 - 12 * 1.5), (0.5, 32 - 12 * 0.5), (0.25, 32 - 12 * 0.25)):
        x, y = middle_of(render(dot(18, 18), View(scale=scale)))

        assert x == pytest.approx(expected, abs=0.05)
        assert y == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(("factor", "expected"), [(0.0, 0), (0.5, 50), (1.3, 130), (2.0, 200)])
def test_render_multiplies_levels_and_clips_them(factor: float, expected: int) -> None:
    """Brightness never wraps round."""
    pixels = np.full((8, 8, 3), 100, np.uint8)
    pixels[0] = 250

    found = render(pixels, View(brightness=factor))

    assert (found[1:] == expected).all()
    assert (found[0] == min(255, 250 * factor)).all()


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.9])
@pytest.mark.parametrize("degrees", [0, 45, 180])
@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_render_brings_in_no_foreign_colour(scale: float, degrees: float, shift: float) -> None:
    """However far a view reaches, outside the picture there is its own border."""
    pixels = np.full((32, 32, 3), (40, 90, 200), np.uint8)

    view = View(scale=scale, degrees=degrees, shift_x=shift, shift_y=-shift)

    assert np.array_equal(render(pixels, view), pixels)


def test_augment_brings_in_no_foreign_colour_at_the_widest_settings() -> None:
    """The same over many drawn views of a picture with a plain border."""
    pixels = np.full((32, 32, 3), 77, np.uint8)
    pixels[12:20, 12:20] = 200
    config = AugmentConfig(rotation_degrees=180, shift=0.5, zoom=0.9, horizontal_flip=True)

    for view in range(100):
        found = augment(pixels, config, seed=0, sha256="ab", view=view)

        assert found.min() >= 77
        assert found.max() <= 200


def test_draw_view_flips_every_second_view() -> None:
    """Over 2000 views the share is a half within four standard deviations."""
    views = [draw_view(PRESETS["light"], seed=0, sha256="ab", view=n) for n in range(2000)]

    assert sum(view.is_flipped for view in views) == pytest.approx(1000, abs=90)


@pytest.mark.parametrize("preset", ["light", "strong"])
def test_draw_view_stays_within_its_ranges_and_uses_them(preset: str) -> None:
    """Each amount lies between its limits, on both sides of the plain view."""
    config = PRESETS[preset]
    views = [draw_view(config, seed=0, sha256="ab", view=number) for number in range(500)]

    for name, plain, limit in (
        ("degrees", 0, config.rotation_degrees),
        ("shift_x", 0, config.shift),
        ("shift_y", 0, config.shift),
        ("scale", 1, config.zoom),
        ("brightness", 1, config.brightness),
    ):
        amounts = np.array([getattr(view, name) for view in views]) - plain
        assert np.abs(amounts).max() <= limit
        assert amounts.max() >= 0.9 * limit
        assert amounts.min() <= -0.9 * limit


def test_draw_view_draws_each_amount_on_its_own() -> None:
    """Turning the flip off leaves rotation, shift and zoom as they were."""
    without = AugmentConfig(rotation_degrees=20, shift=0.1, zoom=0.1)

    for number in range(10):
        one = draw_view(PRESETS["light"], seed=0, sha256="ab", view=number)
        other = draw_view(without, seed=0, sha256="ab", view=number)
        assert replace(one, is_flipped=False) == other


@pytest.mark.parametrize(
    ("name", "limit"),
    [("rotation_degrees", 180), ("shift", 0.5), ("zoom", 0.9), ("brightness", 1)],
)
def test_config_refuses_amounts_outside_their_range(name: str, limit: float) -> None:
    """The limit itself is allowed; NaN is not."""
    settings: dict[str, Any] = {name: limit}

    assert getattr(AugmentConfig(**settings), name) == limit
    for value in (-0.01, limit + 0.01, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must be from 0 to {limit}, got {value}"):
            AugmentConfig(**{**settings, name: value})


@pytest.mark.parametrize("preset", PRESETS)
def test_config_comes_back_from_its_json(preset: str) -> None:
    """What a run saves is what it used."""
    saved: dict[str, Any] = PRESETS[preset].to_json()

    assert AugmentConfig(**saved) == PRESETS[preset]


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)],
)
def test_render_refuses_what_is_no_square_picture(pixels: NDArray[np.uint8]) -> None:
    """Pictures are resized first."""
    with pytest.raises(ValueError, match=r"must be uint8 of shape \(side, side, 3\), got"):
        render(pixels, View())


def test_rule_version_is_a_number() -> None:
    """Cache keys hold it."""
    assert augment_module.RULE_VERSION == 1
