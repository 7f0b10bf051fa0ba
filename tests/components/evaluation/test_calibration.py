"""Temperature, thresholds and reliability: what they find, and on what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from components.evaluation.calibration import (
    LARGEST_TEMPERATURE,
    LEAST_TEMPERATURE,
    apply_temperature,
    fit_temperature,
    operating_points,
    reliability,
    thresholds,
)
from components.evaluation.metrics import point
from components.evaluation.prediction_table import parse_predictions

MakeTable = Callable[..., pd.DataFrame]


def test_a_temperature_can_be_undone(make_table: MakeTable) -> None:
    before = parse_predictions(make_table()).probabilities
    after = apply_temperature(before, 2.5)
    assert np.allclose(after.sum(axis=1), 1) and (after.argmax(1) == before.argmax(1)).all()
    assert np.allclose(apply_temperature(after, 1 / 2.5), before, atol=1e-12)


def test_the_temperature_is_that_of_softmax_of_logits_over_it() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 4
    powers = np.exp(logits)
    expected = np.exp(logits / 1.7)
    ours = apply_temperature(powers / powers.sum(1, keepdims=True), 1.7)
    assert np.allclose(ours, expected / expected.sum(1, keepdims=True))


@pytest.mark.parametrize("wrong_by", [0.4, 1.0, 3.0])
def test_the_fit_finds_how_much_too_sure_a_model_is(wrong_by: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 4)) * 1.5
    calibrated = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random((len(logits), 1)) > calibrated.cumsum(axis=1)).sum(axis=1)
    shown = apply_temperature(calibrated, wrong_by)
    assert fit_temperature(shown, truth) == pytest.approx(1 / wrong_by, rel=0.04)


def test_the_fit_is_the_minimum_of_the_log_loss(make_table: MakeTable) -> None:
    table = parse_predictions(make_table(temperature=0.5, seed=5))
    best = fit_temperature(table.probabilities, table.truth)

    def loss(temperature: float) -> float:
        own = apply_temperature(table.probabilities, temperature)
        return float(-np.log(own[np.arange(len(table)), table.truth]).mean())

    assert best > 1
    grid = np.geomspace(0.2, 5, 400)
    assert loss(best) <= min(map(loss, grid)) + 1e-9


def test_a_perfect_and_a_hopeless_model_get_a_finite_temperature() -> None:
    right = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(right, np.array([0, 1])) == pytest.approx(LEAST_TEMPERATURE, rel=1e-3)
    assert fit_temperature(right, np.array([1, 0])) == pytest.approx(LARGEST_TEMPERATURE, rel=1e-3)
    certain = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert np.isfinite(fit_temperature(certain, np.array([0, 1, 1])))


def test_thresholds_are_the_best_that_keep_their_rule(make_table: MakeTable) -> None:
    table = parse_predictions(make_table(seed=7))
    found = thresholds(table)
    assert [(entry["score"], entry["rule"]) for entry in found] == [
        (score, f"{rule} >= {target}")
        for score in ("malignant", "mel")
        for rule in ("sensitivity", "specificity")
        for target in ("0.90", "0.95")
    ]
    for entry in found:
        scores = table.malignant_score if entry["score"] == "malignant" else None
        positive = table.is_malignant[table.truth]
        if scores is None:
            scores, positive = table.probabilities[:, 4], table.truth == 4
        rule, target = entry["rule"].split(" >= ")
        points = []
        for threshold in scores:
            called = scores >= threshold
            sensitivity, specificity = called[positive].mean(), (~called[~positive]).mean()
            kept, other = (
                (sensitivity, specificity) if rule == "sensitivity" else (specificity, sensitivity)
            )
            if kept >= float(target):
                points.append((other, kept))
        best = max(points)
        other = "specificity" if rule == "sensitivity" else "sensitivity"
        assert (entry[other], entry[rule]) == pytest.approx(best)
    again = operating_points(table, found)
    for entry, reached in zip(found, again, strict=True):
        assert reached["sensitivity"] == pytest.approx(entry["sensitivity"])
        assert reached["specificity"] == pytest.approx(entry["specificity"])


def test_a_threshold_is_judged_on_the_table_at_hand(make_table: MakeTable) -> None:
    chosen = thresholds(parse_predictions(make_table(seed=1)))
    other = parse_predictions(make_table(seed=2))
    called = other.malignant_score >= chosen[0]["threshold"]
    positive = other.is_malignant[other.truth]
    reached = operating_points(other, chosen)[0]
    assert reached["sensitivity"] == pytest.approx(called[positive].mean())
    assert reached["specificity"] == pytest.approx((~called[~positive]).mean())


def test_where_one_side_is_missing_there_is_no_threshold(make_table: MakeTable) -> None:
    frame = make_table()
    assert thresholds(parse_predictions(frame, malignant=())) == [
        entry for entry in thresholds(parse_predictions(frame)) if entry["score"] == "mel"
    ]
    benign = parse_predictions(frame[frame["diagnosis"].isin(["nv", "bkl"])])
    assert thresholds(benign) == []
    assert operating_points(benign, thresholds(parse_predictions(frame))) == []


def test_the_reliability_diagram_adds_up_to_the_calibration_error(make_table: MakeTable) -> None:
    table = parse_predictions(make_table())
    rows = reliability(table)
    assert rows["num_images"].sum() == len(table)
    assert ((rows["low"] < rows["confidence"]) & (rows["confidence"] <= rows["high"])).all()
    gap = (rows["accuracy"] - rows["confidence"]).abs()
    assert (gap * rows["num_images"]).sum() / len(table) == pytest.approx(point(table)["ece"])
