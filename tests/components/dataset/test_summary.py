"""What `measure` and `pairs` found, counted by hand on a few images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from components.dataset.measure import measure_images
from components.dataset.measures import Measures
from components.dataset.summary import measures_summary, pairs_summary
from components.tables import PAIR_COLUMNS
from tests.originals import write_originals


def _labels(*rows: tuple[str, str | None, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image_id", "lesion_id", "patient_id"], dtype=object)


def _pairs(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame([(*row, 1.0, 0) for row in rows], columns=list(PAIR_COLUMNS))


def test_a_pair_ties_what_no_id_holds_together() -> None:
    labels = _labels(
        ("A1", "L1", None), ("A2", "L1", None), ("B", "L2", None), ("C", None, None),
        ("D", "L3", "P1"), ("E", "L4", "P1"), ("F", "L5", None), ("G", "L6", None),
    )  # fmt: skip
    pairs = _pairs(
        ("A1", "A2", "same bytes"),  # one lesion already
        ("A1", "B", "same spot"),
        ("B", "C", "same spot"),
        ("D", "E", "same pixels"),  # one patient already
        ("F", "G", "same bytes"),
    )
    rows = {row.pop("evidence"): row for row in pairs_summary(pairs, labels)}
    assert rows == {
        "same bytes": {"pairs": 2, "images": 4, "lesions_tied": 2, "into_groups": 1},
        "same pixels": {"pairs": 1, "images": 2, "lesions_tied": 0, "into_groups": 0},
        "same spot": {"pairs": 2, "images": 3, "lesions_tied": 3, "into_groups": 1},
        "all": {"pairs": 5, "images": 8, "lesions_tied": 5, "into_groups": 2},
    }


def test_without_pairs_nothing_is_tied() -> None:
    rows = pairs_summary(_pairs(), _labels(("A", "L1", None), ("B", None, None)))
    assert [row["evidence"] for row in rows] == ["same bytes", "same pixels", "same spot", "all"]
    assert {row["pairs"] + row["lesions_tied"] + row["into_groups"] for row in rows} == {0}


def test_a_measure_is_summed_up_over_what_decodes() -> None:
    decoded = [
        {"num_bytes": 12_345, **Measures(decodes=True, width=width, contrast=0.12345).as_dict()}
        for width in (400, 500, 600, 700, 800)
    ]
    broken = {"num_bytes": 7, **Measures(decodes=False, problem="cut off").as_dict()}
    rows = measures_summary(pd.DataFrame([*decoded, broken]))
    table = {row.pop("measure"): row for row in rows}
    width = {"least": 400, "5 %": 420, "median": 600, "95 %": 780, "greatest": 800}
    assert table["width"] == width
    assert table["num_bytes"]["least"] == 12_345, "the broken file has no part in it"
    assert table["contrast"]["median"] == 0.123
    assert table["entropy"]["median"] is None


def test_where_nothing_decodes_there_is_no_range(tmp_path: Path) -> None:
    write_originals(tmp_path / "images", {"B.jpg": b"an error page"})
    labels = pd.DataFrame({"image_id": ["absent", "B"], "sha256": [None, None]})
    quality = measure_images(labels, tmp_path / "images", tmp_path / "cache")
    assert not quality["decodes"].any()
    for row in measures_summary(quality):
        assert {value for name, value in row.items() if name != "measure"} == {None}
