"""The bounds of the image checks on real pixels: good pictures pass, spoilt ones do not."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from components.dataset.measures import measure_bytes
from components.tables import LABEL_COLUMNS
from components.validation.config import ImageRules
from components.validation.expectations import Judge
from components.validation.images import images_suite, images_table


def _judge(files: dict[str, bytes]) -> dict[str, tuple[str, ...]]:
    """Return check -> offenders of image files."""
    rows = []
    for number, (name, data) in enumerate(files.items()):
        row = {"image_id": name, "file_name": name, "sha256": str(number), "num_bytes": len(data)}
        rows.append(row | measure_bytes(data).as_dict())
    quality = pd.DataFrame(rows)
    labels = pd.DataFrame({"image_id": list(files)}, columns=list(LABEL_COLUMNS))
    suite = images_suite(images_table(labels, quality), ImageRules())
    return {o.check.name: o.offenders for o in Judge().run(suite) if not o.success}


@pytest.fixture(scope="module")
def good(real_data: Path) -> dict[str, bytes]:
    """Return real pictures at 600 x 450 and at 150 x 150."""
    paths = sorted((real_data / "ham10000-mini" / "images").iterdir())[::12]
    files = {path.name: path.read_bytes() for path in paths}
    with zipfile.ZipFile(real_data / "melanoma-folders.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::25]
        files |= {name: archive.read(name) for name in names}
    return files


def test_no_real_picture_is_left_out_or_warned_of(good: dict[str, bytes]) -> None:
    assert len(good) > 90
    assert _judge(good) == {}


def _page_with_writing(picture: Image.Image) -> Image.Image:
    page = Image.new("RGB", picture.size, "white")
    ImageDraw.Draw(page).text((20, 20), "image not available", fill="black")
    return page


def _keyhole(picture: Image.Image) -> Image.Image:
    black = Image.new("RGB", picture.size)
    width, height = picture.size
    hole = picture.crop((width // 3, height // 3, 2 * width // 3, 2 * height // 3))
    black.paste(hole, (width // 3, height // 3))
    return black


SPOILT: dict[str, tuple[str, Callable[[Image.Image], Any]]] = {
    "one colour": ("images.contrast", lambda p: Image.new("RGB", p.size, (190, 140, 120))),
    "black": ("images.contrast", lambda p: Image.new("RGB", p.size)),
    "writing": ("images.entropy", _page_with_writing),
    "dark": ("images.brightness", lambda p: ImageEnhance.Brightness(p).enhance(0.15)),
    "overexposed": ("images.brightness", lambda p: p.point(lambda v: min(255, 225 + v // 4))),
    "blurred": ("images.sharpness", lambda p: p.filter(ImageFilter.GaussianBlur(12))),
    "grey": ("images.colourfulness", lambda p: p.convert("L")),
    "keyhole": ("images.vignette_share", _keyhole),
    "icon": ("images.shorter_side", lambda p: p.resize((24, 18))),
    "strip": ("images.aspect", lambda p: p.crop((0, 0, p.width, p.height // 4))),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_picture_is_found(what: str, good: dict[str, bytes]) -> None:
    check, spoil = SPOILT[what]
    picture = Image.open(io.BytesIO(next(iter(good.values())))).convert("RGB")
    buffer = io.BytesIO()
    spoil(picture).save(buffer, format="JPEG", quality=95)
    found = _judge({"good": next(iter(good.values())), what: buffer.getvalue()})
    assert found[check] == (what,)
    assert "good" not in str(found)
