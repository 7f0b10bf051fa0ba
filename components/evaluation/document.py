"""From a checked prediction table to the numbers of its document, with their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from components.evaluation.intervals import LEAST_GROUPS, exact_interval, interval
from components.evaluation.metrics import HEADLINE, MALIGNANT, PER_CLASS, Measures
from components.evaluation.prediction_table import Floats, Predictions

DIGITS = 12
"""Decimals of every written number: what lies behind depends on the order of additions."""
_PROPORTIONS = ("sensitivity", "specificity", "ppv", "npv", "accuracy")


def numbers_document(table: Predictions, values: Mapping[str, float]) -> dict[str, Any]:
    """Return the headline numbers, `per_class`, `malignant` and `confusion` of a table.

    Parameters
    ----------
    table
        The predictions.
    values
        Of `components.evaluation.metrics.point`.
    """
    support = np.bincount(table.truth, minlength=len(table.classes))
    document: dict[str, Any] = {name: plain(values[name]) for name in HEADLINE}
    document["per_class"] = {
        name: {key: plain(values[f"per_class.{name}.{key}"]) for key in PER_CLASS}
        | {"support": int(support[number])}
        for number, name in enumerate(table.classes)
    }
    document["malignant"] = None
    if f"malignant.{MALIGNANT[0]}" in values:
        malignant = {key: plain(values[f"malignant.{key}"]) for key in MALIGNANT}
        document["malignant"] = malignant | {"support": int(support[table.is_malignant].sum())}
    return document | {"confusion": confusion_document(table)}


def confusion_document(table: Predictions) -> dict[str, Any]:
    """Return counts and row shares, row the diagnosis and column the prediction."""
    size = len(table.classes)
    counts = np.bincount(table.truth * size + table.predicted, minlength=size**2)
    counts = counts.reshape(size, size)
    return {
        "classes": list(table.classes),
        "counts": [[int(count) for count in row] for row in counts],
        "row_shares": [
            [plain(c / row.sum()) if row.sum() else None for c in row] for row in counts
        ],
    }


def intervals_document(
    table: Predictions, values: Mapping[str, float], resampled: Measures
) -> tuple[dict[str, list[float]], list[str]]:
    """Return the interval of each number, and the names of the numbers that have none."""
    found, without = {}, []
    support = groups_behind(table)
    for name, value in values.items():
        own = number_interval(name, value, resampled[name], support.get(name, table.num_groups))
        if own is None:
            without.append(name)
        else:
            found[name] = own
    return found, without


def number_interval(
    name: str, value: float, resampled: Floats, num_groups: int
) -> list[float] | None:
    """Return the interval of one number.

    None when it is undefined, without spread, or rests on fewer than `LEAST_GROUPS` groups. A
    share without spread (all of a class right, say) gets the exact interval for its groups.

    Parameters
    ----------
    name
        In `components.evaluation.metrics.measure`.
    value, resampled
        The number, and its values in the resamples (R,).
    num_groups
        How many groups it rests on.
    """
    if num_groups < LEAST_GROUPS or np.isnan(value):
        return None
    if name.rsplit(".", 1)[-1] in _PROPORTIONS and value in (0.0, 1.0):
        own: list[float] | None = exact_interval(num_groups, all_right=value == 1.0)
    else:
        own = interval(value, resampled, reflected=name.endswith("ece"))
    return None if own is None else [round(bound, DIGITS) for bound in own]


def why_no_interval(value: float, resampled: Floats, num_groups: int) -> str:
    """Return why `number_interval` gives none, for people; parameters as there.

    A classifier that names one class whatever it sees has a balanced accuracy of 1 / C in every
    resample: the images tell nothing of its spread.
    """
    if np.isnan(value):
        return "undefined"
    if num_groups < LEAST_GROUPS:
        return "too few groups"
    if np.isnan(resampled).mean() > 0.1:
        return "undefined in many resamples"
    return "no spread"


def groups_behind(table: Predictions) -> dict[str, int]:
    """Return how many groups each number of a class rests on; the others rest on all."""
    return dict(_support(table))


def _support(table: Predictions) -> Iterator[tuple[str, int]]:

    def groups(images: Any) -> int:
        return len(np.unique(table.groups[images]))

    for number, name in enumerate(table.classes):
        yield from _binary_support(
            f"per_class.{name}", groups, table.truth == number, table.predicted == number
        )
    flags = table.is_malignant
    yield from _binary_support("malignant", groups, flags[table.truth], flags[table.predicted])


def _binary_support(
    prefix: str, groups: Any, positive: Any, called: Any
) -> Iterator[tuple[str, int]]:
    both = min(groups(positive), groups(~positive))
    yield f"{prefix}.sensitivity", groups(positive)
    yield f"{prefix}.specificity", groups(~positive)
    yield f"{prefix}.ppv", groups(called)
    yield f"{prefix}.npv", groups(~called)
    yield f"{prefix}.f1", groups(positive | called)
    for curve in ("auc", "average_precision", "auc_above_80_sensitivity", *MALIGNANT[4:]):
        yield f"{prefix}.{curve}", both


def plain(value: float) -> float | None:
    """Return a number as JSON has it: rounded to `DIGITS`, None for NaN."""
    return None if np.isnan(value) else round(float(value), DIGITS) + 0.0  # no -0.0
