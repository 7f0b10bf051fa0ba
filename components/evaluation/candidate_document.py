"""The numbers of the leaderboard's candidate on test, be it one run or an ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation.ensembles import (
    RunName,
    candidate_predictions,
    read_evaluation,
    uncalibrated_predictions,
)
from components.evaluation.part_document import part_document
from components.layout import Layout
from components.params import Params


def candidate_document(
    params: Params, layout: Layout, candidate: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the candidate's `part_document` of the test part.

    That of its run, as the stage `evaluate` wrote it; of an ensemble it is made here, from its
    averaged predictions and the thresholds that they were given on validation.

    Raises
    ------
    TableError
        A file of a member's evaluation is missing or damaged.
    """
    members = candidate["members"]
    if len(members) == 1:
        run = RunName(members[0]["backbone"], members[0]["seed"])
        return read_evaluation(layout, run, "metrics.json")
    return part_document(
        params,
        "test",
        uncalibrated_predictions(layout, candidate, "test"),
        candidate_predictions(layout, candidate, "test"),
        temperature=None,
        chosen=candidate["thresholds"] or [],
    )
