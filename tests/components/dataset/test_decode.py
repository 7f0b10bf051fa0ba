"""Bytes to pixels: every kind of file that photographs come in, and every kind of damage."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps

from components.dataset.decode import PackSpec, UndecodableImage, decode_rgb, decode_to_square

CROP = PackSpec(32, "crop")


def photo(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    """A smooth, colourful picture without any symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4))
    return ImageOps.autocontrast(smooth)


def waves(width: int, height: int) -> Image.Image:
    """Waves on which a shift by a tenth of a packed pixel is ten grey levels."""
    y, x = np.mgrid[:height, :width]
    light = 128 + 60 * np.sin(x / 22) + 60 * np.sin(y / 17 + x / 90)
    return Image.fromarray(np.stack([light, light, 200 - light / 2], axis=2).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode_rgb(data).upright()).astype(int)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (20, 20), (500, 7), (1, 1)])
def test_any_aspect_becomes_a_square(fit: str, size: tuple[int, int]) -> None:
    squared = decode_to_square(encoded(photo(*size)), PackSpec(32, fit))
    assert squared.shape == (32, 32, 3)
    assert squared.dtype == np.uint8


def test_crop_keeps_the_middle() -> None:
    image = Image.new("RGB", (90, 30), "red")
    image.paste("lime", (30, 0, 60, 30))
    squared = decode_to_square(encoded(image), PackSpec(30, "crop"))
    assert (squared == (0, 255, 0)).all()


def test_pad_shows_all_of_it_between_black_bars() -> None:
    squared = decode_to_square(encoded(Image.new("RGB", (90, 30), "white")), PackSpec(30, "pad"))
    assert (squared[10:20] == 255).all()
    assert (squared[:10] == 0).all()
    assert (squared[20:] == 0).all()


def test_stretch_gives_up_the_aspect() -> None:
    image = Image.new("RGB", (80, 20), "red")
    image.paste("lime", (40, 0, 80, 20))
    squared = decode_to_square(encoded(image), PackSpec(20, "stretch"))
    assert (squared[:, :9] == (255, 0, 0)).all()
    assert (squared[:, 11:] == (0, 255, 0)).all()


def test_downscaling_is_antialiased() -> None:
    lines = np.zeros((256, 256, 3), np.uint8)
    lines[::2] = 255  # the finest pattern there is must become grey, not stripes
    squared = decode_to_square(encoded(Image.fromarray(lines)), PackSpec(64, "crop"))
    assert np.abs(squared[2:-2].astype(int) - 127).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} | ({"quality": 95} if kind == "JPEG" else {})
    data = encoded(photo(), kind, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (pixels(data) == np.asarray(upright.convert("RGB"))).all()
    assert decode_rgb(data).upright_size == upright.size


@pytest.mark.parametrize(
    ("mode", "kind", "bound"),
    [("CMYK", "TIFF", 0), ("CMYK", "JPEG", 4), ("YCbCr", "TIFF", 4), ("RGB", "BMP", 0)],
)
def test_colour_modes_become_rgb(mode: str, kind: str, bound: int) -> None:
    options = {"quality": 98} if kind == "JPEG" else {}
    data = encoded(photo().convert(mode), kind, **options)
    assert decode_rgb(data).mode == mode
    assert np.abs(pixels(data) - np.asarray(photo()).astype(int)).mean() <= bound


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA"])
def test_grey_and_palette_become_rgb(mode: str) -> None:
    image = photo().convert(mode)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels(encoded(image)) == expected).all()


def test_sixteen_bits_become_eight_by_scaling_not_by_clipping() -> None:
    grey = np.asarray(photo().convert("L"))
    data = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    assert decode_rgb(data).mode.startswith("I;16")
    assert (pixels(data)[..., 0] == grey).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_known_range_are_refused(mode: str) -> None:
    with pytest.raises(UndecodableImage, match="no known range"):
        decode_rgb(encoded(photo().convert(mode), "TIFF"))


def test_what_is_transparent_lies_on_white() -> None:
    image = photo().convert("RGBA")
    image.putalpha(0)
    assert (pixels(encoded(image)) == 255).all()


def test_a_transparent_palette_colour_lies_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 4, 8))
    found = pixels(encoded(image, transparency=0))
    assert (found[:, :4] == (255, 0, 0)).all()
    assert (found[:, 4:] == 255).all()


