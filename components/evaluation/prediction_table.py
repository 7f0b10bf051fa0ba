"""Reading a prediction table: checked row by row, then as arrays.

A prediction table has one row per image: `image_id`, `diagnosis`, one `p_<class>` per class, and
what is known of the image (`group_id`, `lesion_id`, `patient_id`, `age_years`, ...). Nothing in it
is mended: probabilities that are not numbers, negative, or do not sum to 1 are refused by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.errors import TableError
from components.tables import probability_columns, require_columns

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

SUM_TOLERANCE = 1e-3
"""Largest distance of a row's sum from 1: tables rounded to a few decimals pass."""
MALIGNANT_NAMES = frozenset({"akiec", "bcc", "mel", "melanoma", "malignant", "scc"})
"""Classes that count as malignant where nothing else is said (any case)."""
ALIASES = {
    "group": "group_id",
    "lesion": "lesion_id",
    "patient": "patient_id",
    "age": "age_years",
    "age_approx": "age_years",
    "localization": "site",
    "dx": "diagnosis",
    "dx_type": "diagnosis_method",
}
"""Other names of columns in anybody's table: HAM10000's and ISIC's."""
GROUPING = ("group_id", "patient_id", "lesion_id")
"""Columns whose equal ids make images one group of the bootstrap."""
_PREFIX = "p_"


@dataclass(frozen=True)
class Predictions:
    """A checked prediction table.

    Attributes
    ----------
    image_ids
        Shape (N,), as strings.
    classes
        In the order of the probabilities.
    malignant
        Those of `classes` that are malignant.
    truth
        Shape (N,), the number of each image's diagnosis in `classes`.
    probabilities
        Shape (N, C), float64; every row sums to 1 within `SUM_TOLERANCE`, used as it is.
    groups
        Shape (N,), numbers 0 … G-1: the unit of the bootstrap.
    group_by
        What the groups were made from.
    """

    image_ids: npt.NDArray[np.object_]
    classes: tuple[str, ...]
    malignant: tuple[str, ...]
    truth: Codes
    probabilities: Floats
    groups: Codes
    group_by: str

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: Codes) -> Predictions:
        """Return the images at `rows`, in that order, their groups numbered as they appear."""
        return replace(
            self,
            image_ids=self.image_ids[rows],
            truth=self.truth[rows],
            probabilities=self.probabilities[rows],
            groups=pd.factorize(self.groups[rows])[0].astype(np.int64),
        )

    def in_order(self) -> tuple[Predictions, Codes]:
        """Return the table sorted by image, and the rows that the images had.

        What is drawn at random then does not depend on the order of a file's rows.
        """
        rows = np.argsort(self.image_ids.astype(str), kind="stable")
        return self.take(rows), rows

    @property
    def num_groups(self) -> int:
        """How many groups there are."""
        return int(self.groups.max()) + 1

    @cached_property
    def predicted(self) -> Codes:
        """Most probable class of each image; of a tie the one that comes first in `classes`."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @cached_property
    def is_malignant(self) -> npt.NDArray[np.bool_]:
        """Per class: whether it is malignant."""
        return np.array([name in self.malignant for name in self.classes])

    @cached_property
    def malignant_score(self) -> Floats:
        """Sum of the probabilities of the malignant classes, shape (N,)."""
        return np.asarray(self.probabilities[:, self.is_malignant].sum(axis=1))


def parse_predictions(
    frame: pd.DataFrame,
    classes: Sequence[str] | None = None,
    malignant: Sequence[str] | None = None,
    *,
    where: str = "the prediction table",
) -> Predictions:
    """Check a prediction table and return it as arrays.

    Parameters
    ----------
    frame
        The table.
    classes
        Default: what the `p_<class>` columns say, in their order.
    malignant
        Default: the classes whose names are in `MALIGNANT_NAMES`.
    where
        Named in errors.

    Raises
    ------
    TableError
        A column is missing, the table is empty, an image is there twice, a diagnosis is missing
        or none of the classes, or a row's probabilities cannot be used; the message names the
        first such row and its image.
    """
    frame = with_known_names(frame)
    names = tuple(classes) if classes is not None else _classes_of(frame)
    require_columns(frame, ("image_id", "diagnosis", *probability_columns(names)), where=where)
    if len(names) < 2:
        raise TableError(
            f"{len(names)} probability columns",
            where=where,
            fix="give a column p_<class> for each of two or more classes",
        )
    if frame.empty:
        raise TableError("the table has no row", where=where, fix="give at least one prediction")
    _check_ids(frame, where)
    probabilities = _probabilities(frame, names, where)
    groups, group_by = bootstrap_groups(frame)
    chosen = malignant if malignant is not None else _malignant_of(names)
    return Predictions(
        image_ids=frame["image_id"].astype(str).to_numpy(dtype=object),
        classes=names,
        malignant=tuple(name for name in names if name in set(chosen)),
        truth=_truth(frame, names, where),
        probabilities=probabilities,
        groups=groups,
        group_by=group_by,
    )


def with_known_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Rename columns that go by one of `ALIASES`, where the table has not our name too."""
    names = {
        alias: name
        for alias, name in ALIASES.items()
        if alias in frame.columns and name not in frame.columns
    }
    first = {name: alias for alias, name in reversed(names.items())}
    return frame.rename(columns={alias: name for name, alias in first.items()})


