"""Which mistakes are shown, and how photographs get onto the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from components.dataset.originals import list_originals
from components.evaluation.prediction_table import Predictions, parse_predictions
from components.evaluation.report_pictures import (
    joined_pairs,
    most_confident_mistakes,
    overlay,
    surest_first,
    thumbnail,
)
from components.tables import PAIR_COLUMNS
from tests.originals import write_originals


def _table(rows: list[tuple[str, str, str, float]]) -> Predictions:
    """Image, group, diagnosis, probability of nv; the rest goes to mel."""
    frame = pd.DataFrame(rows, columns=["image_id", "group_id", "diagnosis", "p_nv"])
    frame["p_mel"] = 1 - frame["p_nv"]
    return parse_predictions(frame, ["nv", "mel"])


def _shown(table: Predictions) -> list[str]:
    return [str(table.image_ids[row]) for row in most_confident_mistakes(table)]


def test_missed_cancers_come_first_then_the_surest_mistakes_one_per_lesion() -> None:
    table = _table(
        [
            ("right", "g0", "nv", 0.99),
            ("false alarm", "g1", "nv", 0.01),
            ("missed", "g2", "mel", 0.70),
            ("missed, surer", "g3", "mel", 0.90),
            ("missed, same lesion", "g3", "mel", 0.80),
        ]
    )
    assert _shown(table) == ["missed, surer", "missed", "false alarm"]


def test_at_most_eight_of_which_at_most_four_are_reserved_for_missed_cancers() -> None:
    missed = [(f"missed {n}", f"m{n}", "mel", 0.6 + n / 100) for n in range(6)]
    alarms = [(f"alarm {n}", f"a{n}", "nv", 0.1 - n / 100) for n in range(8)]
    shown = _shown(_table(missed + alarms))
    assert shown[:4] == ["missed 5", "missed 4", "missed 3", "missed 2"]
    assert shown[4:] == ["alarm 7", "alarm 6", "alarm 5", "alarm 4"]


def test_pairs_are_shown_from_the_surest_to_the_most_doubtful() -> None:
    joined = pd.DataFrame(
        {
            "image_id_a": [f"a{n}" for n in range(20)],
            "image_id_b": [f"b{n}" for n in range(20)],
            "evidence": "same spot",
            "similarity": 0.9,
            "inliers": range(20),
        }
    )
    shown = [pair["inliers"] for pair in joined_pairs(joined, {})]
    assert (shown[0], shown[-1], len(shown)) == (19, 0, 6)


def test_equal_files_and_pixels_are_surer_than_any_number_of_matching_points() -> None:
    rows = [
        ("a", "b", "same spot", 0.9, 60),
        ("c", "d", "same pixels", 1.0, 0),
        ("e", "f", "same spot", 0.9, 61),
        ("g", "h", "same bytes", 1.0, 0),
    ]
    pairs = pd.DataFrame(rows, columns=list(PAIR_COLUMNS))
    ordered = surest_first(pairs)
    assert list(ordered["image_id_a"]) == ["c", "g", "e", "a"]
    assert list(ordered.columns) == list(PAIR_COLUMNS)
    assert surest_first(pairs.iloc[::-1]).equals(ordered)


def test_a_thumbnail_keeps_the_aspect_and_a_broken_file_has_none(tmp_path: Path) -> None:
    written = io.BytesIO()
    Image.new("RGB", (600, 450), "tan").save(written, "JPEG")
    data = written.getvalue()
    write_originals(tmp_path, {"a.jpg": data, "b.jpg": data[:100]})
    files = list_originals(tmp_path)
    address = thumbnail(files["a"])
    assert address is not None
    data = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (192, 144)
    assert thumbnail(files["b"]) is None
    assert thumbnail(None) is None


def test_an_overlay_is_brightest_where_the_map_is_strongest() -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 1
    laid = overlay(np.full((64, 64, 3), 100, dtype=np.uint8), heat).astype(int).sum(axis=2)
    assert all(place < 16 for place in np.unravel_index(laid.argmax(), laid.shape))
    assert laid[8, 8] > laid[40, 40]
