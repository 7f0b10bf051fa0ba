"""Drift: do the classes and the images of this snapshot look like those of the last one?

What is compared is the population stability index (PSI) of the classes and, over the deciles that
the last snapshot had, of every image statistic. `reference.py` says which snapshot the last one is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.validation.checks import Check, Suite
from components.validation.config import Drift, ValidationParams
from components.validation.images import STATISTICS

_CHANCE = 0.999
_CLASSES = ("labels.class_balance", "the classes have the shares of the last snapshot")
_IMAGES = ("images.drift", "the images look like those of the last snapshot")
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def snapshot_profile(
    images: pd.DataFrame, classes: Sequence[str], *, content_id: str, synthetic: bool
) -> dict[str, Any]:
    """Describe a snapshot in a few hundred numbers.

    Parameters
    ----------
    images
        The rows of `images.images_table` that are not quarantined.
    classes
        The recipe's diagnoses.
    content_id, synthetic
        The snapshot's, from its manifest.

    Returns
    -------
    dict
        `content_id, synthetic, num_images`, `classes` (name -> number of images), and
        `statistics` (name -> `median`, inner `edges` of the deciles, `counts` per bin).
    """
    counts = images["diagnosis"].value_counts()
    statistics = {}
    for name in STATISTICS:
        values = _values(images, name)
        edges = decile_edges(values)
        statistics[name] = {
            "median": float(np.median(values)) if len(values) else None,
            "edges": edges.tolist(),
            "counts": bin_counts(values, edges).tolist(),
        }
    return {
        "content_id": content_id,
        "synthetic": synthetic,
        "num_images": len(images),
        "classes": {name: int(counts.get(name, 0)) for name in classes},
        "statistics": statistics,
    }


def _values(images: pd.DataFrame, name: str) -> Floats:
    return images[name].dropna().to_numpy(dtype=np.float64)


def decile_edges(values: Floats) -> Floats:
    """Return the inner edges of bins that hold a tenth of `values` each.

    An edge belongs to the bin below it. A value that fills several bins (all pictures as wide,
    most of them without a dark rim) gets a bin of its own.
    """
    if not len(values):
        return np.empty(0)
    edges, times = np.unique(
        np.quantile(values, np.arange(1, 10) / 10, method="lower"), return_counts=True
    )
    below = np.nextafter(edges[times > 1], -np.inf)
    return np.unique(np.concatenate([edges, below]))


def bin_counts(values: Floats, edges: Floats) -> Counts:
    """Return how many of `values` lie in each of the ``len(edges) + 1`` bins."""
    bins = np.searchsorted(edges, values, side="left")
    return np.bincount(bins, minlength=len(edges) + 1).astype(np.int64)


def stability_index(before: Counts, now: Counts) -> float:
    """Return the population stability index ``sum((q - p) ln(q / p))``.

    p and q are the shares before and now; each count is raised by a half, so that an empty bin
    gives a finite number.
    """
    p = (before + 0.5) / (before.sum() + 0.5 * len(before))
    q = (now + 0.5) / (now.sum() + 0.5 * len(now))
    return float(((q - p) * np.log(q / p)).sum())


def chance_bound(num_before: int, num_now: int, num_bins: int) -> float:
    """Return the index that two samples of one population exceed once in a thousand times.

    Without drift, the index divided by 1/n + 1/m follows a chi-squared distribution with one
    degree of freedom less than there are bins (B. Yurdakul, J. Naranjo: Statistical properties of
    the population stability index. Journal of Risk Model Validation 14(4), 2020).
    """
    from scipy.stats import chi2

    if min(num_before, num_now) == 0 or num_bins < 2:
        return 0.0
    return float(chi2.ppf(_CHANCE, num_bins - 1)) * (1 / num_before + 1 / num_now)


def drift_suites(
    reference: Mapping[str, Any],
    profile: Mapping[str, Any],
    images: pd.DataFrame,
    rules: ValidationParams,
) -> list[Suite]:
    """Build the checks of this snapshot against the last one.

    Parameters
    ----------
    reference, profile
        What `snapshot_profile` returned for the last snapshot and for this one.
    images
        The images that `profile` describes.
    rules
        Thresholds.
    """
    balance = rules.labels.class_balance
    classes = list(profile["classes"])
    before, now = (
        np.array([document["classes"][name] for name in classes], dtype=np.int64)
        for document in (reference, profile)
    )
    shares = zip(classes, before / max(before.sum(), 1), now / max(now.sum(), 1), strict=True)
    change = ", ".join(f"{name} {p:.1%} -> {q:.1%}" for name, p, q in shares)
    class_rows = [_compared("diagnosis", change, before, now, balance)]
    image_rows = [_statistic(name, reference, profile, images, rules) for name in STATISTICS]
    return [
        _suite("class_balance", _CLASSES, class_rows, balance),
        _suite("statistics", _IMAGES, image_rows, rules.images.drift),
    ]


def _statistic(
    name: str,
    reference: Mapping[str, Any],
    profile: Mapping[str, Any],
    images: pd.DataFrame,
    rules: ValidationParams,
) -> dict[str, Any]:
    earlier = reference["statistics"][name]
    now = bin_counts(_values(images, name), np.asarray(earlier["edges"], dtype=np.float64))
    medians = (earlier["median"], profile["statistics"][name]["median"])
    change = " -> ".join("none" if median is None else f"{median:.3g}" for median in medians)
    before = np.asarray(earlier["counts"], dtype=np.int64)
    return _compared(name, f"median {change}", before, now, rules.images.drift)


def _compared(
    quantity: str, change: str, before: Counts, now: Counts, rule: Drift
) -> dict[str, Any]:
    chance = chance_bound(int(before.sum()), int(now.sum()), len(before))
    return {
        "quantity": quantity,
        "change": change,
        "psi": stability_index(before, now),
        "bound": max(rule.max_psi, chance),
    }


def _suite(name: str, check: tuple[str, str], rows: list[dict[str, Any]], rule: Drift) -> Suite:
    check_name, title = check
    expected = Check(
        name=check_name,
        severity=rule.severity,
        title=title,
        expectation="ExpectColumnPairValuesAToBeGreaterThanB",
        arguments={"column_A": "bound", "column_B": "psi", "or_equal": True},
        fix="find out what changed at the source (camera, clinic, selection) before you trust the "
        "new model",
        bound=f"PSI at most {max(row['bound'] for row in rows):.3g}",
    )
    return Suite(
        name,
        pd.DataFrame(rows),
        ("quantity", "change"),
        [expected],
        images=(),
        rows="distributions",
        row_name="{quantity} ({change}; PSI {psi:.3g})",
    )
