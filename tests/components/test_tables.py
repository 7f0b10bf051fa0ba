"""Tables are read from what people have, and refused with the column's name."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from components.errors import TableError
from components.tables import read_table, write_table


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_round_trip_and_same_bytes(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"image_id": ["a", "b"], "p_mel": [0.1, 1 / 3]})
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_table(frame, first)
    write_table(frame, second)
    assert first.read_bytes() == second.read_bytes()
    pd.testing.assert_frame_equal(read_table(first), frame)


def test_a_missing_column_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("image_id\nx\n", encoding="utf-8")
    with pytest.raises(TableError) as caught:
        read_table(path, required=("image_id", "lesion_id"))
    assert "lesion_id" in caught.value.what
    assert str(path) in caught.value.where


@pytest.mark.parametrize(
    ("name", "content", "what", "fix"),
    [
        ("a.parquet", b"no", "the table cannot be read: .*Parquet", "give a CSV, TSV or Parquet"),
        ("a.csv", b"", "the table cannot be read: No columns to parse", "give a CSV, TSV"),
        ("b.csv", None, "no such table", "check the path"),
    ],
)
def test_an_unreadable_table_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes | None, what: str, fix: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        read_table(path)
    assert re.match(what, caught.value.what)
    assert caught.value.where == str(path)
    assert caught.value.fix.startswith(fix)


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t"), ("tab", "\t")])
def test_ids_are_text_and_only_an_empty_cell_is_missing(
    tmp_path: Path, suffix: str, separator: str
) -> None:
    path = tmp_path / f"table.{suffix}"
    rows = [
        ("image_id", "lesion_id", "patient_id", "dx", "age", "sex"),
        ("0012", "01", "NA", "00", "50", "NA"),
        ("12", "1", "", "0", "", "male"),
        (" 7 ", "1e3", "null", "nan", "60.5", "female"),
    ]
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    table = read_table(path)
    assert table["image_id"].tolist() == ["0012", "12", "7"]
    assert table["lesion_id"].tolist() == ["01", "1", "1e3"]
    assert table["patient_id"].fillna("missing").tolist() == ["NA", "missing", "null"]
    assert table["dx"].tolist() == ["00", "0", "nan"]
    assert table["age"].fillna(-1).tolist() == [50, -1, 60.5]  # what is no id is guessed
    assert table["sex"].isna().tolist() == [True, False, False]


def test_ids_that_were_stored_as_numbers_are_those_of_a_text_table(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image_id": [12, 7], "lesion_id": [3.0, None]})
    frame["patient_id"] = pd.array([5, None], dtype="Int64")
    frame["score"] = [1.0, 2.0]
    write_table(frame, tmp_path / "numbers.parquet")
    write_table(frame, tmp_path / "numbers.csv")  # it has 3.0
    for name in ("numbers.parquet", "numbers.csv"):
        table = read_table(tmp_path / name)
        assert table["image_id"].tolist() == ["12", "7"]
        assert table["lesion_id"].fillna("missing").tolist() == ["3", "missing"]
        assert table["patient_id"].fillna("missing").tolist() == ["5", "missing"]
        assert table["score"].tolist() == [1.0, 2.0]


def test_an_id_column_that_is_empty_has_no_id(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image_id,lesion_id\na,\nb,\n")
    assert read_table(tmp_path / "a.csv")["lesion_id"].isna().all()
