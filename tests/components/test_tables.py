"""Tables are read from what people have, and refused with the column's name."""

from __future__ import annotations

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
    ("name", "content"), [("a.parquet", b"no"), ("a.csv", b""), ("b.csv", None)]
)
def test_an_unreadable_table_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError):
        read_table(path)
