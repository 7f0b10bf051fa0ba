"""How many groups of a class the split needs."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import SplitError
from components.splitting.assign import assign, check_parts
from components.splitting.config import SplitParams
from components.splitting.ledger import Ledger
from components.tables import LABEL_COLUMNS, PAIR_COLUMNS, QUARANTINE_COLUMNS
from components.validation.labels import needed_groups

CLASSES = ("a", "b")


def _split(num_groups: int, params: SplitParams, seed: int) -> None:
    rows = [
        {"image_id": f"{name}{k}", "diagnosis": name} for name in CLASSES for k in range(num_groups)
    ]
    labels = pd.DataFrame(rows, columns=list(LABEL_COLUMNS)).astype(object)
    labels["source"] = "test"
    splits = assign(
        labels,
        pd.DataFrame(columns=list(PAIR_COLUMNS)),
        pd.DataFrame(columns=list(QUARANTINE_COLUMNS)),
        Ledger.empty(),
        params,
        seed=seed,
    )
    check_parts(splits, labels, CLASSES, params)


@st.composite
def _splits(draw: st.DrawFn) -> SplitParams:
    validation = draw(st.floats(0.05, 0.4))
    test = draw(st.floats(0.05, 0.4))
    folds = draw(st.sampled_from([0, 2, 3, 5, 10]))
    return SplitParams(train=1 - validation - test, validation=validation, test=test, folds=folds)


@settings(max_examples=30, deadline=None)
@given(params=_splits(), seed=st.integers(0, 1000))
def test_with_as_many_groups_as_needed_the_split_works(params: SplitParams, seed: int) -> None:
    _split(needed_groups(params), params, seed)


def test_with_one_group_less_it_does_not() -> None:
    params = SplitParams(train=0.7, validation=0.15, test=0.15)
    assert needed_groups(params) == 3
    with pytest.raises(SplitError):
        _split(2, params, 0)


@pytest.mark.parametrize(("folds", "needed"), [(0, 3), (2, 3), (5, 6), (10, 12)])
def test_folds_need_groups_outside_test(folds: int, needed: int) -> None:
    assert needed_groups(SplitParams(train=0.7, validation=0.15, test=0.15, folds=folds)) == needed
