from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from benchmarks.parts.lossless_jpeg import make_lossless_jpeg
from mnv2tl.data import image_decoder, images
from mnv2tl.data.images import UnreadableImageError

GOLDEN = Path(__file__).parent / "golden"


def draw(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Draw soft waves and one hard-edged block, alike on every machine."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 5 + y * 2, (x * y) // 3, x * x // 7 + y * 9], axis=-1) % 256
    pixels[height // 4 : height // 2, width // 3 : width // 2] = (250, 20, 30)
    return pixels.astype(np.uint8)


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    """Return an image file's bytes."""
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    size: tuple[int, int], *, depth: int, colour: int, data: bytes, extra: bytes = b""
) -> bytes:
    """Return a PNG written by hand: data holds the rows, each with its filter byte."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def digest(pixels: NDArray[np.uint8]) -> str:
    """Return the first digits of a hash over shape and levels."""
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]


def reason_of(content: bytes, **options: int) -> tuple[str, str]:
    """Return reason and message of the refusal of these bytes."""
    with pytest.raises(UnreadableImageError) as caught:
        images.decode(content, **options)
    return caught.value.reason, str(caught.value)


# ---- the resize rule


def triangle_pass(levels: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Resize the first axis with a triangle filter and half-pixel centres, in floats."""
    scale = levels.shape[0] / size
    centres = (np.arange(size) + 0.5) * scale
    distance = np.abs(np.arange(levels.shape[0]) + 0.5 - centres[:, None])
    weights = np.maximum(0, 1 - distance / max(scale, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.tensordot(weights, levels, axes=1)


def reference_resize(
    pixels: NDArray[np.uint8], px: int, axes: tuple[int, int]
) -> NDArray[np.int64]:
    """Resize along the axes in their order, rounding after each."""
    levels = pixels.astype(np.float64)
    for axis in axes:
        levels = np.floor(triangle_pass(levels.swapaxes(0, axis), px).swapaxes(0, axis) + 0.5)
    return levels.astype(np.int64)


SHAPES = [(48, 64), (300, 40), (40, 300), (5, 3), (1, 1), (24, 90), (97, 24), (23, 25)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("px", [24, 33])
def test_resize_is_the_stated_rule(shape: tuple[int, int], px: int) -> None:
    """An independent implementation in floats agrees, growing and shrinking."""
    pixels = draw(*shape)

    resized = images.resize(pixels, px)

    expected = reference_resize(pixels, px, (1, 0))
    assert resized.shape == (px, px, 3)
    # Pillow's weights are fixed-point, so a tie may be rounded the other way.
    assert np.abs(resized - expected).max() <= 1


@pytest.mark.parametrize("shape", [(301, 41), (41, 301), (47, 61)])
def test_resize_makes_the_horizontal_pass_first(shape: tuple[int, int]) -> None:
    """The order of the passes shows in the rounding."""
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)

    resized = images.resize(pixels, 24)

    horizontal_first = (resized != reference_resize(pixels, 24, (1, 0))).mean()
    vertical_first = (resized != reference_resize(pixels, 24, (0, 1))).mean()
    assert horizontal_first < 0.002 < 0.02 < vertical_first


def test_resize_gives_golden_levels() -> None:
    """Every supported Pillow gives the same bytes."""
    found = {f"{h}x{w}": digest(images.resize(draw(h, w), 24)) for h, w in SHAPES}

    assert found == {
        "48x64": "386b22457f60a789",
        "300x40": "0d7c5ba0b79335fa",
        "40x300": "69d98db607b2548b",
        "5x3": "4aed40a5e90756e9",
        "1x1": "dfc7554c5826d970",
        "24x90": "d90a8c57a6e156f8",
        "97x24": "f73717019a7a0055",
        "23x25": "89ddbfe0e812ab45",
    }


def test_resize_returns_pixels_of_that_size_as_they_are() -> None:
    """Resizing twice changes nothing."""
    pixels = draw(24, 24)

    assert images.resize(pixels, 24) is pixels


@pytest.mark.parametrize(
    ("pixels", "px", "message"),
    [
        (np.zeros((4, 4), np.uint8), 8, r"got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), 8, r"got uint8 \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), 8, r"got uint8 \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float32), 8, r"got float32 \(4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.uint8), 0, "image_px must be 1 or more, got 0"),
    ],
)
def test_resize_refuses_what_is_no_picture(
    pixels: NDArray[np.uint8], px: int, message: str
) -> None:
    """Floats from 0 to 1 would otherwise become black."""
    with pytest.raises(ValueError, match=message):
        images.resize(pixels, px)


# ---- decoding


def test_decode_gives_golden_levels() -> None:
    """Lossy formats decode to the same bytes with every supported Pillow."""
    found = {path.name: digest(images.read(path)) for path in sorted(GOLDEN.glob("wave*"))}

    assert found == {
        "wave-cmyk.jpg": "f80799431ee8fdf0",
        "wave-progressive.jpg": "5b8d58f8bd4915ab",
        "wave-rotated.jpg": "92d4601a28592401",
        "wave.jpg": "5b8d58f8bd4915ab",
        "wave.webp": "74cfcffc803646b0",
    }


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "WEBP"])
def test_decode_returns_the_levels_of_lossless_formats(format_name: str) -> None:
    """Nothing is done to a plain RGB picture."""
    options = {"lossless": True} if format_name == "WEBP" else {}

    decoded = images.decode(encode(Image.fromarray(draw()), format_name, **options))

    assert np.array_equal(decoded.pixels, draw())
    assert (decoded.format, decoded.width, decoded.height) == (format_name, 64, 48)
    assert decoded.warnings == ()
    assert not decoded.orientation_applied


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("format_name", ["PNG", "BMP", "GIF"])
def test_decode_converts_gray_and_palettes(mode: str, format_name: str) -> None:
    """One bit, gray and palette pictures become RGB with the colours they stand for."""
    image = Image.fromarray(draw()).convert(mode)

    decoded = images.decode(encode(image, format_name))

    assert np.array_equal(decoded.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP"])
def test_decode_applies_exif_orientation(orientation: int, format_name: str) -> None:
    """The result equals Pillow's own transposition of the same file."""
    exif = Image.Exif()
    exif[274] = orientation
    content = encode(Image.fromarray(draw()), format_name, exif=exif)

    decoded = images.decode(content)

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert np.array_equal(decoded.pixels, np.asarray(upright.convert("RGB")))
    assert (decoded.width, decoded.height) == upright.size
    assert decoded.orientation_applied == (orientation != 1)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("format_name", ["JPEG", "WEBP"])
def test_decode_does_not_rotate_by_malformed_exif(exif: bytes, format_name: str) -> None:
    """A broken note about a picture is no reason to lose the picture."""
    decoded = images.decode(encode(Image.fromarray(draw()), format_name, exif=exif))

    assert decoded.warnings == (image_decoder.BAD_EXIF,)
    assert decoded.pixels.shape == (48, 64, 3)


def test_decode_takes_the_high_byte_of_16_bit_gray() -> None:
    """Clipping would turn nearly every picture white."""
    levels = (np.arange(48 * 64, dtype=np.uint16) * 21).reshape(48, 64)

    decoded = images.decode(encode(Image.fromarray(levels), "PNG"))

    assert np.array_equal(decoded.pixels, np.stack([levels >> 8] * 3, axis=-1))


def test_decode_takes_the_high_byte_of_16_bit_colour_and_alpha() -> None:
    """One rule for all pictures with 16 bits."""
    half_red = b"\0" + struct.pack(">4H", 0xC8FF, 0x0A00, 0x1437, 0xFFFF) * 8

    decoded = images.decode(png((8, 8), depth=16, colour=6, data=half_red * 8))

    assert np.unique(decoded.pixels.reshape(-1, 3), axis=0).tolist() == [[0xC8, 0x0A, 0x14]]


@pytest.mark.parametrize(
    ("value", "level"), [(-5, 0), (255, 0), (256, 1), (65535, 255), (70000, 255)]
)
def test_decode_clips_32_bit_gray_to_16_bits(value: int, level: int) -> None:
    """No allowed format holds 32 bits today; the rule is there for when one does."""
    image = Image.fromarray(np.full((8, 8), value, np.int32))

    rgb = image_decoder._flatten(image, "RGB", is_16_bit=False)

    assert rgb.getpixel((0, 0)) == (level, level, level)


def alpha_cases() -> Iterator[tuple[str, bytes, list[int]]]:
    """Yield name, file and the expected first pixel."""
    rgba = Image.new("RGBA", (8, 8), (200, 100, 0, 128))
    half = [227, 177, 127]  # (200, 100, 0) at 128/255 over white, rounded
    yield "RGBA png", encode(rgba, "PNG"), half
    yield "RGBA webp", encode(rgba, "WEBP", lossless=True), half
    yield "LA", encode(Image.new("LA", (8, 8), (100, 51)), "PNG"), [224, 224, 224]
    yield "hidden", encode(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), "PNG"), [255, 255, 255]
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    yield "P key", encode(palette, "PNG", transparency=0), [255, 255, 255]
    yield "P other key", encode(palette, "PNG", transparency=1), [10, 20, 30]
    yield "P bytes", encode(palette, "PNG", transparency=b"\x80\xff"), [132, 137, 142]
    yield "P gif", encode(palette, "GIF", transparency=0), [255, 255, 255]
    gray = Image.new("L", (8, 8), 7)
    yield "L key", encode(gray, "PNG", transparency=7), [255, 255, 255]
    yield "L other key", encode(gray, "PNG", transparency=8), [7, 7, 7]
    yield "1 key", encode(Image.new("1", (8, 8), 0), "PNG", transparency=0), [255, 255, 255]
    rgb = Image.new("RGB", (8, 8), (1, 2, 3))
    yield "RGB key", encode(rgb, "PNG", transparency=(1, 2, 3)), [255, 255, 255]
    yield "RGB other key", encode(rgb, "PNG", transparency=(1, 2, 4)), [1, 2, 3]
    for name, key, level in (("I;16 key", 0x1234, 255), ("I;16 other key", 0x1235, 0x12)):
        data = (b"\0" + b"\x12\x34" * 8) * 8
        extra = chunk(b"tRNS", struct.pack(">H", key))
        yield name, png((8, 8), depth=16, colour=0, data=data, extra=extra), [level] * 3
    for name, key, level in (("RGB 16 key", 0x1234, 255), ("RGB 16 other key", 0x3412, 0x12)):
        data = (b"\0" + b"\x12\x34" * 24) * 8
        extra = chunk(b"tRNS", struct.pack(">3H", key, key, key))
        yield name, png((8, 8), depth=16, colour=2, data=data, extra=extra), [level] * 3


