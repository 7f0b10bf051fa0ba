"""The gates in the report: values, bounds, verdicts, and what only the promotion can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from components.evaluation.report_gates import AT_PROMOTION, gates_section
from components.evaluation.score import score_table
from components.params import Params, parse_params, read_yaml

MakeTable = Callable[..., pd.DataFrame]


@pytest.fixture
def gates(repo: Any, make_table: MakeTable) -> Callable[..., dict[str, Any]]:
    """Return a function from bounds to the section, for an ensemble of two backbones."""
    table = make_table(num_images=200)
    document = score_table(table, resamples=100)
    member = {"seed": 0, "weight": 1.0}
    board = {
        "rows": [
            {"backbone": name, "latency_ms": {"cpu_batch1": {"median": milliseconds}}}
            for name, milliseconds in (("resnet18", 4.0), ("vgg11", 9.5), ("swin_t", 30.0))
        ],
        "candidate": {"members": [{"backbone": name, **member} for name in ("resnet18", "vgg11")]},
    }

    def section(**bounds: float | None) -> dict[str, Any]:
        source = read_yaml(repo / "params" / "quickstart.yaml")
        source["gates"] = bounds
        params: Params = parse_params(source, where="the test")
        return gates_section(params, board, table, document) | {"document": document}

    return section


def _row(section: dict[str, Any], name: str) -> dict[str, str]:
    return next(row for row in section["rows"] if row["name"] == name)


def test_each_gate_has_its_value_bound_and_verdict(gates: Callable[..., dict[str, Any]]) -> None:
    section = gates(min_balanced_accuracy=0.99, max_ece=0.9, max_subgroup_gap=0.1)
    value = section["document"]["balanced_accuracy"]
    row = _row(section, "min_balanced_accuracy")
    assert (row["value"], row["bound"], row["verdict"]) == (f"{value:.3f}", "≥ 0.990", "failed")
    assert "200 test images" in row["detail"]
    row = _row(section, "max_ece")
    assert (row["bound"], row["verdict"]) == ("≤ 0.900", "passed")
    row = _row(section, "max_subgroup_gap")  # nothing is known of the people: it cannot tell
    assert (row["value"], row["verdict"]) == ("–", "undecided")
    assert _row(section, "min_melanoma_sensitivity")["verdict"] == "off"
    assert section["not_passed"] == ["min_balanced_accuracy", "max_subgroup_gap"]
    assert section["num_passed"] == 1


def test_the_latencies_of_all_members_count(gates: Callable[..., dict[str, Any]]) -> None:
    row = _row(gates(max_latency_ms=13.0), "max_latency_ms")
    assert (row["value"], row["verdict"]) == ("13.500", "failed")
    assert _row(gates(max_latency_ms=13.5), "max_latency_ms")["verdict"] == "passed"


def test_the_champion_is_left_to_the_promotion(gates: Callable[..., dict[str, Any]]) -> None:
    row = _row(gates(max_worse_than_champion=0.03), "max_worse_than_champion")
    assert (row["value"], row["bound"], row["verdict"]) == ("–", "≥ -0.030", AT_PROMOTION)
    assert _row(gates(max_worse_than_champion=None), "max_worse_than_champion")["verdict"] == "off"
