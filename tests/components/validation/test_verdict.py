"""When the run stops, and what the user is told."""

from __future__ import annotations

from typing import Any

from components.tables import QUARANTINE_COLUMNS
from components.validation.verdict import failure, quarantine_table


def test_more_than_the_allowed_share_left_out_stops_the_run(tables: Any, judge_tables: Any) -> None:
    for number in range(4):
        tables.undecodable(f"IMG_{6 * number:02d}", "empty file")
    judgement = judge_tables(tables)
    assert failure(judgement.outcomes, judgement.left_out, 24, 4 / 24, where="here") is None
    error = failure(judgement.outcomes, judgement.left_out, 24, 0.16, where="here")
    assert error is not None
    assert error.exit_code == 1
    assert "4 of 24 images (16.7%) would be left out, at most 16.0% may be" in error.what
    assert "IMG_00, IMG_06, IMG_12, IMG_18 (images.decodable 4)" in error.what
    assert "validation.max_quarantined_share" in error.fix


def test_nothing_left_stops_the_run_whatever_share_is_allowed(
    tables: Any, judge_tables: Any
) -> None:
    for image in tables.labels["image_id"]:
        tables.absent(image)
    judgement = judge_tables(tables)
    error = failure(judgement.outcomes, judgement.left_out, 24, 1.0, where="here")
    assert error is not None
    assert "no image is left: all 24 are quarantined (images.present 24)" in error.what


def test_many_offenders_are_counted_and_the_first_ten_named(tables: Any, judge_tables: Any) -> None:
    tables.labels["age_years"] = 150.0
    judgement = judge_tables(tables)
    error = failure(judgement.outcomes, judgement.left_out, 24, 0.2, where="here")
    assert error is not None
    assert "24 offenders: IMG_00, " in error.what
    assert "IMG_09 and 14 more" in error.what
    assert "IMG_10" not in error.what


def test_all_failed_checks_are_told_at_once(tables: Any, judge_tables: Any) -> None:
    tables.set("labels", "IMG_00", age_years=150.0)
    tables.set("labels", "IMG_02", diagnosis="wart", lesion_id="L99")
    judgement = judge_tables(tables)
    error = failure(judgement.outcomes, judgement.left_out, 24, 0.2, where="here")
    assert error is not None
    assert "labels.age_years failed" in error.what
    assert "labels.known_diagnoses failed" in error.what
    assert "found: wart: 1" in error.what
    assert "(validation.labels.known_diagnoses)" in error.fix


def test_the_quarantine_table_has_its_columns_even_when_empty() -> None:
    for left_out in ({}, {"a": "why"}):
        frame = quarantine_table(left_out)
        assert tuple(frame.columns) == QUARANTINE_COLUMNS
        assert [str(dtype) for dtype in frame.dtypes] == ["str", "str"]
        assert len(frame) == len(left_out)
