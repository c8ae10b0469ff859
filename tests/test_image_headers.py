from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from benchmarks.parts.lossless_jpeg import make_lossless_jpeg
from mnv2tl.data import image_headers
from mnv2tl.data.image_headers import is_lossy_jpeg


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "WEBP"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif", "AVIF"),
        (b"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00mif1", "HEIF"),
        (b"\x00\x00\x00\x14ftypavif\x00\x00\x00\x00avif", "AVIF"),
        (b"\x00\x00\x00\x14ftypisom\x00\x00\x00\x00mp41", None),
        (b"\xff\xff\xff\xffftypisom", None),
        (b"II*\x00\x08\x00\x00\x00", "TIFF"),
        (b"MM\x00*\x00\x00\x00\x08", "TIFF"),
        (b"\xff\x0a\xfa", "JXL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JXL"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"\xc5\xd0\xd3\xc6", "EPS"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\x00\x01", "PSD"),
        (b"\x00\x00\x01\x00\x01\x00", "ICO"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"hello", None),
        (b"", None),
    ],
)
def test_format_of_knows_a_format_by_its_bytes(content: bytes, name: str | None) -> None:
    """The name of the file plays no part."""
    assert image_headers.format_of(content) == name


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {"lossless": False}),
        ("RGB", {"lossless": True}),
        ("RGBA", {"lossless": False}),
        ("RGB", {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"}),
    ],
)
def test_webp_size_is_the_size_that_pillow_finds(mode: str, options: dict[str, object]) -> None:
    """The three kinds of WebP header place their size differently."""
    file = io.BytesIO()
    Image.new(mode, (300, 17), (9, 99, 199, 20)[: len(mode)]).save(file, "WEBP", **options)

    assert image_headers.webp_size(file.getvalue()) == (300, 17)


def test_webp_size_of_a_cut_header_is_none() -> None:
    """A cut file is the decoder's to refuse."""
    assert image_headers.webp_size(b"RIFF\x00\x00\x00\x00WEBPVP8X") is None


@pytest.mark.parametrize("prefix", [b"", b"Exif\x00\x00"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_exif_orientation_is_read_in_both_byte_orders(prefix: bytes, order: str) -> None:
    """Cameras write either."""
    little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"

    exif = prefix + (little if order == "little" else big)

    assert image_headers.exif_orientation(exif) == 6


def test_exif_orientation_is_1_where_the_block_names_none() -> None:
    """Most EXIF blocks are about other things."""
    assert image_headers.exif_orientation(b"II*\0\x08\0\0\0\0\0") == 1


@pytest.mark.parametrize(
    ("exif", "message"),
    [
        (b"no exif at all", "TIFF header"),
        (b"II*\0\xff\xff\xff\xff", "cut off after 8 bytes"),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01", "cut off after 12 bytes"),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", "must be 1 to 8"),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x02\0\0\0\x06\0\x06\0", "must be 1 to 8"),
        (b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0", "must be 1 to 8"),
    ],
)
def test_exif_orientation_refuses_a_malformed_block(exif: bytes, message: str) -> None:
    """A block that lies about itself must not turn a picture."""
    with pytest.raises(ValueError, match=message):
        image_headers.exif_orientation(exif)


def _cut(*pieces: str) -> bytes:
    return bytes.fromhex("ffd8" + "".join(pieces))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_of_pillow_are_surely_lossy(mode: str, options: dict[str, Any]) -> None:
    """Also with a comment, a profile and EXIF before the frame."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    Image.new(mode, (40, 30)).save(
        file, "JPEG", comment=b"x\xff\xc3", exif=exif, icc_profile=b"y" * 70_000, **options
    )

    assert is_lossy_jpeg(file.getvalue())
    assert not is_lossy_jpeg(file.getvalue()[:30_000])


@pytest.mark.parametrize(
    "content",
    [
        make_lossless_jpeg(8, 8, 3),
        b"",
        _cut(),
        _cut("ff"),
        _cut("ffda"),  # no frame
        _cut("ffc3 0002", "ffc0 0002", "ffda"),  # lossless, then another
        _cut("ffc0 0002", "ffc3 0002", "ffda"),
        _cut("ffc0 0002", "ffc0 0002", "ffda"),
        _cut("ffe0 0002", "00", "ffc0 0002", "ffda"),  # a byte between two segments
        _cut("ffe0 0002", "ff", "ffc0 0002", "ffda"),  # a fill byte
        _cut("ffe0 0006 ffc0", "ffc3 0002", "ffda"),  # what looks like a frame is data
        _cut("ffc9 0002", "ffda"),  # arithmetic coding
        _cut("ffc0 0002"),  # no scan
    ],
)
def test_what_may_be_lossless_is_not_taken_for_lossy(content: bytes) -> None:
    """Whatever a reader might see otherwise counts as not sure."""
    assert not is_lossy_jpeg(content)
