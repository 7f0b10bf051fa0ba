"""Paired tests of two models, against scipy and cases worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from components.errors import TableError
from components.evaluation.comparison import (
    bootstrap_p_value,
    compare,
    holm,
    mcnemar,
    sign_test,
)
from components.evaluation.score import score_table

MakeTable = Callable[..., pd.DataFrame]


def _blurred(frame: pd.DataFrame, noise: float, seed: int = 0) -> pd.DataFrame:
    """The same images by a model that mixes in noise."""
    columns = [name for name in frame.columns if name.startswith("p_")]
    other = np.random.default_rng(seed).dirichlet(np.ones(len(columns)), len(frame))
    return frame.assign(
        **dict(
            zip(columns, ((1 - noise) * frame[columns] + noise * other).to_numpy().T, strict=True)
        )
    )


def test_a_clearly_worse_model_is_told_apart(make_table: MakeTable) -> None:
    frame = make_table(num_images=500)
    document = compare(frame, _blurred(frame, 0.8), resamples=500)
    found = document["differences"]["balanced_accuracy"]
    assert found["first"] == score_table(frame, resamples=100)["balanced_accuracy"]
    assert found["difference"] == pytest.approx(found["first"] - found["second"])
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["p_value"] == pytest.approx(2 / 501)
    assert document["mcnemar"]["only_first"] > document["mcnemar"]["only_second"]
    assert document["differences"]["malignant.auc"]["low"] > 0


def test_a_model_is_not_told_apart_from_itself(make_table: MakeTable) -> None:
    frame = make_table(num_images=200)
    document = compare(frame, frame, resamples=200)
    for found in document["differences"].values():
        assert found["difference"] in (0.0, None) and found["p_value"] in (1.0, None)
    assert document["mcnemar"] == {"only_first": 0, "only_second": 0, "p_value": 1.0}


def test_pairing_makes_the_interval_narrower_than_the_models_own(make_table: MakeTable) -> None:
    frame = make_table(num_images=500)
    found = compare(frame, _blurred(frame, 0.1), resamples=500)["differences"]["accuracy"]
    low, high = score_table(frame, resamples=500)["intervals"]["accuracy"]
    assert found["high"] - found["low"] < 0.7 * (high - low)


def test_the_order_of_rows_changes_nothing(make_table: MakeTable) -> None:
    frame = make_table(num_images=150)
    other = _blurred(frame, 0.3)
    shuffled = other.sample(frac=1, random_state=1)
    assert compare(frame, shuffled, resamples=100) == compare(frame, other, resamples=100)


def test_tables_of_other_images_or_labels_are_refused(make_table: MakeTable) -> None:
    frame = make_table(num_images=100)
    with pytest.raises(TableError, match=r"1 images are in only one .* image-00004"):
        compare(frame, frame.drop(index=4), resamples=100)
    relabelled = frame.copy()
    relabelled.loc[6, "diagnosis"] = "df" if frame["diagnosis"][6] != "df" else "nv"
    with pytest.raises(TableError, match=r"another diagnosis .* image-00006"):
        compare(frame, relabelled, resamples=100)


def test_mcnemar_is_a_fair_coin_for_the_images_that_only_one_gets_right() -> None:
    first = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1], dtype=bool)
    second = np.array([1, 0, 0, 0, 0, 0, 1, 0, 1], dtype=bool)
    found = mcnemar(first, second)
    assert (found["only_first"], found["only_second"]) == (5, 1)
    assert found["p_value"] == pytest.approx(binomtest(5, 6).pvalue)
    assert found["p_value"] == pytest.approx(2 * 7 / 64)


def test_the_sign_test_gives_a_group_one_vote() -> None:
    first = np.array([1, 1, 1, 1, 0, 1], dtype=bool)
    second = np.array([0, 0, 0, 0, 1, 0], dtype=bool)
    groups = np.array([0, 0, 0, 1, 2, 2])  # group 2: one each, no vote
    found = sign_test(first, second, groups)
    assert (found["only_first"], found["only_second"]) == (2, 0)
    assert found["p_value"] == pytest.approx(0.5)


def test_holms_correction_of_an_example_worked_by_hand() -> None:
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_p_value_is_never_nothing() -> None:
    assert bootstrap_p_value(np.full(999, 0.3)) == pytest.approx(2 / 1000)
    assert bootstrap_p_value(np.zeros(999)) == 1.0
    half = np.append(np.full(500, -1.0), np.full(499, 1.0))
    assert bootstrap_p_value(half) == pytest.approx(1.0)


def test_p_values_of_equal_models_are_seldom_small(make_table: MakeTable) -> None:
    """Two noisy copies of one model: at the 10 % level about 10 % of the tables differ."""
    small = 0
    for seed in range(60):
        frame = make_table(num_images=150, seed=seed, classes=("mel", "nv", "bkl"))
        pair = [_blurred(frame, 0.5, 2 * seed + number) for number in range(2)]
        found = compare(*pair, resamples=199)["differences"]["balanced_accuracy"]
        small += found["p_value"] < 0.1
    assert small <= 14
