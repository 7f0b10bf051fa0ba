"""What a worker does of a recipe, in which order; and what it does not do again."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch

from components.training.features import fit_head, train_head_first
from components.training.job import Job
from components.training.loop import Training, fit
from components.training.worker import follow_recipe

MakeJob = Callable[..., Job]
MakeTraining = Callable[[Job], Training]


def _nothing(_: Training) -> None: ...


@pytest.mark.parametrize(
    ("recipe", "by_hand"),
    [
        ({"unfreeze": "none"}, [lambda training: fit_head(training, _nothing)]),
        ({"head_epochs": 0}, [lambda training: fit(training, _nothing)]),
        ({"head_epochs": 3}, [train_head_first, lambda training: fit(training, _nothing)]),
        # There is nothing but the head to train: not twice.
        (
            {"unfreeze": "none", "head_epochs": 3},
            [lambda training: fit_head(training, _nothing)],
        ),
    ],
    ids=["head only", "all at once", "head first", "head only, and first"],
)
def test_what_is_trained_in_which_order(
    make_job: MakeJob,
    make_training: MakeTraining,
    recipe: dict[str, Any],
    by_hand: list[Callable[[Training], None]],
) -> None:
    job = make_job("resnet18", **recipe)
    expected, training = make_training(job), make_training(job)
    for step in by_hand:
        step(expected)
    follow_recipe(training, _nothing)
    assert training.history == expected.history
    assert _same(training.best_state, expected.best_state)


def test_resumed_training_does_not_train_its_head_first_again(
    make_job: MakeJob, make_training: MakeTraining
) -> None:
    job = make_job("resnet18", head_epochs=3)
    whole, resumed = make_training(job), make_training(job)
    stored: list[Any] = []
    follow_recipe(whole, lambda training: stored.append(deepcopy(training.to_checkpoint())))
    resumed.restore(stored[0])
    follow_recipe(resumed, _nothing)
    assert resumed.history == whole.history
    assert _same(resumed.best_state, whole.best_state)


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
