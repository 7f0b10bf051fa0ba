"""Which backbone is best, on validation predictions: intervals, paired tests, shared ranks.

A backbone's number is the mean over its seeds. Its interval holds both sources of variation: each
resample draws groups of images, and seeds (S - 1 of S with replacement, so that the variance of
the mean over seeds comes out right also for two or three of them). With one seed the interval
knows of images only. Between backbones the images are paired, the seeds are not.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from components.errors import TableError
from components.evaluation.comparison import difference_document, holm, mcnemar
from components.evaluation.document import (
    groups_behind,
    number_interval,
    plain,
    why_no_interval,
)
from components.evaluation.ensembles import RunName
from components.evaluation.intervals import image_weights, stack
from components.evaluation.metrics import Measures, measure
from components.evaluation.prediction_table import Floats, Predictions, parse_predictions

SHOWN = ("balanced_accuracy", "accuracy", "macro_auc", "macro_f1", "log_loss", "ece")
RESAMPLES_PER_COMPARISON = 200
"""So that a p-value can still be small enough after Holm's correction."""


@dataclass(frozen=True)
class PartNumbers:
    """Numbers of every run on one part, in every resample.

    Attributes
    ----------
    values
        Run -> name of the number -> its value.
    resampled
        Run -> name -> shape (R,); resample r has the same groups for all runs.
    """

    tables: Mapping[RunName, Predictions]
    values: Mapping[RunName, Mapping[str, float]]
    resampled: Mapping[RunName, Measures]


def shown_numbers(classes: Sequence[str]) -> dict[str, str]:
    """Return the numbers of a leaderboard's row: name there -> name in `measure`."""
    melanoma = next((name for name in ("mel", "melanoma") if name in classes), None)
    names = {name: name for name in SHOWN}
    names["melanoma_sensitivity"] = (
        f"per_class.{melanoma}.sensitivity" if melanoma else "malignant.sensitivity"
    )
    return names | {"malignant_auc": "malignant.auc"}


def measure_part(
    frames: Mapping[RunName, pd.DataFrame],
    classes: Sequence[str],
    malignant: Sequence[str],
    resamples: int,
    seed: int,
) -> PartNumbers:
    """Measure all runs on their images of one part, under the same resamples.

    The runs of different folds have other images; groups are drawn from all of them together.

    Raises
    ------
    TableError
        Two tables disagree on the diagnosis of an image.
    """
    union = _union(frames, classes, malignant)
    position = {name: row for row, name in enumerate(union.image_ids)}
    names = shown_numbers(classes)
    tables = {
        run: parse_predictions(frame, classes, malignant, where=f"evaluation of {run}")
        for run, frame in frames.items()
    }
    rows = {run: np.array([position[i] for i in table.image_ids]) for run, table in tables.items()}
    parts: dict[RunName, list[Measures]] = {run: [] for run in frames}
    for weights in image_weights(union, resamples, seed):
        for run, table in tables.items():
            parts[run].append(_shown(table, weights[:, rows[run]], names))
    values = {
        run: {
            name: float(found[0])
            for name, found in _shown(table, np.ones((1, len(table))), names).items()
        }
        for run, table in tables.items()
    }
    return PartNumbers(tables, values, {run: stack(own) for run, own in parts.items()})


def _shown(table: Predictions, weights: Floats, names: Mapping[str, str]) -> Measures:
    measured = measure(table, weights)
    return {name: measured[source] for name, source in names.items() if source in measured}


def _union(
    frames: Mapping[RunName, pd.DataFrame], classes: Sequence[str], malignant: Sequence[str]
) -> Predictions:
    """Return all images of all tables, once each (their probabilities mean nothing here)."""
    joined = pd.concat(list(frames.values()), ignore_index=True)
    if (joined.groupby("image_id")["diagnosis"].nunique() > 1).any():
        raise TableError(
            "two evaluations disagree on the diagnosis of an image",
            where="evaluations/",
            fix="make them from the same labels: run `dvc repro`",
        )
    unique = joined.drop_duplicates("image_id")
    return parse_predictions(unique, classes, malignant).in_order()[0]


# --- backbones: seeds put together -------------------------------------------------------------


def seed_weights(backbone: str, num_seeds: int, resamples: int, seed: int) -> Floats:
    """Return how much each seed weighs in each resample, shape (R, S); rows sum to 1."""
    if num_seeds == 1:
        return np.ones((resamples, 1))
    rng = np.random.default_rng([seed, zlib.crc32(backbone.encode())])
    drawn = rng.integers(num_seeds, size=(resamples, num_seeds - 1))
    counts = (drawn[:, :, None] == np.arange(num_seeds)).sum(axis=1)
    return np.asarray(counts / (num_seeds - 1))


