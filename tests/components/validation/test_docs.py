"""Data Docs and contact sheets: readable without internet, the same bytes every time."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.validation.docs import write_docs
from components.validation.sheets import write_sheets
from components.validation.verdict import summary
from tests.originals import write_originals

HOSTILE = '<img src=x onerror="alert(1)">&amp;'


class _Loads(HTMLParser):
    """Collects what a page loads, and the tags that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag == "link"):
                self.loads.append(value or "")
            elif name == "href":
                self.links.append(value or "")


def _read(page: Path) -> _Loads:
    parser = _Loads()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


@pytest.fixture
def pages(tables: Any, judge_tables: Any, tmp_path: Path) -> dict[str, Path]:
    """Return the pages of a snapshot with findings of every kind and a hostile file name."""
    tables.undecodable("IMG_00", "empty file")
    tables.set("quality", "IMG_02", sharpness=1.0)
    tables.set("labels", "IMG_03", site=HOSTILE)
    tables.manifest["present_but_not_listed"] = [HOSTILE]
    judgement = judge_tables(tables)
    rng = np.random.default_rng(0)
    files = {"IMG_00.jpg": b""}
    for name in ("IMG_02", "IMG_03"):
        written = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(written, "JPEG")
        files[f"{name}.jpg"] = written.getvalue()
    write_originals(tmp_path / "images", files)
    sheets = write_sheets(judgement.outcomes, tmp_path / "images", tmp_path / "sheets")
    assert sheets == ["images.decodable", "images.sharpness"]
    document = summary(judgement.outcomes, 24, len(judgement.left_out), success=True)
    write_docs(judgement.judge, document, sheets, tmp_path / "docs")
    return {path.stem: path for path in sorted((tmp_path / "docs").glob("*.html"))}


def test_no_page_loads_anything_that_is_not_beside_it(pages: dict[str, Path]) -> None:
    assert set(pages) >= {"index", "schema", "labels", "images", "pairs", "classes"}
    for page in pages.values():
        read = _read(page)
        assert not read.tags & {"script", "link", "iframe", "object"}
        assert "url(" not in page.read_text()
        for target in (*read.loads, *read.links):
            assert not re.match(r"[a-z]+:|//", target), f"{page.name} reaches out to {target}"
            if not target.startswith("#"):
                assert (page.parent / target).is_file(), f"{page.name} links to {target}"


def test_the_pages_are_great_expectations_results_with_offenders(pages: dict[str, Path]) -> None:
    images = pages["images"].read_text()
    assert "every file is a whole image (images.decodable: quarantine)" in images
    assert "Evaluated Expectations" in images
    assert "IMG_00" in images
    assert "IMG_02" in images


def test_the_overview_has_every_check_and_the_contact_sheets(pages: dict[str, Path]) -> None:
    index = pages["index"].read_text()
    for name in ("images.decodable", "labels.age_years", "between.same_spot", "images.drift"):
        assert f"<code>{name}</code>" in index
    assert "24 images, 1 quarantined" in index
    assert _read(pages["index"]).loads == [
        "../sheets/images-decodable.png",
        "../sheets/images-sharpness.png",
    ]


def test_what_stands_in_the_data_cannot_become_markup(pages: dict[str, Path]) -> None:
    assert "onerror" in pages["files"].read_text()
    assert "onerror" in pages["labels"].read_text()
    for name, page in pages.items():
        assert HOSTILE not in page.read_text(), name
        images = [target for target in _read(page).loads if "sheets/" not in target]
        assert images == []


@pytest.mark.usefixtures("pages")
def test_a_sheet_shows_pictures_and_says_why_there_is_none(tmp_path: Path) -> None:
    broken = np.asarray(Image.open(tmp_path / "sheets" / "images-decodable.png"))
    blurred = np.asarray(Image.open(tmp_path / "sheets" / "images-sharpness.png"))
    # A tile of noise has many colours, a grey tile with text hardly any.
    tile = np.s_[60:210, 40:180]
    assert len(np.unique(blurred[tile].reshape(-1, 3), axis=0)) > 1000
    assert np.ptp(broken[tile].astype(int), axis=2).max() == 0
    assert broken[tile].min() < 100 < broken[tile].max()


def test_a_sheet_has_the_first_offenders_only(
    make_tables: Any, judge_tables: Any, tmp_path: Path
) -> None:
    tables = make_tables((5, 5, 5))  # 30 images, 24 fit
    tables.quality["sharpness"] = 1.0
    judgement = judge_tables(tables)
    write_sheets(judgement.outcomes, tmp_path / "none", tmp_path / "sheets")
    with Image.open(tmp_path / "sheets" / "images-sharpness.png") as sheet:
        assert sheet.size == (1256, 1114)
