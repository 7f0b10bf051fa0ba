"""The same numbers for the young and the old, men and women, each site, each quality of picture.

A subgroup holds another mix of diagnoses than the whole: compare its numbers with care, and by
their intervals. Bands of picture quality are thirds of the table itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.evaluation.document import intervals_document, plain
from components.evaluation.metrics import (
    Measures,
    calibration_measures,
    confusion_matrices,
    from_confusion,
    malignant_measures,
)
from components.evaluation.prediction_table import Floats, Predictions

AGE_BANDS = ((0, 30), (30, 45), (45, 60), (60, 75), (75, 200))
"""Years, from the first up to but without the second."""
NAMED_COLUMNS = ("sex", "site", "diagnosis_method", "skin_type")
QUALITY_COLUMNS = ("brightness", "contrast", "sharpness")
UNKNOWN = "unknown"
LEAST_IMAGES, LEAST_GROUPS = 30, 20
"""A subgroup of fewer is too small to tell; it gets no interval."""
NUMBERS = (
    "accuracy",
    "balanced_accuracy",
    "log_loss",
    "ece",
    "malignant.auc",
    "malignant.sensitivity",
    "malignant.specificity",
)


@dataclass(frozen=True)
class Subgroup:
    """Images that share a value of a column."""

    column: str
    value: str
    rows: npt.NDArray[np.int64]
    table: Predictions


def subgroups_of(frame: pd.DataFrame, table: Predictions) -> list[Subgroup]:
    """Return the subgroups by every column that the table has, in a fixed order."""
    found = []
    for column, labels in band_labels(frame).items():
        for value in _ordered(labels):
            rows = np.flatnonzero((labels == value).to_numpy())
            found.append(Subgroup(column, value, rows, table.take(rows)))
    return found


def band_labels(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Return a label per image for each column that there is and that has two or more labels."""
    labels = {}
    if "age_years" in frame.columns:
        labels["age_years"] = _age_bands(pd.to_numeric(frame["age_years"], errors="coerce"))
    for column in NAMED_COLUMNS:
        if column in frame.columns:
            values = frame[column]
            labels[column] = values.astype(str).where(values.notna(), UNKNOWN)
    for column in QUALITY_COLUMNS:
        if column in frame.columns:
            labels[column] = _thirds(pd.to_numeric(frame[column], errors="coerce"))
    return {column: values for column, values in labels.items() if values.nunique() > 1}


def measure_subgroup(table: Predictions, weights: Floats) -> Measures:
    """Return the `NUMBERS` of a subgroup under weights of shape (R, its images)."""
    confusion = confusion_matrices(table, weights)
    measures = from_confusion(confusion, table.classes) | calibration_measures(table, weights)
    measures |= malignant_measures(table, weights, confusion)
    return {name: measures[name] for name in NUMBERS if name in measures}


def subgroup_document(subgroup: Subgroup, resampled: Measures) -> dict[str, Any]:
    """Return a subgroup's counts, numbers and intervals."""
    table = subgroup.table
    measured = measure_subgroup(table, np.ones((1, len(table))))
    values = {name: float(found[0]) for name, found in measured.items()}
    too_small = len(table) < LEAST_IMAGES or table.num_groups < LEAST_GROUPS
    intervals = {} if too_small else intervals_document(table, values, resampled)[0]
    return {
        "value": subgroup.value,
        "num_images": len(table),
        "num_groups": table.num_groups,
        "num_classes": len(np.unique(table.truth)),
        "num_malignant": int(table.is_malignant[table.truth].sum()),
        "too_small": too_small,
        **{name: plain(value) for name, value in values.items()},
        "intervals": intervals,
    }


def largest_gap(document: Mapping[str, Any], number: str) -> dict[str, Any] | None:
    """Return the largest distance between two subgroups of one column in `number`.

    Parameters
    ----------
    document
        Of `score_table`.
    number
        One of `NUMBERS`.

    Returns
    -------
    dict or None
        `column`, `gap`, `lowest` and `highest` (`value` and number of each). Subgroups do not
        count that are unknown, too small, without an interval, or lack a class that another one
        of the column has (their means are over other classes); nor does the way of diagnosis,
        which follows from the diagnosis. None without two to compare.
    """
    best: dict[str, Any] | None = None
    for column, entries in document["subgroups"].items():
        if column == "diagnosis_method":
            continue
        told = [e for e in entries if number in e["intervals"] and e["value"] != UNKNOWN]
        most = max((entry["num_classes"] for entry in told), default=0)
        usable = [(e[number], e["value"]) for e in told if e["num_classes"] == most]
        if len(usable) < 2:
            continue
        low, high = min(usable), max(usable)
        if best is None or high[0] - low[0] > best["gap"]:
            best = {
                "column": column,
                "gap": high[0] - low[0],
                "lowest": {"value": low[1], number: low[0]},
                "highest": {"value": high[1], number: high[0]},
            }
    return best


def _age_bands(ages: pd.Series) -> pd.Series:
    """Label the bands; 0 is unknown, as what HAM10000 and others write where they have no age."""
    labels = pd.Series(UNKNOWN, index=ages.index, dtype=object)
    for low, high in AGE_BANDS:
        name = f"{low}-{high - 1}" if high < 200 else f"{low}+"
        labels[(ages >= low) & (ages < high) & (ages > 0)] = name
    return labels


def _thirds(values: pd.Series) -> pd.Series:
    """Label the thirds of what is known, equal values together."""
    labels = pd.Series(UNKNOWN, index=values.index, dtype=object)
    known = values.notna()
    if known.any():
        first, second = np.quantile(values[known], [1 / 3, 2 / 3])
        names = np.select([values[known] <= first, values[known] <= second], ["low", "mid"], "high")
        labels[known] = names
    return labels


_ORDER = {"low": 0, "mid": 1, "high": 2}


def _ordered(labels: pd.Series) -> list[str]:
    """Return the labels in reading order, the unknown last."""
    names = [str(name) for name in labels.unique()]
    return sorted(names, key=lambda name: (name == UNKNOWN, _ORDER.get(name, 0), name))