def backbone_resamples(part: PartNumbers, runs: Sequence[RunName], seed: int) -> Measures:
    """Return a backbone's numbers (means over its runs) in every resample."""
    first = part.resampled[runs[0]]
    weights = seed_weights(runs[0].backbone, len(runs), len(first["balanced_accuracy"]), seed)
    return {
        name: np.sum(
            weights * np.stack([part.resampled[run][name] for run in runs], axis=1), axis=1
        )
        for name in first
    }


def backbone_document(
    part: PartNumbers, runs: Sequence[RunName], resampled: Measures
) -> dict[str, Any]:
    """Return the numbers of a backbone.

    Returns
    -------
    dict
        Of each number `mean`, 95 % interval (`low`, `high`; where there is none `no_interval`
        says why), `sd` over seeds and `by_seed`.
    """
    document = {}
    table = part.tables[runs[0]]
    support, sources = groups_behind(table), shown_numbers(table.classes)
    for name, values in resampled.items():
        by_seed = [part.values[run][name] for run in runs]
        mean, source = float(np.mean(by_seed)), sources[name]
        num_groups = support.get(source, table.num_groups)
        bounds = number_interval(source, mean, values, num_groups)
        document[name] = {
            "mean": plain(mean),
            "low": bounds[0] if bounds else None,
            "high": bounds[1] if bounds else None,
            "no_interval": None if bounds else why_no_interval(mean, values, num_groups),
            "sd": plain(float(np.std(by_seed, ddof=1))) if len(runs) > 1 else None,
            "by_seed": [plain(value) for value in by_seed],
        }
    return document


# --- ranks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contender:
    """A backbone as the ranking sees it."""

    backbone: str
    runs: tuple[RunName, ...]
    balanced_accuracy: float
    melanoma_sensitivity: float
    macs: int
    resampled: Floats
    """Balanced accuracy in every resample, shape (R,)."""


def rank_contenders(
    contenders: Sequence[Contender], part: PartNumbers, significance: float
) -> tuple[list[tuple[int, Contender]], list[dict[str, Any]]]:
    """Return ranks and the comparisons that they rest on.

    The best by balanced accuracy is compared with every other one. What Holm's correction does
    not set apart shares its rank; the best of the rest opens the next rank, and so on. Within a
    rank the order is by melanoma sensitivity, then by the fewest multiply-adds, then by name.

    Returns
    -------
    ranked
        (rank, contender): three that share rank 1 are followed by rank 4.
    comparisons
        `first` (the leader of its round), `second`, difference with interval, `p_value`, `p_holm`,
        `distinguishable`, and `mcnemar` of the first seed that both have.
    """
    rest = sorted(contenders, key=lambda one: (-one.balanced_accuracy, one.backbone))
    ranked: list[tuple[int, Contender]] = []
    comparisons: list[dict[str, Any]] = []
    while rest:
        leader, others = rest[0], rest[1:]
        found = [_compare(leader, other, part) for other in others]
        corrected = holm([one["p_value"] for one in found])
        for one, p_value in zip(found, corrected, strict=True):
            one["p_holm"] = round(p_value, 12)
            one["distinguishable"] = p_value < significance
        comparisons += found
        apart = [one["distinguishable"] for one in found]
        sharing = [leader, *(o for o, far in zip(others, apart, strict=True) if not far)]
        rank = len(ranked) + 1
        ranked += [(rank, one) for one in sorted(sharing, key=_tie_break)]
        rest = [other for other, far in zip(others, apart, strict=True) if far]
    return ranked, comparisons


def _tie_break(one: Contender) -> tuple[float, int, str]:
    # Rounded, so that the last bits of a sum never decide; without malignant classes all are 0.
    return -round(np.nan_to_num(one.melanoma_sensitivity), 9), one.macs, one.backbone


def _compare(leader: Contender, other: Contender, part: PartNumbers) -> dict[str, Any]:
    difference = difference_document(
        leader.balanced_accuracy - other.balanced_accuracy, leader.resampled - other.resampled
    )
    return {
        "first": leader.backbone,
        "second": other.backbone,
        **difference,
        "mcnemar": _mcnemar(leader, other, part),
    }


def _mcnemar(leader: Contender, other: Contender, part: PartNumbers) -> dict[str, Any]:
    tables = [part.tables[one.runs[0]] for one in (leader, other)]
    if list(tables[0].image_ids) != list(tables[1].image_ids):
        raise TableError(
            f"{leader.runs[0]} and {other.runs[0]} were not validated on the same images",
            where="evaluations/",
            fix="run `dvc repro`: they come from different splits",
        )
    right = [table.predicted == table.truth for table in tables]
    return {"seed": leader.runs[0].seed, **mcnemar(right[0], right[1])}
