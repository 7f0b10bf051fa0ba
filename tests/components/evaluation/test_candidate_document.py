"""A run and an ensemble are described by the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.errors import TableError
from components.evaluation.candidate_document import candidate_document
from components.evaluation.ensembles import RunName, candidate_predictions, read_evaluation
from components.evaluation.evaluate import write_evaluation
from components.evaluation.metrics import point
from components.evaluation.prediction_table import parse_predictions
from components.layout import Layout
from components.params import Params, parse_params, read_yaml
from components.tables import write_table

MakeTable = Callable[..., pd.DataFrame]
ONE, TWO = RunName("resnet18", 0), RunName("resnet18", 1)


@pytest.fixture
def params(repo: Path) -> Params:
    source = read_yaml(repo / "params" / "quickstart.yaml")
    source["evaluation"] = {"bootstrap_resamples": 100}
    return parse_params(source, where="the test")


@pytest.fixture
def raw(make_table: MakeTable) -> dict[RunName, pd.DataFrame]:
    """Return both runs' test predictions at temperature 1; the second ones are too sure."""
    one = make_table(num_images=200, seed=2)
    columns = [name for name in one.columns if name.startswith("p_")]
    other = np.random.default_rng(0).dirichlet(np.ones(len(columns)), len(one))
    mixed = (0.6 * one[columns].to_numpy() + 0.4 * other) ** 3
    mixed /= mixed.sum(axis=1, keepdims=True)
    return {ONE: one, TWO: one.assign(**dict(zip(columns, mixed.T, strict=True)))}


@pytest.fixture
def layout(
    tmp_path: Path, params: Params, raw: dict[RunName, pd.DataFrame], make_table: MakeTable
) -> Layout:
    """Return a workspace in which both runs are evaluated."""
    layout = Layout(tmp_path)
    validation = make_table(num_images=200, seed=1, temperature=0.5)
    quality = pd.DataFrame({"image_id": raw[ONE]["image_id"]})
    measures = {"brightness": 0.5, "contrast": 0.5, "sharpness": 0.5}
    write_table(quality.assign(**measures), layout.quality)
    for run, table in raw.items():
        folder = layout.evaluation(run.backbone, run.seed)
        write_evaluation(params, layout, folder, validation, table)
    return layout


def _candidate(layout: Layout, *runs: RunName) -> dict[str, Any]:
    members = [{"backbone": run.backbone, "seed": run.seed, "weight": 1.0} for run in runs]
    chosen = read_evaluation(layout, runs[0], "calibration.json")["thresholds"]
    return {"members": members, "temperature_factor": 1.0, "thresholds": chosen}


def test_an_ensemble_of_one_run_is_described_as_the_run(layout: Layout, params: Params) -> None:
    alone = candidate_document(params, layout, _candidate(layout, ONE))
    assert alone == read_evaluation(layout, ONE, "metrics.json")
    twice = candidate_document(params, layout, _candidate(layout, ONE, ONE))
    assert set(twice) == set(alone)
    assert twice.pop("temperature") is None and alone.pop("temperature") > 0
    for name, value in alone["uncalibrated"].items():
        assert twice["uncalibrated"][name] == pytest.approx(value, abs=1e-9)
    del alone["uncalibrated"], twice["uncalibrated"]
    assert twice == alone


def test_before_calibration_is_the_mean_of_what_the_members_were_trained_to_say(
    layout: Layout, params: Params, raw: dict[RunName, pd.DataFrame]
) -> None:
    candidate = _candidate(layout, ONE, TWO)
    document = candidate_document(params, layout, candidate)
    columns = [name for name in raw[ONE].columns if name.startswith("p_")]
    mean = (raw[ONE][columns] + raw[TWO][columns]) / 2
    before = point(parse_predictions(raw[ONE].assign(**mean), params.diagnoses.classes))
    assert document["uncalibrated"]["log_loss"] == pytest.approx(before["log_loss"], abs=1e-9)
    table = parse_predictions(candidate_predictions(layout, candidate, "test"))
    reached = document["operating_points"][0]
    called = table.malignant_score >= reached["threshold"]
    truth = table.is_malignant[table.truth]
    assert reached["sensitivity"] == pytest.approx(called[truth].mean())
    assert len(document["operating_points"]) == len(candidate["thresholds"])


def test_with_folds_an_ensemble_has_no_thresholds(layout: Layout, params: Params) -> None:
    candidate = _candidate(layout, ONE, TWO) | {"thresholds": None}
    assert candidate_document(params, layout, candidate)["operating_points"] == []


def test_a_damaged_evaluation_is_named(layout: Layout, params: Params) -> None:
    path = layout.evaluation(ONE.backbone, ONE.seed) / "calibration.json"
    candidate = _candidate(layout, ONE, TWO)
    path.write_text("{")
    with pytest.raises(TableError, match="evaluation of resnet18-0") as caught:
        candidate_document(params, layout, candidate)
    assert caught.value.where == str(path)