@pytest.mark.parametrize(
    ("content", "expected"), [pytest.param(*rest, id=name) for name, *rest in alpha_cases()]
)
def test_decode_lays_transparency_on_white(content: bytes, expected: list[int]) -> None:
    """Each way a file can say transparent ends on the same white ground."""
    assert images.decode(content).pixels[0, 0].tolist() == expected


def test_decode_converts_cmyk() -> None:
    """Inks of a JPEG, stored inverted as Adobe does, become the colours they print."""
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))

    decoded = images.decode(encode(image, "JPEG", quality=100))

    assert np.abs(decoded.pixels.astype(int) - (255, 0, 0)).max() <= 2  # JPEG is lossy


def test_decode_converts_ycck() -> None:
    """The Adobe marker's transform 2 says that the inks are stored as YCC and K."""
    luma, cb, cr, black = 150.0, 90.0, 160.0, 55
    inks = tuple(255 - int(stored) for stored in (luma, cb, cr, 255 - black))
    content = bytearray(encode(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100))
    content[content.index(b"Adobe") + 11] = 2

    decoded = images.decode(bytes(content))

    cyan = luma + 1.402 * (cr - 128)
    magenta = luma - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    yellow = luma + 1.772 * (cb - 128)
    expected = [(255 - ink) * (255 - black) / 255 for ink in (cyan, magenta, yellow)]
    assert np.abs(decoded.pixels[8, 8] - expected).max() <= 3  # JPEG is lossy


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "MPO"])
def test_decode_takes_the_first_frame(format_name: str) -> None:
    """An animation is counted, and used as its first picture."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format_name == "WEBP" else {}
    content = encode(frames[0], format_name, save_all=True, append_images=frames[1:], **options)

    decoded = images.decode(content)

    assert np.abs(decoded.pixels.astype(int) - (255, 0, 0)).max() <= 2  # MPO is lossy
    assert decoded.warnings == (image_decoder.ANIMATED,)
    assert decoded.format == {"MPO": "JPEG"}.get(format_name, format_name)


@pytest.mark.parametrize("size", [(1, 1), (50, 1), (7, 30)])
def test_decode_takes_small_pictures_with_a_warning(size: tuple[int, int]) -> None:
    """They are legal; that they hold nothing is for the user to hear."""
    decoded = images.decode(encode(Image.new("RGB", size), "PNG"))

    assert decoded.warnings == (image_decoder.SMALL,)


@pytest.mark.parametrize("size", [(51, 1), (1, 51), (8, 401)])
def test_decode_refuses_long_strips(size: tuple[int, int]) -> None:
    """Stretched to a square nothing of them would be left."""
    refused = reason_of(encode(Image.new("RGB", size), "PNG"))

    assert refused == ("aspect", f"aspect of {size[0]} x {size[1]} > 50:1")


@pytest.mark.parametrize("format_name", images.FORMATS)
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_decode_refuses_truncated_files(format_name: str, share: float) -> None:
    """Half a picture over gray is worse than no picture."""
    content = encode(Image.fromarray(draw()).convert("RGB"), format_name)
    cut = int(len(content) * share)

    reason, message = reason_of(content[:cut])

    # A GIF that ends inside its palette has no header that could be read.
    if (format_name, share) != ("GIF", 0.2):
        assert reason == "truncated"
        assert message == f"truncated: the {format_name} ends after {cut:,} bytes"


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"", "empty-file", "0 bytes"),
        (b"hello", "not-an-image", "not an image by its content"),
        (b"<svg/>", "not-an-image", "not an image by its content"),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
            "format-not-supported",
            "format HEIC not supported; convert to JPEG",
        ),
        (
            encode(Image.new("RGB", (8, 8)), "TIFF"),
            "format-not-supported",
            "format TIFF not supported; convert to JPEG",
        ),
        (b"BMW is a car", "damaged", "damaged BMP"),
        (
            png((8, 8), depth=8, colour=0, data=bytes(72)).replace(b"IHDR", b"IHDX"),
            "damaged",
            "damaged PNG: its header is not understood",
        ),
        (
            png((8, 8), depth=8, colour=0, data=bytes(72)).replace(b"IDAT\x78", b"IDAT\x79"),
            "damaged",
            "damaged PNG",
        ),
    ],
)
def test_decode_says_why_it_refuses(content: bytes, reason: str, message: str) -> None:
    """Each kind of unusable file has its own reason to be counted by."""
    found = reason_of(content)

    assert found[0] == reason
    assert message in found[1]
    assert " at 0x" not in found[1]  # an address would make two reports differ


def jpeg_of(size: tuple[int, int]) -> bytes:
    """Return a small JPEG whose header claims a size."""
    content = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG"))
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, size[1], size[0])
    return bytes(content)


def gif_of(size: tuple[int, int]) -> bytes:
    """Return a small GIF whose first frame claims a size."""
    content = bytearray(encode(Image.new("P", (16, 16)), "GIF"))
    struct.pack_into("<HH", content, content.rindex(b"\x2c\0\0\0\0\x10\0\x10\0") + 5, *size)
    return bytes(content)


def webp_of(size: tuple[int, int]) -> bytes:
    """Return a small lossless WebP whose header claims a size."""
    content = bytearray(encode(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    struct.pack_into("<I", content, 21, (size[0] - 1) | (size[1] - 1) << 14)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (png((20_000, 20_000), depth=8, colour=0, data=b""), 400_000_000),
        (png((2**31 - 1, 2**31 - 1), depth=8, colour=0, data=b""), (2**31 - 1) ** 2),
        (jpeg_of((60_000, 60_000)), 3_600_000_000),
        (gif_of((60_000, 60_000)), 3_600_000_000),
        (webp_of((16_000, 16_000)), 256_000_000),
        (png((12_000, 9_000), depth=8, colour=0, data=b""), 108_000_000),
    ],
)
def test_decode_refuses_bombs_from_the_header(content: bytes, pixels: int) -> None:
    """A small file that asks for gigabytes is refused before they are taken."""
    assert reason_of(content) == ("too-many-pixels", f"{pixels:,} pixels > limit 100,000,000")


def test_decode_keeps_to_the_pixel_limit_it_is_given() -> None:
    """The limit itself is allowed, one pixel more is not; Pillow's own setting stays."""
    before = Image.MAX_IMAGE_PIXELS
    content = encode(Image.fromarray(draw(40, 50)), "PNG")

    assert images.decode(content, max_pixels=2000).pixels.shape == (40, 50, 3)
    assert reason_of(content, max_pixels=1999)[1] == "2,000 pixels > limit 1,999"
    assert reason_of(content, max_pixels=900)[1] == "2,000 pixels > limit 900"
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_decode_refuses_text_bombs(kind: bytes) -> None:
    """Text of 64 MB, packed into 64 kB, has no place in a picture."""
    head = b"Comment\0\0" if kind == b"zTXt" else b"Comment\0\x01\0\0\0"
    bomb = chunk(kind, head + zlib.compress(bytes(2**26)))

    found = reason_of(png((8, 8), depth=8, colour=0, data=bytes(72), extra=bomb))

    assert found[0] == "too-large"


