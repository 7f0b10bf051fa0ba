"""The rows that the Prefect UI shows."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from components.validation.summary import summary_rows
from components.validation.verdict import summary


def test_what_was_found_comes_first_and_names_offenders(tables: Any, judge_tables: Any) -> None:
    tables.absent("IMG_00")
    tables.labels["sex"] = "F"
    judgement = judge_tables(tables)
    rows = summary_rows(summary(judgement.outcomes, 24, 1, success=True))
    assert [row["result"] for row in rows[:4]] == [
        "quarantined",
        "warning",
        "not compared",
        "not compared",
    ]
    assert {row["result"] for row in rows[4:]} == {"passed"}
    present, sex = rows[:2]
    assert present["check"] == "images.present"
    assert present["found"] == "23 of 24"
    assert present["offenders"] == "1: IMG_00"
    assert "put the missing files into the source" in present["to do"]
    assert {row["to do"] for row in rows[4:]} == {""}
    assert sex["found"] == "F: 24"
    assert sex["offenders"] == "24: IMG_00, IMG_01, IMG_02, IMG_03, IMG_04, …"


def test_an_error_is_called_failed(tables: Any, judge_tables: Any) -> None:
    tables.set("labels", "IMG_00", age_years=150.0)
    document = summary(judge_tables(tables).outcomes, 24, 0, success=False)
    first = summary_rows(document)[0]
    assert (first["check"], first["result"]) == ("labels.age_years", "FAILED")
    assert first["bound"] == "0 to 120"


def test_the_rows_are_made_without_heavy_imports() -> None:
    code = (
        "import sys, components.validation.summary;"
        "heavy = {'pandas', 'great_expectations', 'numpy', 'scipy', 'PIL'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
