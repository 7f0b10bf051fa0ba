"""`data/withdrawn.csv`: what was withdrawn, which no snapshot takes again.

Append-only and in Git. A withdrawn lesion or patient stays withdrawn for images that arrive later;
of a withdrawn image the bytes too, under whatever id they come back.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from components.errors import TableError
from components.tables import require_columns, write_table

ID_COLUMNS = ("image_id", "lesion_id", "patient_id")
_COLUMNS = ("column", "value")
_KINDS = (*ID_COLUMNS, "sha256")

Entry = tuple[str, str]
"""One of `ID_COLUMNS` or sha256, and the value."""


@dataclass(frozen=True)
class Withdrawn:
    """What must not be taken: `ids` has one set for each of `ID_COLUMNS`."""

    ids: dict[str, frozenset[str]]
    sha256: frozenset[str]

    def allows(self, labels: pd.DataFrame) -> pd.Series:
        """Return which rows of a labels table may be taken, by their ids."""
        allowed = pd.Series(True, index=labels.index)
        for column, values in self.ids.items():
            allowed &= ~labels[column].isin(values)
        return allowed


def read_withdrawn(path: Path) -> Withdrawn:
    """Read the list.

    Raises
    ------
    TableError
        The file is missing or has a row of an unknown kind.
    """
    table = _read(path)
    values = {kind: frozenset(table["value"][table["column"] == kind]) for kind in _KINDS}
    return Withdrawn({kind: values[kind] for kind in ID_COLUMNS}, values["sha256"])


def read_entries(path: Path) -> set[Entry]:
    """Read the list as it is; raises as `read_withdrawn`."""
    table = _read(path)
    return set(zip(table["column"], table["value"], strict=True))


def entries_of(text: str, where: str) -> set[Entry]:
    """Return what the list in `text` (the content of another version of the file) holds.

    Raises
    ------
    TableError
        As `read_withdrawn`.
    """
    table = _parse(io.StringIO(text), where)
    return set(zip(table["column"], table["value"], strict=True))


def append_withdrawn(path: Path, entries: Iterable[Entry]) -> int:
    """Append those `entries` that are not listed yet; return how many were new."""
    new = sorted(set(entries) - read_entries(path))
    if new:
        write_table(pd.concat([_read(path), pd.DataFrame(new, columns=_COLUMNS)]), path)
    return len(new)


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise TableError(
            "no such table", where=str(path), fix="write a line `column,value` into it, no more"
        )
    return _parse(path, str(path))


def _parse(file: Path | io.StringIO, where: str) -> pd.DataFrame:
    try:
        # Not read_table: an id such as 0012 is no number.
        table = pd.read_csv(file, dtype="str", keep_default_na=False)
    except ValueError as error:  # empty, or no table
        raise TableError(
            f"what was withdrawn cannot be read: {str(error).splitlines()[0]}",
            where=where,
            fix="take back the last good version from Git",
        ) from error
    require_columns(table, _COLUMNS, where=where)
    wrong = table[~table["column"].isin(_KINDS)]
    if len(wrong):
        raise TableError(
            f"{wrong['column'].iloc[0]!r} is no kind of id",
            where=f"row {int(wrong.index[0]) + 2} of {where}",
            fix=f"write one of {', '.join(_KINDS)}",
        )
    return table
