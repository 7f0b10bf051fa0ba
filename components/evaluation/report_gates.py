"""The gates before a promotion, as far as a report can tell them.

Those that look at the candidate alone are the promotion's own, from the same numbers. The others
ask the registry, its champion or the original pictures: they are decided at promotion, which
follows the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from components.evaluation.report_tables import NOTHING, latency_of, number
from components.params import Params
from components.registry.gates import Gate, quality_gates

AT_PROMOTION = "decided at promotion"
_VERSUS = "max_worse_than_champion"


def gates_section(
    params: Params, board: Mapping[str, Any], test: pd.DataFrame, document: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the gates of the candidate: `rows` ready to print, and the names by outcome.

    Parameters
    ----------
    board
        Document of the leaderboard, which holds the profiles.
    test
        The candidate's calibrated predictions on test.
    document
        Its `part_document`.
    """
    malignant = params.diagnoses.malignant
    gates = quality_gates(test, document, _latency_ms(board), malignant, params.gates)
    margin = params.gates.max_worse_than_champion
    versus = {
        "name": _VERSUS,
        "value": NOTHING,
        "bound": NOTHING if margin is None else f"≥ {-margin:.3f}",
        "verdict": "off" if margin is None else AT_PROMOTION,
        "detail": "balanced accuracy against the champion, on test images of groups that neither "
        "has seen",
    }
    return {
        "rows": [*(_row(gate) for gate in gates), versus],
        "not_passed": [gate.name for gate in gates if gate.verdict in ("failed", "undecided")],
        "num_passed": sum(gate.verdict == "passed" for gate in gates),
        "num_off": sum(gate.verdict == "off" for gate in gates),
    }


def _row(gate: Gate) -> dict[str, str]:
    sign = "≤" if gate.name.startswith("max_") else "≥"
    return {
        "name": gate.name,
        "value": number(gate.value),
        "bound": NOTHING if gate.bound is None else f"{sign} {number(gate.bound)}",
        "verdict": gate.verdict,
        "detail": gate.detail,
    }


def _latency_ms(board: Mapping[str, Any]) -> float:
    """Return the members' latencies on the CPU, added up."""
    of_backbone = {row["backbone"]: latency_of(row) for row in board["rows"]}
    return sum(of_backbone[member["backbone"]] for member in board["candidate"]["members"])
