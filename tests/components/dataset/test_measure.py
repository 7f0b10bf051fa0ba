"""One row per listed image, whatever is wrong with its file; nothing is measured twice."""

from __future__ import annotations

import hashlib
import io
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFilter

from components.dataset import measure
from components.dataset.measure import measure_images
from components.dataset.measures import Measures, measure_bytes
from components.dataset.originals import Original
from components.errors import SourceError
from components.tables import write_table
from tests.originals import write_originals

NUMBERS = ("brightness", "contrast", "sharpness", "entropy", "colourfulness", "vignette_share")


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(seed: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3)).save(buffer, "JPEG")
    return buffer.getvalue()


def checkerboard(width: int = 64, height: int = 48) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(((x + y) % 2 * 255).astype(np.uint8)).convert("RGB")


def snapshot(folder: Path, files: dict[str, bytes]) -> pd.DataFrame:
    """Write `files` and return a labels table that lists them and what ingest hashed."""
    write_originals(folder, files)
    return pd.DataFrame(
        {
            "image_id": [Path(name).stem for name in files],
            "sha256": [hashlib.sha256(data).hexdigest() for data in files.values()],
        }
    )


# --- the formulas ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_picture_has_its_brightness_and_nothing_else(level: int) -> None:
    found = measure_bytes(png(Image.new("RGB", (40, 30), (level,) * 3)))
    assert found.brightness == pytest.approx(level / 255)
    assert (found.contrast, found.sharpness, found.entropy) == (0, 0, 0)
    assert found.colourfulness == 0
    assert found.vignette_share == (1 if level == 0 else 0)
    assert (found.width, found.height, found.aspect) == (40, 30, 40 / 30)
    assert (found.format, found.mode) == ("PNG", "RGB")


def test_a_checkerboard_has_the_values_that_the_formulas_give() -> None:
    found = measure_bytes(png(checkerboard()))
    assert found.brightness == pytest.approx(0.5)
    assert found.contrast == pytest.approx(0.5)
    assert found.entropy == pytest.approx(1)
    assert found.sharpness == pytest.approx((4 * 255) ** 2)


def test_colourfulness_of_two_opponent_colours() -> None:
    image = Image.new("RGB", (40, 40), (255, 0, 0))
    image.paste((0, 255, 0), (0, 0, 20, 40))
    # rg is +-255 (mean 0, deviation 255); yb is 127.5 everywhere (mean 127.5, deviation 0)
    assert measure_bytes(png(image)).colourfulness == pytest.approx(255 + 0.3 * 127.5)


def test_blur_lowers_sharpness_and_grey_lowers_colour() -> None:
    image = checkerboard()
    sharp = measure_bytes(png(image))
    blurred = measure_bytes(png(image.filter(ImageFilter.GaussianBlur(2))))
    assert sharp.sharpness is not None and blurred.sharpness is not None
    assert blurred.sharpness < sharp.sharpness / 2
    photo = Image.open(io.BytesIO(jpeg()))
    assert measure_bytes(png(photo)).colourfulness != 0
    assert measure_bytes(png(photo.convert("L"))).colourfulness == 0


def test_vignette_counts_what_hangs_together_with_a_corner() -> None:
    image = Image.new("RGB", (100, 100), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 40, 59, 59), fill="black")  # a dark lesion in the middle
    assert measure_bytes(png(image)).vignette_share == 0
    draw.rectangle((0, 0, 9, 19), fill="black")
    draw.rectangle((90, 90, 99, 99), fill="black")
    assert measure_bytes(png(image)).vignette_share == pytest.approx(0.03)


def test_measures_hardly_depend_on_the_resolution() -> None:
    large = Image.open(io.BytesIO(jpeg(size=(1024, 768)))).filter(ImageFilter.GaussianBlur(8))
    one = measure_bytes(png(large))
    half = measure_bytes(png(large.resize((512, 384), Image.Resampling.BICUBIC)))
    for name in NUMBERS:
        assert getattr(one, name) == pytest.approx(getattr(half, name), rel=0.05, abs=0.01), name


def test_perceptual_hash_survives_compression_and_tells_pictures_apart() -> None:
    image = Image.open(io.BytesIO(jpeg(1, (300, 200)))).filter(ImageFilter.GaussianBlur(6))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    hashes = [measure_bytes(data).phash for data in (png(image), buffer.getvalue(), jpeg(2))]
    bits = [int(str(value), 16) for value in hashes]
    assert [len(str(value)) for value in hashes] == [16] * 3
    assert (bits[0] ^ bits[1]).bit_count() <= 4
    assert (bits[0] ^ bits[2]).bit_count() >= 12


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 300), (3, 2)])
def test_tiny_pictures_are_measured_too(size: tuple[int, int]) -> None:
    found = measure_bytes(png(Image.new("RGB", size, "red")))
    assert found.decodes
    assert all(math.isfinite(getattr(found, name)) for name in NUMBERS)


