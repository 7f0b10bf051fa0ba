"""The one reader and writer of tables, and the columns that the stages agree on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from components.atomic import atomic_path
from components.errors import TableError

LABEL_COLUMNS = (
    "image_id",
    "patient_id",
    "lesion_id",
    "diagnosis",
    "diagnosis_method",
    "age_years",
    "sex",
    "site",
    "skin_type",
    "source",
    "sha256",
)
PAIR_COLUMNS = ("image_id_a", "image_id_b", "evidence", "similarity", "inliers")
QUARANTINE_COLUMNS = ("image_id", "reason")
SPLIT_COLUMNS = ("image_id", "group_id", "split", "fold", "reason")
PARTS = ("train", "validation", "test")
TEXT_COLUMNS = frozenset(
    {"image_id", "lesion_id", "patient_id", "group_id", "sha256", "diagnosis"}
    | {"lesion", "patient", "group", "dx"}  # the same in anybody's table
)
"""Names, never numbers: 0012 is not 12, 01 is not 1, and NA is a name like any other."""


def probability_columns(classes: Sequence[str]) -> list[str]:
    """Names of the probability columns of a prediction table, in the order of `classes`."""
    return [f"p_{name}" for name in classes]


def source_name(source: str) -> str:
    """Return a label's `source` without the part that the image was given for (`name:test`)."""
    return source.partition(":")[0]


def read_table(path: Path, required: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV, TSV (`.tsv`, `.tab`) or Parquet file; every `required` column must be there.

    The columns of `TEXT_COLUMNS` are read as text: only an empty cell is a missing one, and whole
    numbers, as Parquet may hold them, are written without a point.

    Raises
    ------
    TableError
        The file is missing, cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise TableError("no such table", where=str(path), fix="check the path")
    try:
        if path.suffix == ".parquet":
            frame = _with_names_of_numbers(pd.read_parquet(path))
        else:
            frame = _read_text(path, "\t" if path.suffix in (".tsv", ".tab") else ",")
    except (ValueError, OSError) as error:
        raise TableError(
            f"the table cannot be read: {str(error).splitlines()[0]}",
            where=str(path),
            fix="give a CSV, TSV or Parquet file",
        ) from error
    require_columns(frame, required, where=str(path))
    return frame


def _read_text(path: Path, separator: str) -> pd.DataFrame:
    # Without index_col a row that is too long would shift all columns.
    frame = pd.read_csv(path, sep=separator, index_col=False)
    columns = TEXT_COLUMNS.intersection(frame.columns)
    cells = pd.read_csv(
        path,
        sep=separator,
        index_col=False,
        usecols=sorted(columns),
        dtype="str",
        keep_default_na=False,
    )
    for column in columns:
        names = cells[column].str.strip()
        frame[column] = without_point_zero(names.mask(names == ""))
    return frame


def _with_names_of_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    for column in TEXT_COLUMNS.intersection(frame.columns):
        if pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = without_point_zero(frame[column].astype("str"))
    return frame


def without_point_zero(names: pd.Series) -> pd.Series:
    """Return text; if all of it is whole numbers stored as 12.0, they are 12.

    That is what a program leaves that took a column of ids with gaps for numbers.
    """
    if names.dropna().str.fullmatch(r"\d+\.0").all():
        return names.str.removesuffix(".0")
    return names


def require_columns(frame: pd.DataFrame, required: Sequence[str], *, where: str) -> None:
    """Raise `TableError` when `frame` lacks one of the `required` columns."""
    missing = [name for name in required if name not in frame.columns]
    if missing:
        raise TableError(
            f"missing column{'s' if len(missing) > 1 else ''}: {', '.join(missing)}",
            where=where,
            fix=f"add them; the table has: {', '.join(map(str, frame.columns))}",
        )


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` without its index to CSV or Parquet, atomically; same content, same bytes."""
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False, compression="zstd")
        else:
            frame.to_csv(temporary, index=False, lineterminator="\n")
