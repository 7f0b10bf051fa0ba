"""ROC and precision-recall numbers against scikit-learn, and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from components.evaluation.curves import Curve


def _curve(scores: list[float], truth: list[int], weights: list[float] | None = None) -> Curve:
    given_weights = np.ones(len(scores)) if weights is None else np.array(weights)
    return Curve.of(np.array(scores), np.array(truth, dtype=bool), given_weights[None])


def _isic_auc_above(truth: np.ndarray, scores: np.ndarray, least: float, weights=None) -> float:  # type: ignore[no-untyped-def]
    """The ISIC scorer's definition on scikit-learn's ROC curve."""
    fpr, tpr, _ = sk.roc_curve(truth, scores, sample_weight=weights, drop_intermediate=False)
    start = int(tpr.searchsorted(least, side="left"))
    at = np.interp(least, tpr[start - 1 : start + 1], fpr[start - 1 : start + 1])
    return float(sk.auc(np.append(at, fpr[start:]), np.append(least, tpr[start:])))


tables = st.integers(2, 60).flatmap(
    lambda size: st.tuples(
        st.lists(st.integers(0, 12).map(lambda x: x / 12), min_size=size, max_size=size),
        st.lists(st.integers(0, 1), min_size=size, max_size=size).filter(
            lambda truth: 0 < sum(truth) < len(truth)
        ),
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 1.25]), min_size=size, max_size=size),
    )
)


@given(tables)
@settings(deadline=None, max_examples=80)
def test_numbers_agree_with_scikit_learn_with_ties_and_weights(table) -> None:  # type: ignore[no-untyped-def]
    scores, truth, drawn = (np.array(column, dtype=float) for column in table)
    for weights in (np.ones(len(scores)), drawn):
        positive = truth > 0
        if not weights[positive].any() or not weights[~positive].any():
            continue
        curve = Curve.of(scores, positive, weights[None])
        assert curve.auc()[0] == pytest.approx(
            sk.roc_auc_score(truth, scores, sample_weight=weights), abs=1e-9
        )
        assert curve.average_precision()[0] == pytest.approx(
            sk.average_precision_score(truth, scores, sample_weight=weights), abs=1e-9
        )
        fpr, tpr, _ = sk.roc_curve(truth, scores, sample_weight=weights, drop_intermediate=False)
        for least in (0.9, 0.95, 0.5):
            assert curve.sensitivity_at_specificity(least)[0] == pytest.approx(
                tpr[fpr <= 1 - least + 1e-9].max(), abs=1e-9
            )
            assert curve.specificity_at_sensitivity(least)[0] == pytest.approx(
                1 - fpr[tpr >= least - 1e-9].min(), abs=1e-9
            )


@given(tables)
@settings(deadline=None, max_examples=80)
def test_the_area_above_80_sensitivity_is_the_isic_scorers(table) -> None:  # type: ignore[no-untyped-def]
    scores, truth, _ = (np.array(column, dtype=float) for column in table)
    ours = Curve.of(scores, truth > 0, np.ones((1, len(scores)))).auc_above_sensitivity(0.8)[0]
    assert ours == pytest.approx(_isic_auc_above(truth, scores, 0.8), abs=1e-9)


def test_the_area_above_a_sensitivity_in_cases_worked_by_hand() -> None:
    perfect = _curve([0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1])
    assert perfect.auc_above_sensitivity(0.8)[0] == 1.0
    wrong = _curve([0.8, 0.6, 0.4, 0.2], [0, 0, 1, 1])
    assert wrong.auc_above_sensitivity(0.8)[0] == 0.0
    chance = _curve([0.5, 0.5], [0, 1])  # one straight line from (0, 0) to (1, 1)
    assert chance.auc_above_sensitivity(0.8)[0] == pytest.approx((1 - 0.8**2) / 2)


def test_an_operating_point_is_a_threshold_that_exists() -> None:
    # By falling score: + - + + -, so sensitivities 1/3, 1/3, 2/3, 1, 1.
    curve = _curve([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 1, 0])
    assert curve.sensitivity_at_specificity(0.9)[0] == pytest.approx(1 / 3)
    assert curve.sensitivity_at_specificity(0.5)[0] == pytest.approx(1.0)
    assert curve.specificity_at_sensitivity(0.95)[0] == pytest.approx(0.5)


def test_a_bound_that_is_met_exactly_counts_in_spite_of_rounding() -> None:
    truth, scores = [0] * 10 + [1], [0.9] + [0.1] * 9 + [0.5]
    weights = [10 / 9] * 10 + [1.0]  # 1 - 1/10 of a sum of tenths is not exactly 0.9
    assert _curve(scores, truth, weights).sensitivity_at_specificity(0.9)[0] == 1.0


def test_without_one_of_the_sides_nothing_is_defined() -> None:
    for truth in ([1, 1, 1], [0, 0, 0]):
        curve = _curve([0.1, 0.2, 0.3], truth)
        for value in (
            curve.auc(),
            curve.auc_above_sensitivity(0.8),
            curve.sensitivity_at_specificity(0.9),
            curve.specificity_at_sensitivity(0.95),
        ):
            assert np.isnan(value[0])


def test_every_weighting_is_a_table_of_its_own() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.random(50).round(1), rng.random(50) < 0.4
    weights = rng.integers(0, 3, size=(7, 50)).astype(float)
    together = Curve.of(scores, positive, weights)
    for row, own in enumerate(weights):
        alone = Curve.of(scores, positive, own[None])
        assert together.auc()[row] == pytest.approx(alone.auc()[0], abs=1e-12)
        repeated = np.repeat(np.arange(50), own.astype(int))
        assert together.auc()[row] == pytest.approx(
            sk.roc_auc_score(positive[repeated], scores[repeated]), abs=1e-9
        )
