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


def probability_columns(classes: Sequence[str]) -> list[str]:
    """Names of the probability columns of a prediction table, in the order of `classes`."""
    return [f"p_{name}" for name in classes]


def read_table(path: Path, required: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file; every `required` column must be there.

    Raises
    ------
    TableError
        The file is missing, cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise TableError("no such table", where=str(path), fix="check the path")
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    except (ValueError, OSError) as error:
        raise TableError(
            f"the table cannot be read: {str(error).splitlines()[0]}",
            where=str(path),
            fix="give a CSV, TSV or Parquet file",
        ) from error
    require_columns(frame, required, where=str(path))
    return frame


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