def test_decode_refuses_to_run_while_truncated_pictures_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some packages turn Pillow's check off for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)

    with pytest.raises(ValueError, match="LOAD_TRUNCATED_IMAGES must be False"):
        images.decode(encode(Image.fromarray(draw()), "PNG"))


@pytest.mark.parametrize("format_name", images.FORMATS)
def test_decode_of_damaged_bytes_ends_in_pixels_or_in_one_error(format_name: str) -> None:
    """Nothing else may come out of the decoder, warnings included."""
    rng = np.random.default_rng(0)
    content = encode(Image.fromarray(draw()), format_name)
    messages = []

    for _ in range(150):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 3):
            damaged[at] = rng.integers(256)
        try:
            images.decode(bytes(damaged), max_pixels=2**22)
        except UnreadableImageError as error:
            messages.append(error.message)

    assert messages
    assert all(message.isascii() for message in messages)


# ---- gray


def test_gray_refuses_what_rgb_refuses() -> None:
    """A scan decodes gray and a training RGB: what one takes the other must take."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(draw())
    seeds = [encode(image, name) for name in images.FORMATS]
    seeds += [encode(image, "JPEG", progressive=True), encode(image, "JPEG", keep_rgb=True)]
    seeds += [encode(image.convert("CMYK"), "JPEG"), encode(image, "JPEG", subsampling=0)]
    seeds += [make_lossless_jpeg(640, 480, components) for components in (1, 3)]
    verdicts = []

    for content in seeds * 40:
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(0, 4)):
            damaged[at] = rng.integers(256)
        damaged = damaged[: rng.integers(len(damaged) // 2, len(damaged) * 2)]
        rgb, gray = (_verdict(bytes(damaged), gray_px) for gray_px in (None, 1))
        assert rgb == gray
        verdicts.append(rgb)

    refused = sum(verdict[0] == "refused" for verdict in verdicts)
    assert 80 < refused < len(verdicts) - 80


def test_a_lossless_jpeg_is_read_in_gray_as_in_rgb() -> None:
    """It has no smaller sizes: Pillow 12.3, asked for one, writes beyond its buffer."""
    for components in (1, 3):
        content = make_lossless_jpeg(2000, 400, components)
        rgb, gray = (_verdict(content, gray_px) for gray_px in (None, 100))
        assert rgb == gray == ("read", 2000, 400, "JPEG", ())


def _verdict(content: bytes, gray_px: int | None) -> tuple[object, ...]:
    try:
        picture = images.open_picture(content, max_pixels=2**22, gray_px=gray_px)
    except UnreadableImageError as error:
        return "refused", error.reason, error.message
    return "read", picture.width, picture.height, picture.format, picture.warnings


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("mode", "format_name"),
    [
        *(("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("RGBA", "WEBP")),
        *(("RGB", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG")),
    ],
)
def test_gray_is_that_of_the_rgb_picture(mode: str, format_name: str, orientation: int) -> None:
    """Up to rounding: a JPEG holds luma itself, elsewhere it comes from the colours."""
    levels = np.linspace(60, 200, 64 * 48 * 4).astype(np.uint8).reshape(48, 64, 4)
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(levels, "RGBA").convert(mode)
    content = encode(image, format_name, exif=exif)

    gray = images.open_picture(content, gray_px=40).image
    rgb = images.open_picture(content).image

    assert (gray.mode, rgb.mode, gray.size) == ("L", "RGB", rgb.size)
    difference = np.asarray(rgb.convert("L")).astype(int) - np.asarray(gray)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_gray_of_a_large_jpeg_is_small_and_tells_the_real_size(orientation: int) -> None:
    """An eighth, a quarter or a half, as long as both sides keep what they need."""
    exif = Image.Exif()
    exif[274] = orientation
    content = encode(Image.new("RGB", (900, 700)), "JPEG", exif=exif)
    swapped = orientation == 6

    for gray_px, expected in ((87, (113, 88)), (88, (225, 175)), (200, (450, 350)), (400, None)):
        picture = images.open_picture(content, gray_px=gray_px)
        size = expected or (900, 700)
        assert picture.image.size == (size[::-1] if swapped else size)
        assert (picture.width, picture.height) == ((700, 900) if swapped else (900, 700))


# ---- files


def test_read_goes_by_content_and_not_by_name(tmp_path: Path) -> None:
    """A PNG that is called .jpg is a picture like any other."""
    path = tmp_path / "caf\udce9 <script>\n.jpg"
    path.write_bytes(encode(Image.fromarray(draw()), "PNG"))

    assert np.array_equal(images.read(path), draw())
    assert np.array_equal(images.read_resized(path, 24), images.resize(draw(), 24))


def test_read_resized_decodes_a_jpeg_in_full(tmp_path: Path) -> None:
    """A decoder's own shrinking while decoding would be another resize rule."""
    path = tmp_path / "large.jpg"
    path.write_bytes(encode(Image.fromarray(draw(400, 600)), "JPEG"))

    full = np.asarray(Image.open(path))

    assert np.array_equal(images.read_resized(path, 24), images.resize(full, 24))


