"""Each gate's value, bound and verdict, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.params import load_params
from components.registry.config import GateParams
from components.registry.gates import at_least, at_most, melanoma_sensitivity, quality_gates

OFF = GateParams()


def _table(**columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    return frame.assign(image_id=[f"i{n}" for n in range(len(frame))])


MELANOMA = _table(
    diagnosis=["mel"] * 4 + ["nv"] * 10,
    p_mel=[0.9, 0.8, 0.55, 0.1] + [0.6, 0.5] + [0.2] * 8,
    p_nv=[0.1, 0.2, 0.45, 0.9] + [0.4, 0.5] + [0.8] * 8,
)


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        (at_least("g", 0.5, 0.5, ""), "passed"),
        (at_least("g", 0.49, 0.5, ""), "failed"),
        (at_most("g", 0.5, 0.5, ""), "passed"),
        (at_most("g", 0.51, 0.5, ""), "failed"),
        (at_least("g", None, 0.5, ""), "undecided"),
        (at_most("g", float("nan"), 0.5, ""), "undecided"),
        (at_least("g", 0.1, None, ""), "off"),
        (at_most("g", None, None, ""), "off"),
    ],
)
def test_verdicts(gate: Any, verdict: str) -> None:
    assert gate.verdict == verdict


def test_melanoma_sensitivity_is_that_of_the_best_threshold_with_the_specificity() -> None:
    # 9 of 10 nevi lie below 0.55 (specificity 0.9): 0.9, 0.8 and 0.55 are found, of 4.
    assert melanoma_sensitivity(MELANOMA, ("mel",), 0.9)[0] == 0.75
    # All nevi must lie below: only 0.9 and 0.8 are above 0.6.
    assert melanoma_sensitivity(MELANOMA, ("mel",), 0.99)[0] == 0.5
    # 8 of 10 is enough: the last one is at 0.1, where all nevi are called too.
    assert melanoma_sensitivity(MELANOMA, ("mel",), 0.8)[0] == 0.75


def test_without_a_class_of_melanoma_the_malignant_ones_count() -> None:
    table = MELANOMA.rename(columns={"p_mel": "p_malignant", "p_nv": "p_benign"})
    table["diagnosis"] = table["diagnosis"].map({"mel": "malignant", "nv": "benign"})
    value, detail = melanoma_sensitivity(table, ("malignant",), 0.9)
    assert value == 0.75
    assert "no class of melanoma" in detail


def test_without_a_melanoma_in_test_the_gate_is_undecided() -> None:
    nevi = MELANOMA[MELANOMA["diagnosis"] == "nv"]
    value, detail = melanoma_sensitivity(nevi, ("mel",), 0.9)
    assert value is None
    assert "not both" in detail


def _metrics(**changes: Any) -> dict[str, Any]:
    document = {
        "balanced_accuracy": 0.7,
        "ece": 0.05,
        "num_images": 14,
        "intervals": {"balanced_accuracy": [0.6, 0.8]},
        "subgroups": {},
    }
    return document | changes


def _verdicts(metrics: dict[str, Any], latency: float | None, **bounds: Any) -> dict[str, str]:
    params = OFF.model_copy(update=bounds)
    gates = quality_gates(MELANOMA, metrics, latency, ("mel",), params)
    return {gate.name: gate.verdict for gate in gates}


def test_a_model_that_cannot_see_melanoma_fails_the_gates_of_the_recipe_of_real_images(
    repo: Path,
) -> None:
    """Nothing else is wrong with it: six of seven diagnoses are all right."""
    params = load_params(repo / "params" / "ham10000.yaml")
    classes, rng = params.diagnoses.classes, np.random.default_rng(0)
    truth = rng.permutation(np.repeat(np.arange(len(classes)), 40))
    melanoma, nevus = classes.index("mel"), classes.index("nv")
    scores = 0.01 + 0.9 * np.eye(len(classes))[np.where(truth == melanoma, nevus, truth)]
    scores[:, melanoma] = rng.uniform(0.0, 0.01, len(truth))
    table = _table(
        diagnosis=np.array(classes)[truth],
        **{f"p_{name}": scores[:, number] for number, name in enumerate(classes)},
    )
    by_sex = [
        {
            "value": value,
            "balanced_accuracy": found,
            "intervals": {"balanced_accuracy": [0.8, 0.9]},
            "num_classes": len(classes),
        }
        for value, found in (("female", 0.84), ("male", 0.86))
    ]
    metrics = _metrics(balanced_accuracy=6 / 7, subgroups={"sex": by_sex})
    gates = quality_gates(table, metrics, 110.0, params.diagnoses.malignant, params.gates)
    verdicts = {gate.name: gate.verdict for gate in gates}
    assert verdicts.pop("min_melanoma_sensitivity") == "failed"
    assert set(verdicts.values()) == {"passed"}


def test_all_gates_are_off_without_bounds_and_show_their_values() -> None:
    gates = quality_gates(MELANOMA, _metrics(), 12.0, ("mel",), OFF)
    assert {gate.verdict for gate in gates} == {"off"}
    assert [gate.value for gate in gates] == [0.7, 0.75, 0.05, None, 12.0]


@pytest.mark.parametrize(
    ("bounds", "name", "verdict"),
    [
        ({"min_balanced_accuracy": 0.7}, "min_balanced_accuracy", "passed"),
        ({"min_balanced_accuracy": 0.71}, "min_balanced_accuracy", "failed"),
        ({"min_melanoma_sensitivity": 0.75}, "min_melanoma_sensitivity", "passed"),
        ({"min_melanoma_sensitivity": 0.8}, "min_melanoma_sensitivity", "failed"),
        ({"max_ece": 0.05}, "max_ece", "passed"),
        ({"max_ece": 0.04}, "max_ece", "failed"),
        ({"max_latency_ms": 12.0}, "max_latency_ms", "passed"),
        ({"max_latency_ms": 11.0}, "max_latency_ms", "failed"),
        ({"max_subgroup_gap": 0.1}, "max_subgroup_gap", "undecided"),
    ],
)
def test_each_bound(bounds: dict[str, float], name: str, verdict: str) -> None:
    assert _verdicts(_metrics(), 12.0, **bounds)[name] == verdict


def test_an_unmeasured_latency_is_undecided_where_it_matters() -> None:
    assert _verdicts(_metrics(), None, max_latency_ms=10.0)["max_latency_ms"] == "undecided"


def test_the_largest_gap_between_subgroups_counts() -> None:
    from components.evaluation.score import score_table

    rng = np.random.default_rng(0)
    truth = np.array(["mel", "nv"] * 100)
    sex = np.repeat(["male", "female"], 100)
    right = np.where(sex == "male", rng.random(200) < 0.95, rng.random(200) < 0.6)
    says_mel = (truth == "mel") == right
    frame = _table(diagnosis=truth, p_mel=np.where(says_mel, 0.9, 0.1), sex=sex)
    frame["p_nv"] = 1 - frame["p_mel"]
    metrics = score_table(frame, resamples=200)
    gap = {entry["value"]: entry["balanced_accuracy"] for entry in metrics["subgroups"]["sex"]}
    gates = quality_gates(
        frame, metrics, None, ("mel",), OFF.model_copy(update={"max_subgroup_gap": 0.1})
    )
    gate = next(gate for gate in gates if gate.name == "max_subgroup_gap")
    assert gate.value == pytest.approx(gap["male"] - gap["female"])
    assert gate.verdict == "failed"
    assert "by sex: female" in gate.detail
