"""What the trials try lies in the space, covers it, and follows from the seed."""

from __future__ import annotations

import math

import pytest

from components.tuning.config import Range, TuneParams
from components.tuning.space import suggest

SPACE = TuneParams().space


@pytest.mark.parametrize("seed", range(5))
def test_suggestions_are_in_the_space(seed: int) -> None:
    for changes in suggest(SPACE, 20, seed):
        assert list(changes) == list(SPACE)
        for key, value in changes.items():
            dimension = SPACE[key]
            if isinstance(dimension, Range):
                assert isinstance(value, float)
                assert dimension.low <= value <= dimension.high
            else:
                assert value in dimension


def test_suggestions_follow_from_the_seed() -> None:
    assert suggest(SPACE, 8, seed=3) == suggest(SPACE, 8, seed=3)
    assert suggest(SPACE, 8, seed=3) != suggest(SPACE, 8, seed=4)


def test_a_range_is_covered_evenly_and_on_its_own_scale() -> None:
    space = {"learning_rate": Range(low=1e-4, high=1.0, log=True), "mixup": Range(low=0, high=4)}
    suggestions = suggest(space, 4, seed=0)
    decades = sorted(math.floor(math.log10(float(each["learning_rate"]))) for each in suggestions)
    assert decades == [-4, -3, -2, -1]
    assert sorted(int(float(each["mixup"])) for each in suggestions) == [0, 1, 2, 3]


def test_every_choice_is_tried_equally_often() -> None:
    tried = [each["batch_size"] for each in suggest({"batch_size": (8, 16, 32)}, 6, seed=1)]
    assert sorted(tried) == [8, 8, 16, 16, 32, 32]


def test_rounding_does_not_leave_the_range() -> None:
    space = {"warmup": Range(low=0.123451, high=0.123459)}
    assert {each["warmup"] for each in suggest(space, 3, seed=0)} == {0.123451}
