"""Averages of runs: what is picked, how it is calibrated, and what a part's table is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.errors import TableError
from components.evaluation.calibration import apply_temperature
from components.evaluation.ensembles import (
    RunName,
    average,
    candidate_predictions,
    combine_tables,
    fit_factor,
    select_greedily,
)
from components.evaluation.metrics import point
from components.evaluation.prediction_table import parse_predictions
from components.layout import Layout
from components.tables import write_table

MakeTable = Callable[..., pd.DataFrame]
A, B, C = RunName("resnet18", 0), RunName("resnet18", 1), RunName("vgg11", 0)


def _noisy(truth: np.ndarray, seed: int, skill: float = 1.5) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(truth), 4))
    logits[np.arange(len(truth)), truth] += skill
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def _loss(probabilities: np.ndarray, truth: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(-np.log(probabilities[np.arange(len(truth)), truth]).mean())


def test_the_average_weighs_members_and_their_temperatures() -> None:
    truth = np.zeros(5, dtype=int)
    one, two = _noisy(truth, 0), _noisy(truth, 1)
    assert np.allclose(average([one, two], [3, 1], 1.0), (3 * one + two) / 4)
    expected = (apply_temperature(one, 0.8) + apply_temperature(two, 0.8)) / 2
    assert np.allclose(average([one, two], [1, 1], 0.8), expected)


def test_the_factor_mends_the_carefulness_of_an_average() -> None:
    truth = np.random.default_rng(0).integers(0, 4, 2000)
    members = [_noisy(truth, seed) for seed in range(6)]
    factor = fit_factor(members, [1.0] * 6, truth)
    assert factor < 1  # independent members agree less than each one knows
    assert _loss(average(members, [1.0] * 6, factor), truth) < _loss(
        average(members, [1.0] * 6, 1.0), truth
    )
    grid = [_loss(average(members, [1.0] * 6, f), truth) for f in np.geomspace(0.3, 3, 100)]
    assert _loss(average(members, [1.0] * 6, factor), truth) <= min(grid) + 1e-9
    assert fit_factor(members[:1], [1.0], truth) == 1.0


def test_the_greedy_search_starts_with_the_best_and_adds_what_helps() -> None:
    truth = np.random.default_rng(1).integers(0, 4, 800)
    runs = {A: _noisy(truth, 0, 1.0), B: _noisy(truth, 1, 2.0), C: _noisy(truth, 2, 1.9)}
    only_best = select_greedily(runs, truth, max_members=1)
    assert only_best == {B: 1}
    picks = select_greedily(runs, truth, max_members=4)
    assert picks[B] >= 1 and picks.get(C, 0) >= 1 and sum(picks.values()) <= 4
    weights = [picks.get(run, 0) for run in runs]
    mixed = average(list(runs.values()), weights, 1.0)
    right = {run: (p.argmax(1) == truth).mean() for run, p in runs.items()}
    assert (mixed.argmax(1) == truth).mean() > max(right.values())


def test_a_run_that_does_not_help_is_not_picked() -> None:
    truth = np.random.default_rng(1).integers(0, 4, 300)
    runs = {A: _noisy(truth, 0, 6.0), B: np.full((300, 4), 0.25)}
    assert select_greedily(runs, truth, max_members=5) == {A: 1}


def test_the_search_does_not_depend_on_the_order_of_the_runs() -> None:
    truth = np.random.default_rng(2).integers(0, 4, 200)
    runs = {A: _noisy(truth, 0), B: _noisy(truth, 1), C: _noisy(truth, 0)}  # A and C are equal
    backwards = dict(reversed(runs.items()))
    assert select_greedily(runs, truth, 4) == select_greedily(backwards, truth, 4)


def test_the_candidates_table_is_the_mean_of_its_members_tables(
    tmp_path: Path, make_table: MakeTable
) -> None:
    layout = Layout(tmp_path)
    tables = [make_table(num_images=50, seed=1), make_table(num_images=50, seed=1, skill=1.0)]
    for run, table in zip((A, C), tables, strict=True):
        write_table(table, layout.evaluation(run.backbone, run.seed) / "test.parquet")
    candidate = {
        "members": [
            {"backbone": A.backbone, "seed": A.seed, "weight": 2.0},
            {"backbone": C.backbone, "seed": C.seed, "weight": 1.0},
        ],
        "temperature_factor": 1.0,
    }
    found = candidate_predictions(layout, candidate, "test")
    assert found["p_mel"].to_numpy() == pytest.approx(
        ((2 * tables[0]["p_mel"] + tables[1]["p_mel"]) / 3).to_numpy()
    )
    assert list(found.columns) == list(tables[0].columns)
    assert 0 < point(parse_predictions(found))["accuracy"] < 1


def test_members_of_other_images_cannot_be_averaged(make_table: MakeTable) -> None:
    frame = make_table(num_images=50)
    with pytest.raises(TableError, match="not predicted the same images"):
        combine_tables([frame, frame.iloc[:-1]], [1.0, 1.0], 1.0)
