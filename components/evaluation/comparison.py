"""Two models on the same images: paired bootstrap over groups, and McNemar's test.

Paired, because both models see the same easy and the same difficult pictures: the interval of the
difference is much narrower than the two intervals suggest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.errors import TableError
from components.evaluation.document import DIGITS, plain
from components.evaluation.intervals import LEVEL, image_weights, one_thread, stack
from components.evaluation.metrics import HEADLINE, measure, point
from components.evaluation.prediction_table import Floats, Predictions, parse_predictions

Flags = npt.NDArray[np.bool_]


def compare(
    first: pd.DataFrame,
    second: pd.DataFrame,
    resamples: int = 2000,
    seed: int = 0,
    *,
    classes: Sequence[str] | None = None,
    malignant: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compare two prediction tables of the same images.

    Parameters
    ----------
    first, second
        Prediction tables; the groups are those of `first`.
    resamples, seed
        Of the bootstrap.
    classes, malignant
        As `components.evaluation.score.score_table`.

    Returns
    -------
    dict
        `num_images`, `num_groups`; `differences`: name of a number (headline, `per_class.<c>.…`,
        `malignant.…`) -> `first`, `second`, `difference` (first minus second), `low` and `high`
        (its 95 % interval), `p_value` (two-sided); `mcnemar` over images and `sign_test` over
        groups, on who is right.

    Raises
    ------
    TableError
        The tables do not have the same images, diagnoses and classes.
    """
    one, _ = parse_predictions(first, classes, malignant, where="the first table").in_order()
    two, _ = parse_predictions(
        second, one.classes, one.malignant, where="the second table"
    ).in_order()
    _check_same_images(one, two)
    own, other = point(one), point(two)
    parts = []
    with one_thread():
        for weights in image_weights(one, resamples, seed):
            ours, theirs = measure(one, weights), measure(two, weights)
            parts.append({name: ours[name] - theirs[name] for name in ours})
    resampled = stack(parts)
    right = one.predicted == one.truth, two.predicted == two.truth
    return {
        "num_images": len(one),
        "num_groups": one.num_groups,
        "classes": list(one.classes),
        "resamples": resamples,
        "seed": seed,
        "differences": {
            name: {
                "first": plain(own[name]),
                "second": plain(other[name]),
                **difference_document(own[name] - other[name], resampled[name]),
            }
            for name in own
            if name in HEADLINE or name.startswith(("per_class.", "malignant."))
        },
        "mcnemar": mcnemar(*right),
        "sign_test": sign_test(*right, one.groups),
    }


def difference_document(difference: float, resampled: Floats) -> dict[str, float | None]:
    """Return a difference with its percentile interval and two-sided p-value."""
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(difference) or len(defined) < 0.9 * len(resampled):
        return {"difference": plain(difference), "low": None, "high": None, "p_value": None}
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {
        "difference": plain(difference),
        "low": plain(low),
        "high": plain(high),
        "p_value": plain(bootstrap_p_value(defined)),
    }


def bootstrap_p_value(differences: Floats) -> float:
    """Two-sided p-value of "no difference": twice the share of resamples beyond 0.

    The observed one counts as a resample too, so that the value is never 0 (Davison and Hinkley
    1997, section 4.4); it cannot be below 2 / (resamples + 1).
    """
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(differences) + 1)))


def mcnemar(first_right: Flags, second_right: Flags) -> dict[str, Any]:
    """Return the exact McNemar test of two models' errors on the same images.

    Under "no difference" the images that only one gets right are divided like a fair coin. Images
    of one lesion are no independent coins: see `sign_test`.
    """
    return _coin_test(
        int((first_right & ~second_right).sum()), int((~first_right & second_right).sum())
    )


def sign_test(first_right: Flags, second_right: Flags, groups: npt.NDArray[np.int64]) -> Any:
    """Return the exact test of who has more images right, one vote per group."""
    votes = np.bincount(groups, weights=first_right.astype(float) - second_right)
    return _coin_test(int((votes > 0).sum()), int((votes < 0).sum()))


def _coin_test(only_first: int, only_second: int) -> dict[str, Any]:
    from scipy.stats import binomtest

    tosses = only_first + only_second
    p_value = float(binomtest(only_first, tosses, 0.5).pvalue) if tosses else 1.0
    return {
        "only_first": only_first,
        "only_second": only_second,
        "p_value": round(p_value, DIGITS),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down (1979), in their order."""
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = largest
    return corrected


def _check_same_images(one: Predictions, two: Predictions) -> None:
    ids = set(one.image_ids), set(two.image_ids)
    if ids[0] != ids[1]:
        alone = sorted(ids[0] ^ ids[1])
        raise TableError(
            f"{len(alone)} images are in only one of the two tables, such as {alone[0]}",
            where="the prediction tables to compare",
            fix="predict the same images with both models",
        )
    other = np.flatnonzero(one.truth != two.truth)
    if len(other):
        raise TableError(
            f"{len(other)} images have another diagnosis in the second table, such as "
            f"{one.image_ids[other[0]]}",
            where="the prediction tables to compare",
            fix="make both tables with the same labels",
        )