def test_of_several_frames_the_first_counts() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert (pixels(data) == (255, 0, 0)).all()


JPEG = encoded(photo(), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"image_id,dx\nISIC_1,nv\n" * 50, "not an image"),
        (b"%PDF-1.7" + bytes(200), "not an image"),
        (bytes(1000), "not an image"),
        (JPEG[:40], "truncated|not an image|damaged"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:-2], "truncated"),
        (JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2), "truncated"),
        (encoded(photo())[:800], "truncated"),
        (encoded(photo(), "WEBP")[:300], "truncated|damaged"),
    ],
)
def test_damage_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImage, match=reason) as caught:
        decode_to_square(data, CROP)
    assert caught.value.reason == str(caught.value)
    assert "\n" not in caught.value.reason


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A PNG whose header promises `width` × `height` pixels and whose data are a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("side", [8_100, 50_000])
def test_huge_dimensions_are_refused_before_memory_is_asked_for(side: int) -> None:
    with pytest.raises(UndecodableImage, match="too large"):
        decode_to_square(png_of_claimed_size(side, side), CROP)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1001, 780), (780, 1007)])
def test_reduced_scale_jpeg_decoding_stays_close_to_the_full_one(
    fit: str, orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(waves(*size), "JPEG", quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    reduced = decode_to_square(data, PackSpec(32, fit)).astype(int)
    full = decode_to_square(encoded(upright.convert("RGB")), PackSpec(32, fit)).astype(int)
    assert np.abs(reduced - full).mean() < 0.6
    assert np.abs(reduced - full).max() <= 8  # at an edge that ends within a block


def test_reduced_scale_is_really_used_and_keeps_thrice_the_target() -> None:
    data = encoded(photo(1000, 700), "JPEG")
    for keep, at_least, size in (
        ("short", 29, (125, 88)),
        ("short", 30, (250, 175)),
        ("short", 100, (500, 350)),
        ("short", 120, (1000, 700)),
        ("long", 166, (500, 350)),
        ("long", 167, (1000, 700)),
    ):
        decoded = decode_rgb(data, keep=keep, at_least=at_least)
        assert decoded.image.size == size
        assert decoded.upright_size == (1000, 700)
    assert decode_rgb(encoded(photo(1000, 700)), at_least=29).image.size == (1000, 700)


def test_a_truncated_jpeg_is_refused_at_reduced_scale_too() -> None:
    data = encoded(photo(1000, 700), "JPEG")
    with pytest.raises(UndecodableImage, match="truncated"):
        decode_to_square(data[: len(data) * 3 // 4], CROP)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 400), st.sampled_from(["JPEG", "PNG", "GIF"]))
def test_hostile_bytes_are_refused_or_decoded_and_nothing_else(
    junk: bytes, position: int, kind: str
) -> None:
    whole = encoded(photo(24, 16), kind)
    try:
        squared = decode_to_square(whole[:position] + junk + whole[position + len(junk) :], CROP)
    except UndecodableImage as error:
        assert error.reason
    else:
        assert squared.shape == (32, 32, 3)


def test_reduced_scale_is_exact_enough_on_real_images(real_data: Path) -> None:
    for path in sorted((real_data / "ham10000-mini" / "images").iterdir())[:10]:
        data = path.read_bytes()
        reduced = decode_to_square(data, PackSpec(74, "crop")).astype(int)
        full = decode_to_square(encoded(decode_rgb(data).image), PackSpec(74, "crop")).astype(int)
        assert np.abs(reduced - full).mean() < 0.25
        assert np.abs(reduced - full).max() <= 5


def test_real_images_at_two_sizes(real_data: Path) -> None:
    path = sorted((real_data / "ham10000-mini" / "images").iterdir())[0]
    data = path.read_bytes()
    decoded = decode_rgb(data)
    assert (decoded.upright_size, decoded.mode) == ((600, 450), "RGB")
    squared = decode_to_square(data, PackSpec(64, "crop")).astype(float)
    middle = decoded.image.crop((75, 0, 525, 450)).resize((64, 64), Image.Resampling.BOX)
    assert np.abs(squared - np.asarray(middle)).mean() < 2
