"""Several runs as one model: the mean of their calibrated probabilities.

The mean of calibrated members is too careful; one factor on all their temperatures, fitted on
validation, mends that and is written into the members (a model file knows no other temperature).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from components.errors import TableError
from components.evaluation.calibration import apply_temperature, table_at
from components.evaluation.prediction_table import Codes, Floats
from components.layout import Layout
from components.tables import probability_columns, read_table

LEAST_FACTOR, LARGEST_FACTOR = 0.2, 5.0


@dataclass(frozen=True, order=True)
class RunName:
    """A training by its backbone and seed."""

    backbone: str
    seed: int

    def __str__(self) -> str:
        return f"{self.backbone}-{self.seed}"


def average(probabilities: Sequence[Floats], weights: Sequence[float], factor: float) -> Floats:
    """Return the weighted mean of members' probabilities, shape (N, C).

    Parameters
    ----------
    probabilities
        One (N, C) per member, at the member's own temperature.
    weights
        One per member.
    factor
        Multiplies every member's temperature.
    """
    total = np.zeros_like(probabilities[0])
    for own, weight in zip(probabilities, weights, strict=True):
        total += weight * (own if factor == 1 else apply_temperature(own, factor))
    return np.asarray(total / sum(weights))


def fit_factor(probabilities: Sequence[Floats], weights: Sequence[float], truth: Codes) -> float:
    """Return the factor on the members' temperatures with the least log loss; 1 for one member."""
    if len(probabilities) == 1:
        return 1.0
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(truth))

    def loss(log_factor: float) -> float:
        mean = average(probabilities, weights, float(np.exp(log_factor)))
        return float(-np.log(np.clip(mean[rows, truth], np.finfo(np.float64).tiny, None)).mean())

    bounds = (np.log(LEAST_FACTOR), np.log(LARGEST_FACTOR))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(round(np.exp(found.x), 6))


def select_greedily(
    runs: Mapping[RunName, Floats], truth: Codes, max_members: int
) -> dict[RunName, int]:
    """Pick runs, again and again, that raise the mean's balanced accuracy most.

    Caruana et al. 2004, "Ensemble selection from libraries of models": forward, with replacement.
    Of equals the one with the smaller log loss (of the classes' means), then the first by name.
    It stops when no pick helps.

    Parameters
    ----------
    runs
        Probabilities (N, C) of the same images.
    truth
        Shape (N,).
    max_members
        Most picks.

    Returns
    -------
    dict
        How often each run was picked.
    """
    picks: dict[RunName, int] = {}
    total, best = np.zeros(()), (-1.0, -np.inf)
    for number in range(1, max_members + 1):
        scored = {
            name: _quality((total + probabilities) / number, truth)
            for name, probabilities in sorted(runs.items())
        }
        name = max(scored, key=lambda key: scored[key])
        if scored[name] <= best:
            break
        best, total = scored[name], total + runs[name]
        picks[name] = picks.get(name, 0) + 1
    return picks


def _quality(probabilities: Floats, truth: Codes) -> tuple[float, float]:
    """Return balanced accuracy, and minus the log loss averaged by class."""
    right = probabilities.argmax(axis=1) == truth
    own = np.log(np.clip(probabilities[np.arange(len(truth)), truth], 1e-15, None))
    counts = np.bincount(truth)
    present = counts > 0
    share, log = (
        (np.bincount(truth, weights=values)[present] / counts[present]).mean()
        for values in (right.astype(float), own)
    )
    return round(float(share), 12), round(float(log), 12)


def candidate_predictions(layout: Layout, candidate: Mapping[str, Any], part: str) -> pd.DataFrame:
    """Return the prediction table of the leaderboard's candidate for `validation` or `test`.

    It equals what the candidate's model file predicts: its members carry `weight` and
    `temperature` as `candidate["members"]` says.

    Raises
    ------
    TableError
        A member's table is missing, or the members have not predicted the same images (the
        validation parts of different folds).
    """
    members = candidate["members"]
    tables = [
        read_table(layout.evaluation(member["backbone"], member["seed"]) / f"{part}.parquet")
        for member in members
    ]
    weights = [member["weight"] for member in members]
    return combine_tables(tables, weights, candidate["temperature_factor"])


def uncalibrated_predictions(
    layout: Layout, candidate: Mapping[str, Any], part: str
) -> pd.DataFrame:
    """Return the table that the candidate would have without any calibration.

    Every member at temperature 1. Raises as `candidate_predictions`.
    """
    tables, members = [], candidate["members"]
    for member in members:
        run = RunName(member["backbone"], member["seed"])
        table = read_table(layout.evaluation(run.backbone, run.seed) / f"{part}.parquet")
        classes = [name.removeprefix("p_") for name in table.columns if name.startswith("p_")]
        tables.append(table_at(table, classes, 1 / temperature_of(layout, run)))
    return combine_tables(tables, [member["weight"] for member in members], 1.0)


def temperature_of(layout: Layout, run: RunName) -> float:
    """Return the temperature that a run's evaluation fitted; raises as `read_evaluation`."""
    return float(read_evaluation(layout, run, "calibration.json")["temperature"])


def read_evaluation(layout: Layout, run: RunName, name: str) -> dict[str, Any]:
    """Return a JSON file of a run's evaluation.

    Raises
    ------
    TableError
        It is missing or damaged.
    """
    path = layout.evaluation(run.backbone, run.seed) / name
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise TableError(
            f"a file of the evaluation of {run} is missing or damaged",
            where=str(path),
            fix=f"run `dvc repro -f -s evaluate@{run}`",
        ) from error


def combine_tables(
    tables: Sequence[pd.DataFrame], weights: Sequence[float], factor: float
) -> pd.DataFrame:
    """Return the table of an ensemble; everything but the probabilities is that of the first."""
    first = tables[0]
    if any(not table["image_id"].equals(first["image_id"]) for table in tables):
        raise TableError(
            "the members of the ensemble have not predicted the same images",
            where="evaluations/",
            fix="ensembles need one validation part for all runs: set split.folds to 0",
        )
    columns = [name for name in first.columns if str(name).startswith("p_")]
    mean = average([table[columns].to_numpy(dtype=np.float64) for table in tables], weights, factor)
    return first.assign(**{name: mean[:, number] for number, name in enumerate(columns)})


def same_images(tables: Sequence[pd.DataFrame]) -> bool:
    """Whether all tables have the same images, in the same order."""
    return all(table["image_id"].equals(tables[0]["image_id"]) for table in tables)


def probabilities_of(table: pd.DataFrame, classes: Sequence[str]) -> Floats:
    """Return the probabilities of a prediction table, shape (N, C)."""
    return table[probability_columns(classes)].to_numpy(dtype=np.float64)
