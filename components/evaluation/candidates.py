"""What could be promoted: a best seed, the winner's seeds together, or a greedy mix of runs.

Chosen by validation predictions; test numbers stand beside them for the reader and the gates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from components.errors import ParamsError
from components.evaluation.calibration import thresholds
from components.evaluation.document import intervals_document, plain
from components.evaluation.ensembles import (
    RunName,
    combine_tables,
    fit_factor,
    probabilities_of,
    same_images,
    select_greedily,
)
from components.evaluation.intervals import image_weights, stack
from components.evaluation.metrics import measure, point
from components.evaluation.prediction_table import parse_predictions
from components.evaluation.ranking import Contender, PartNumbers, shown_numbers
from components.params import Params

Tables = dict[RunName, pd.DataFrame]


def make_candidates(
    params: Params,
    tables: Mapping[str, Tables],
    temperatures: Mapping[RunName, float],
    validation: PartNumbers,
    winner: Contender,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the candidate that params ask for, and every ensemble that could be one.

    Raises
    ------
    ParamsError
        The choice would compare runs that were validated on different images (folds).
    """
    picks: dict[str, dict[RunName, int]] = {"seed_ensemble": dict.fromkeys(winner.runs, 1)}
    # On other images the best number is that of the easiest fold, not of the best run.
    if same_images([tables["validation"][name] for name in winner.runs]):
        best = max(winner.runs, key=lambda name: _single_quality(validation, name))
        picks["best_seed"] = {best: 1}
    if same_images(list(tables["validation"].values())):
        first = validation.tables[winner.runs[0]]
        picks["greedy_ensemble"] = select_greedily(
            {name: table.probabilities for name, table in validation.tables.items()},
            first.truth,
            params.ranking.max_members,
        )
    kind = params.ranking.candidate
    if kind not in picks:
        raise ParamsError(
            f"ranking.candidate is {kind}, and the runs have different validation parts: "
            "their numbers cannot be held against each other",
            where="params.yaml",
            fix="set ranking.candidate to seed_ensemble, or split.folds to 0",
        )
    documents = {
        name: _candidate(name, own, params, tables, temperatures)
        for name, own in picks.items()
        if name == kind or len(own) > 1
    }
    ensembles = [own for own in documents.values() if len(own["members"]) > 1]
    return documents[kind], ensembles


def _single_quality(part: PartNumbers, name: RunName) -> tuple[float, float, int]:
    """Balanced accuracy, then the smaller log loss, then the smaller seed."""
    own = part.values[name]
    return round(own["balanced_accuracy"], 9), -round(own["log_loss"], 9), -name.seed


def _candidate(
    kind: str,
    picks: Mapping[RunName, int],
    params: Params,
    tables: Mapping[str, Tables],
    temperatures: Mapping[RunName, float],
) -> dict[str, Any]:
    """Return what makes a candidate, and its numbers on both parts."""
    classes, malignant = params.diagnoses.classes, params.diagnoses.malignant
    names, weights = sorted(picks), [float(picks[name]) for name in sorted(picks)]
    document: dict[str, Any] = {"kind": kind, "temperature_factor": 1.0, "thresholds": None}
    own = [tables["validation"][name] for name in names]
    document["validation"] = None
    if same_images(own):
        truth = parse_predictions(own[0], classes, malignant).truth
        factor = fit_factor([probabilities_of(table, classes) for table in own], weights, truth)
        document["temperature_factor"] = factor
        combined = combine_tables(own, weights, factor)
        document["thresholds"] = thresholds(parse_predictions(combined, classes, malignant))
        document["validation"] = _numbers(combined, params)
    tested = [tables["test"][name] for name in names]
    combined = combine_tables(tested, weights, document["temperature_factor"])
    document["test"] = _numbers(combined, params)
    document["members"] = [
        {
            "backbone": name.backbone,
            "seed": name.seed,
            "weight": weight,
            "temperature": round(temperatures[name] * document["temperature_factor"], 6),
        }
        for name, weight in zip(names, weights, strict=True)
    ]
    return document


def _numbers(frame: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Return value and interval of the leaderboard's numbers for one prediction table."""
    classes = params.diagnoses.classes
    table, _ = parse_predictions(frame, classes, params.diagnoses.malignant).in_order()
    resamples = params.evaluation.bootstrap_resamples
    chunks = image_weights(table, resamples, params.seed)
    values, resampled = point(table), stack([measure(table, weights) for weights in chunks])
    intervals, _ = intervals_document(table, values, resampled)
    return {
        name: {
            "value": plain(values[source]),
            "low": intervals[source][0] if source in intervals else None,
            "high": intervals[source][1] if source in intervals else None,
        }
        for name, source in shown_numbers(classes).items()
        if source in values
    }
