"""What the readers share: finding the table, its values, and which image belongs to which row."""

from __future__ import annotations

import fnmatch
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import pandas as pd

from components.dataset.sources.files import Files
from components.errors import SourceError
from components.tables import without_point_zero

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

_MISSING = {"", "unknown", "nan", "na", "n/a", "none", "null", "<na>"}
_IMAGE_ID = re.compile(r"^\w[\w.-]{0,199}$")
_SEXES = {"m": "male", "f": "female"}


def find_table(files: Files, patterns: Sequence[str], *, fix: str) -> str:
    """Return the name of the table that fits the first pattern that any fits; the least deep one.

    Raises
    ------
    SourceError
        There is none.
    """
    names = files.names()
    for pattern in patterns:
        fitting = [
            name
            for name in names
            if fnmatch.fnmatch(PurePosixPath(name).name.lower(), pattern.lower())
            or fnmatch.fnmatch(name.lower(), pattern.lower())
        ]
        if fitting:
            return min(fitting, key=lambda name: (name.count("/"), name))
    raise SourceError(f"no table called {' or '.join(patterns)}", where=files.where, fix=fix)


def read_source_table(files: Files, name: str, required: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Read a Parquet file or a text table with a header; return it and where it is.

    Returns
    -------
    DataFrame
        All values as text, empty where there is none.
    str
        For messages.

    Raises
    ------
    SourceError
        The table cannot be read or lacks a `required` column.
    """
    where = f"{name} in {files.where}"
    data = files.read(name)
    try:
        table = _read_parquet(data) if name.lower().endswith(".parquet") else _read_text(data)
    except (UnicodeDecodeError, ValueError, OSError) as error:
        raise SourceError(
            f"the table cannot be read: {str(error).splitlines()[0]}",
            where=where,
            fix="give Parquet, or UTF-8 text with a header, separated by commas or tabs",
        ) from error
    table.columns = table.columns.astype("str").str.strip()
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise SourceError(
            f"missing column{'s' if len(missing) > 1 else ''}: {', '.join(missing)}",
            where=where,
            fix=f"add them (empty where nothing is known); it has: {', '.join(table.columns)}",
        )
    return table, where


def _read_text(data: bytes) -> pd.DataFrame:
    text = data.decode("utf-8-sig")
    header = text.splitlines()[0] if text.strip() else ""
    separator = max(",\t;", key=header.count)
    # Without index_col a row that is too long would shift all columns.
    return pd.read_csv(
        io.StringIO(text), sep=separator, dtype="str", keep_default_na=False, index_col=False
    )


def _read_parquet(data: bytes) -> pd.DataFrame:
    frame = pd.read_parquet(io.BytesIO(data))
    return frame.astype("object").where(frame.notna(), "").astype("str")


def words(column: pd.Series) -> pd.Series:
    """Return stripped text; missing where it says nothing (empty, unknown, NaN …)."""
    text = column.str.strip()
    return text.mask(text.str.lower().isin(_MISSING))


def ids(column: pd.Series) -> pd.Series:
    """Return ids as text; whole numbers that were stored as 12.0 are 12."""
    return without_point_zero(words(column))


def diagnoses(column: pd.Series) -> pd.Series:
    """Return diagnoses as they are spelled; here `unknown` is a word like any other."""
    text = column.str.strip()
    return text.mask(text == "")


def sexes(column: pd.Series) -> pd.Series:
    """Return `female`, `male` or what else is said, in small letters."""
    return words(column).str.lower().replace(_SEXES)


def sites(column: pd.Series) -> pd.Series:
    """Return the place on the body in small letters."""
    return words(column).str.lower()


def ages(column: pd.Series, *, where: str) -> pd.Series:
    """Return years as float64, missing where unknown; whether they are possible is validated later.

    Raises
    ------
    SourceError
        A value is no number.
    """
    text = words(column)
    numbers = pd.to_numeric(text, errors="coerce").astype("float64")
    wrong = text[text.notna() & numbers.isna()]
    if len(wrong):
        raise SourceError(
            f"{wrong.iloc[0]!r} is no age",
            where=f"{row_of(wrong)}, column {column.name} of {where}",
            fix="write a number of years, or leave it empty",
        )
    return numbers


def row_of(rows: pd.Series | pd.DataFrame) -> str:
    """Return where the first of `rows` stands in a text table whose header is row 1."""
    return f"row {int(rows.index[0]) + 2}"


def image_keys(column: pd.Series) -> pd.Series:
    """Return names of images (perhaps with folders) without a picture's suffix."""
    keys = column.str.strip().str.replace("\\", "/", regex=False).str.removeprefix("./")
    suffix = "|".join(re.escape(s) for s in IMAGE_SUFFIXES)
    return keys.str.replace(rf"(?i:{suffix})$", "", regex=True)


def image_ids(keys: pd.Series, *, where: str) -> pd.Series:
    """Return the image ids of names without suffix: folders are joined by two underscores.

    Raises
    ------
    SourceError
        An id is empty or cannot be a file name.
    """
    made = keys.str.replace("/", "__", regex=False)
    wrong = made[~made.str.match(_IMAGE_ID)]
    if len(wrong):
        raise SourceError(
            f"{keys[wrong.index[0]]!r} cannot be an image id",
            where=f"{row_of(wrong)}, column {keys.name} of {where}",
            fix="use letters, digits, '_', '-' and '.', at most 200 of them",
        )
    return made


def one_row_per_image(labels: pd.DataFrame, *, where: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return one row per image id, and image id -> where it is listed again with the same values.

    Raises
    ------
    SourceError
        Two rows of one image contradict each other.
    """
    again = labels[labels["image_id"].duplicated(keep=False)]
    seen: dict[str, str] = {}
    for image_id, rows in again.groupby("image_id", sort=True):
        numbers = " and ".join(str(int(index) + 2) for index in rows.index)
        if len(rows.drop_duplicates()) > 1:
            differs = [c for c in rows.columns if rows[c].nunique(dropna=False) > 1]
            raise SourceError(
                f"image {image_id} is listed {len(rows)} times with different values of "
                f"{', '.join(differs)}",
                where=f"rows {numbers} of {where}",
                fix="keep the row that is right",
            )
        seen[str(image_id)] = f"rows {numbers}"
    return labels.drop_duplicates("image_id").reset_index(drop=True), seen


def find_images(files: Files) -> list[str]:
    """Return the names of all files that are called like images.

    Raises
    ------
    SourceError
        There are none.
    """
    names = [name for name in files.names() if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise SourceError(
            "no image at all",
            where=files.where,
            fix=f"point the source to a folder or archive with images "
            f"({', '.join(IMAGE_SUFFIXES)})",
        )
    return names


def match_images(
    names: Iterable[str], listed: Mapping[str, str], files: Files
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Match files with rows by the end of the file's path, without suffix.

    Parameters
    ----------
    names
        Of the image files.
    listed
        What a row calls its image (`name` or `folder/name`) -> image id.
    files
        To compare two files of one image.

    Returns
    -------
    dict of str to str
        Image id -> file name, for the images that are there.
    tuple of str
        Names that no row lists.

    Raises
    ------
    SourceError
        One image has two files that differ.
    """
    depths = sorted({key.count("/") + 1 for key in listed}, reverse=True)
    found: dict[str, str] = {}
    not_listed = []
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        parts = str(PurePosixPath(name).with_suffix("")).split("/")
        ends = ("/".join(parts[-depth:]) for depth in depths)
        image_id = next((listed[end] for end in ends if end in listed), None)
        if image_id is None:
            not_listed.append(name)
        elif image_id not in found:
            found[image_id] = name
        else:
            _check_same(image_id, found[image_id], name, files)
    return found, tuple(sorted(not_listed))


def _check_same(image_id: str, name: str, other: str, files: Files) -> None:
    if files.read(name) != files.read(other):
        raise SourceError(
            f"two different files for image {image_id}: {name} and {other}",
            where=files.where,
            fix="keep one of them; or write the folder too in the table (folder/name)",
        )