@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "folder", "device", "missing", "below"])
def test_read_opens_nothing_but_regular_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe without a writer would hang a run for ever; a link may lead anywhere."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("x.jpg")
    Path("real.png").write_bytes(encode(Image.fromarray(draw()), "PNG"))
    if kind == "link":
        path.symlink_to("real.png")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "below":
        path = Path("real.png/x.jpg")

    with pytest.raises(UnreadableImageError) as caught:
        images.read(path)

    expected = "vanished" if kind in ("missing", "below") else "not-a-regular-file"
    assert caught.value.reason == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_read_names_a_missing_permission(tmp_path: Path) -> None:
    """The file is there, and another user's."""
    path = tmp_path / "x.png"
    path.write_bytes(encode(Image.fromarray(draw()), "PNG"))
    path.chmod(0)

    with pytest.raises(UnreadableImageError, match="permission denied"):
        images.read(path)


@pytest.mark.parametrize(
    ("size", "reason", "message"),
    [
        (0, "empty-file", "0 bytes"),
        (2**26 + 1, "too-large", "too large: 67,108,865 bytes > limit 67,108,864"),
    ],
)
def test_read_checks_the_size_before_reading(
    size: int, reason: str, message: str, tmp_path: Path
) -> None:
    """A file of terabytes costs no more than its name."""
    path = tmp_path / "x.png"
    with path.open("wb") as file:
        file.truncate(size)

    with pytest.raises(UnreadableImageError, match=message) as caught:
        images.read(path)

    assert caught.value.reason == reason


def test_read_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """A run over a million files must not run out of them."""
    good, bad = tmp_path / "good.png", tmp_path / "folder"
    good.write_bytes(encode(Image.fromarray(draw()), "PNG"))
    bad.mkdir()
    before = os.listdir("/dev/fd")

    for _ in range(3):
        images.read(good)
        with pytest.raises(UnreadableImageError):
            images.read(bad)

    assert os.listdir("/dev/fd") == before


def test_preprocessing_names_the_installed_rule() -> None:
    """Cache keys and exported files carry it, so a change of it must be seen."""
    assert images.PREPROCESSING["rule_version"] == 1
    assert images.pillow_version().split(".")[0].isdigit()
