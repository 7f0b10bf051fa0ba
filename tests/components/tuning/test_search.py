"""A search goes on after an interruption, and judges by what it knew before."""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune.experiment import Trial

from components.tuning.search import Ladder
from components.tuning.trial import EPOCH, SCORE, SCORES


def _trial(number: int, status: str, scores: list[float]) -> Trial:
    trial = Trial("stub", config={"trial": number}, trial_id=str(number), stub=True)
    trial.set_status(status)
    trial.update_last_result({SCORES: scores, EPOCH: len(scores), SCORE: (scores or [0.0])[-1]})
    return trial


@pytest.mark.parametrize(("before", "decision"), [([0.9, 0.8], "STOP"), ([], "CONTINUE")])
def test_what_ended_before_an_interruption_is_what_later_trials_are_held_against(
    before: list[float], decision: str
) -> None:
    ladder: Any = Ladder(
        time_attr=EPOCH, metric=SCORE, mode="max", max_t=4, grace_period=1, reduction_factor=2
    )
    ladder.on_trial_add(None, _trial(0, Trial.TERMINATED, before))
    later = _trial(1, Trial.PENDING, [])
    ladder.on_trial_add(None, later)
    assert ladder.on_trial_result(None, later, {EPOCH: 1, SCORE: 0.5}) == decision
