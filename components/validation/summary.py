"""The validation summary as rows of a table, for the Prefect UI and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NUM_NAMED = 5
_FAILED = {"error": "FAILED", "quarantine": "quarantined", "warning": "warning"}


def summary_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per check of a `summary.json`, what was found first.

    Columns: `check` (its name in params.yaml), `expected`, `severity`, `result` (FAILED,
    quarantined, warning, passed or not compared), `found`, `bound`, `offenders` (their number and
    the first of them), `to do` (what can be done about them).
    """
    rows = [_row(entry) for entry in summary["expectations"]]
    order = [*_FAILED.values(), "not compared", "passed"]
    return sorted(rows, key=lambda row: order.index(row["result"]))


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    offenders = entry["offenders"]
    shown = ", ".join(offenders[:_NUM_NAMED]) + (", …" if len(offenders) > _NUM_NAMED else "")
    if entry.get("note"):
        result = "not compared"
    else:
        result = "passed" if entry["success"] else _FAILED[entry["severity"]]
    return {
        "check": entry["expectation"],
        "expected": entry["title"],
        "severity": entry["severity"],
        "result": result,
        "found": entry.get("note") or entry["observed"],
        "bound": entry.get("bound", ""),
        "offenders": f"{entry['num_offenders']}: {shown}" if offenders else "",
        "to do": entry.get("fix", ""),
    }