# --- the stage ---------------------------------------------------------------------------------


def test_every_listed_image_has_a_row_and_every_damage_its_name(tmp_path: Path) -> None:
    whole = jpeg()
    labels = snapshot(
        tmp_path / "images",
        {
            "truncated.jpg": whole[: len(whole) // 2],
            "good.jpg": whole,
            "empty.jpg": b"",
            "text.jpg": b"this is no picture",
        },
    )
    absent = pd.DataFrame({"image_id": ["absent"], "sha256": [None]})
    table = measure_images(pd.concat([labels, absent]), tmp_path / "images", tmp_path / "cache")
    assert list(table["image_id"]) == ["absent", "empty", "good", "text", "truncated"]
    rows = table.set_index("image_id")
    assert rows["decodes"].to_dict() == {
        "absent": False,
        "empty": False,
        "good": True,
        "text": False,
        "truncated": False,
    }
    assert rows.at["absent", "problem"] == "file is absent"
    assert rows.at["empty", "problem"] == "empty file"
    assert rows.at["text", "problem"].startswith("not an image")
    assert rows.at["truncated", "problem"].startswith("truncated")
    assert pd.isna(rows.at["good", "problem"])
    assert pd.isna(rows.at["absent", "file_name"]) and pd.isna(rows.at["absent", "sha256"])
    assert rows.at["good", "file_name"] == "good.jpg"
    assert rows.at["good", "sha256"] == hashlib.sha256(whole).hexdigest()
    assert rows.at["good", "num_bytes"] == len(whole)
    broken = rows[~rows["decodes"]]
    assert broken[["width", "height", "phash", *NUMBERS]].isna().all(axis=None)
    assert rows.loc["good", ["width", "height", "phash", *NUMBERS]].notna().all()


def test_the_table_depends_on_the_files_only_and_keeps_its_types(tmp_path: Path) -> None:
    labels = snapshot(tmp_path / "images", {f"i{n}.jpg": jpeg(n) for n in range(4)})
    first = measure_images(labels, tmp_path / "images", tmp_path / "one")
    again = measure_images(labels[::-1], tmp_path / "images", tmp_path / "one")  # from the cache
    write_table(first, tmp_path / "first.parquet")
    write_table(again, tmp_path / "again.parquet")
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    alone = labels.head(0)
    assert dict(measure_images(alone, tmp_path / "images", tmp_path / "one").dtypes) == dict(
        first.dtypes
    )


def test_what_was_measured_is_not_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {f"i{n}.jpg": jpeg(n) for n in range(3)}
    measure_images(snapshot(tmp_path / "images", files), tmp_path / "images", tmp_path / "cache")
    capsys.readouterr()
    files["renamed.jpg"] = files.pop("i0.jpg")
    labels = snapshot(tmp_path / "images", files | {"new.jpg": jpeg(9)})
    table = measure_images(labels, tmp_path / "images", tmp_path / "cache")
    printed = capsys.readouterr().out
    assert "4 images listed, 1 new to measure" in printed
    assert "progress measure: 1/1 images" in printed
    assert table["decodes"].all()


def test_a_file_that_changed_since_it_was_ingested_is_refused(tmp_path: Path) -> None:
    labels = snapshot(tmp_path / "images", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    write_originals(tmp_path / "images", {"a.jpg": jpeg(1), "b.jpg": jpeg(3)})
    with pytest.raises(SourceError, match=r"1 files changed .*: b"):
        measure_images(labels, tmp_path / "images", tmp_path / "cache")


def test_files_that_were_ingested_and_are_gone_are_named(tmp_path: Path) -> None:
    labels = snapshot(tmp_path / "images", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    write_originals(tmp_path / "images", {"a.jpg": jpeg(1)})
    with pytest.raises(SourceError, match=r"1 files changed or are gone .*: b"):
        measure_images(labels, tmp_path / "images", tmp_path / "cache")


def test_measures_survive_the_cache_to_the_last_bit() -> None:
    import json

    found = measure_bytes(jpeg())
    assert Measures(**json.loads(json.dumps(found.as_dict()))) == found


def out_of_memory(file: Original) -> Measures:
    """End the process as the kernel does with one that takes too much memory."""
    if file.name == "b.jpg":
        os._exit(137)
    return measure.measure_file(file)


def test_a_crash_is_told_and_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = snapshot(tmp_path / "images", {"a.jpg": jpeg(0), "b.jpg": jpeg(1)})
    with monkeypatch.context() as patch:
        patch.setattr(measure, "measure_file", out_of_memory)
        found = measure_images(labels, tmp_path / "images", tmp_path / "cache")
    assert list(found["decodes"]) == [True, False]
    assert "crashed" in found["problem"][1]
    again = measure_images(labels, tmp_path / "images", tmp_path / "cache")
    assert list(again["decodes"]) == [True, True]
