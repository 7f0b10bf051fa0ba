"""The small tables of a model: what was computed is shown, and from which part it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.evaluation.calibration import fit_temperature, table_at, thresholds
from components.evaluation.part_document import part_document
from components.evaluation.prediction_table import parse_predictions
from components.evaluation.report_details import calibration_rows, subgroup_table, threshold_rows
from components.params import parse_params, read_yaml

MakeTable = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def judged(repo: Any, make_table: MakeTable) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the document of an overconfident model on test, and its thresholds."""
    source = read_yaml(repo / "params" / "quickstart.yaml")
    source["evaluation"] = {"bootstrap_resamples": 100}
    params = parse_params(source, where="the test")
    validation = parse_predictions(make_table(num_images=400, seed=1, temperature=0.4))
    temperature = fit_temperature(validation.probabilities, validation.truth)
    chosen = thresholds(validation)
    raw = make_table(num_images=400, seed=2, temperature=0.4)
    raw["sex"] = np.where(np.arange(len(raw)) < 12, "male", "female")
    document = part_document(
        params,
        "test",
        raw,
        table_at(raw, params.diagnoses.classes, temperature),
        temperature=temperature,
        chosen=chosen,
    )
    return document, chosen


def test_both_calibrations_are_shown(
    judged: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    document, _ = judged
    rows = {row["name"]: row for row in calibration_rows(document)}
    loss = rows["Log loss"]
    assert loss["as_trained"] == f"{document['uncalibrated']['log_loss']:.3f}"
    assert loss["calibrated"]["value"] == f"{document['log_loss']:.3f}"
    assert float(loss["calibrated"]["value"]) < float(loss["as_trained"])
    assert rows["Adaptive ECE"]["calibrated"]["bounds"]


def test_a_threshold_shows_what_it_promised_and_what_it_keeps(
    judged: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    document, chosen = judged
    rows = threshold_rows(document, chosen)
    assert len(rows) == len(chosen) == 8
    wanted = next(entry for entry in chosen if entry["rule"] == "sensitivity >= 0.95")
    row = next(
        row
        for row in rows
        if (row["score"], row["rule"]) == (wanted["score"], "sensitivity ≥ 0.95")
    )
    assert row["validation"] == f"{wanted['sensitivity']:.3f} / {wanted['specificity']:.3f}"
    assert row["test"] != row["validation"]


def test_subgroups_show_their_calibration_and_what_is_too_small(
    judged: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    document, _ = judged
    table = subgroup_table(document)
    whole, female, male = table["rows"]
    ece = table["titles"].index("Calibration error (ECE)")
    assert whole["cells"][ece]["value"] == f"{document['ece']:.3f}"
    entries = {entry["value"]: entry for entry in document["subgroups"]["sex"]}
    assert female["cells"][ece]["value"] == f"{entries['female']['ece']:.3f}"
    assert female["cells"][ece]["bounds"] and not female["too_small"]
    assert (male["heading"], male["name"], male["num_images"]) == ("sex", "male", 12)
    assert male["too_small"] and not any(cell["bounds"] for cell in male["cells"])


def test_without_subgroups_there_is_no_table(make_table: MakeTable) -> None:
    from components.evaluation.score import score_table

    assert subgroup_table(score_table(make_table(num_images=60), resamples=100))["rows"] == []