def bootstrap_groups(frame: pd.DataFrame) -> tuple[Codes, str]:
    """Number the groups of a table's images, and say what they were made from.

    Images that share a group, a patient or a lesion are one group, transitively: the coarsest
    that the table knows. An image without any of them stands alone.
    """
    from components.splitting.groups import connect

    used = [name for name in GROUPING if name in frame.columns and frame[name].notna().any()]
    return connect(frame, by=used), ", ".join(used) or "image_id"


def _classes_of(frame: pd.DataFrame) -> tuple[str, ...]:
    columns = [str(name) for name in frame.columns]
    return tuple(name.removeprefix(_PREFIX) for name in columns if name.startswith(_PREFIX))


def _malignant_of(classes: Sequence[str]) -> list[str]:
    return [name for name in classes if name.lower() in MALIGNANT_NAMES]


def _check_ids(frame: pd.DataFrame, where: str) -> None:
    missing = frame["image_id"].isna()
    if missing.any():
        row = _first(missing)
        raise TableError(f"row {row + 1}: no image_id", where=where, fix="give every image its id")
    twice = frame["image_id"].astype(str).duplicated()
    if twice.any():
        row = _first(twice)
        raise TableError(
            f"row {row + 1}: image_id {frame['image_id'].iloc[row]} is there a second time "
            f"({int(twice.sum())} such rows)",
            where=where,
            fix="keep one row per image",
        )


def _truth(frame: pd.DataFrame, classes: Sequence[str], where: str) -> Codes:
    # Diagnoses that are numbers in a data frame are text in its header.
    names = [str(value) if pd.notna(value) else None for value in frame["diagnosis"]]
    codes = pd.Index(classes).get_indexer(pd.Index(names, dtype=object))
    unknown = codes < 0
    if unknown.any():
        row = _first(unknown)
        others = sorted({str(names[index]) for index in np.flatnonzero(unknown)})
        raise TableError(
            f"row {row + 1} (image_id {frame['image_id'].iloc[row]}): diagnosis {names[row]!r} has "
            f"no probability column ({int(unknown.sum())} such rows: {', '.join(others[:10])})",
            where=where,
            fix=f"the classes are {', '.join(classes)}: rename the diagnosis, add its column, "
            "or leave these rows out",
        )
    return np.asarray(codes, dtype=np.int64)


def _probabilities(frame: pd.DataFrame, classes: Sequence[str], where: str) -> Floats:
    columns = probability_columns(classes)
    try:
        values = frame[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise TableError(
            f"a probability is no number: {error}",
            where=f"{where}, columns {', '.join(columns)}",
            fix="write probabilities as numbers between 0 and 1",
        ) from error
    with np.errstate(invalid="ignore"):
        sums = values.sum(axis=1)
        problems = (
            ("a probability is missing or not finite", ~np.isfinite(values).all(axis=1)),
            ("a probability is negative", (values < 0).any(axis=1)),
            ("the probabilities do not sum to 1", ~(np.abs(sums - 1) <= SUM_TOLERANCE)),
        )
    for problem, rows in problems:
        if rows.any():
            row = _first(rows)
            shown_values = zip(columns, values[row], strict=True)
            shown = ", ".join(f"{name}={value:.6g}" for name, value in shown_values)
            raise TableError(
                f"row {row + 1} (image_id {frame['image_id'].iloc[row]}): {problem}: {shown} "
                f"(sum {sums[row]:.6g}; {int(rows.sum())} such rows)",
                where=where,
                fix="give probabilities that are at least 0 and sum to 1 "
                f"(within {SUM_TOLERANCE:g}); nothing is normalised silently",
            )
    return values


def _first(rows: npt.ArrayLike) -> int:
    return int(np.flatnonzero(np.asarray(rows))[0])
