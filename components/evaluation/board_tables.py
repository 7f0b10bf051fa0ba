"""The leaderboard's document as tables for a terminal, the Prefect UI and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {
    "best_seed": "best seed of the winner",
    "seed_ensemble": "all seeds of the winner, averaged",
    "greedy_ensemble": "picked greedily over all runs",
}
"""What `ranking.candidate` may be, for people."""


def leaderboard_rows(leaderboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of `reports/leaderboard.json` for a terminal or the Prefect UI."""
    members = leaderboard["candidate"]["members"]
    chosen = {member["backbone"] for member in members}
    has_gpu = any("cuda_batch1" in row["latency_ms"] for row in leaderboard["rows"])
    rows = []
    for row in leaderboard["rows"]:
        validation, test = row["validation"], row["test"]
        best = validation["balanced_accuracy"]
        rows.append(
            {
                "rank": row["rank"],
                "backbone": row["backbone"] + (" *" if row["backbone"] in chosen else ""),
                "seeds": len(row["seeds"]),
                "balanced accuracy": _cell(best["mean"]),
                "95 %": _interval(best),
                "melanoma sens.": _cell(_mean(validation, "melanoma_sensitivity")),
                "on test": _cell(test["balanced_accuracy"]["mean"]),
                "weights": f"{row['num_parameters'] / 1e6:.1f} M",
                "MACs": f"{row['macs'] / 1e6:,.0f} M",
                "CPU": _milliseconds(row, "cpu_batch1"),
                **({"GPU": _milliseconds(row, "cuda_batch1")} if has_gpu else {}),
            }
        )
    return rows


def _milliseconds(row: Mapping[str, Any], where: str) -> str:
    found = row["latency_ms"].get(where)
    return f"{found['median']:.1f} ms" if found else "-"


def candidate_rows(leaderboard: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what could be promoted, the candidate (marked) first; nothing without an ensemble.

    Parameters
    ----------
    leaderboard
        Document of `reports/leaderboard.json`.
    """
    candidate, ensembles = leaderboard["candidate"], leaderboard["ensembles"]
    latency = {
        row["backbone"]: row["latency_ms"]["cpu_batch1"]["median"] for row in leaderboard["rows"]
    }
    others = [one for one in ensembles if one["kind"] != candidate["kind"]]
    rows = []
    for one in [candidate, *others] if ensembles else []:
        # With folds the members of an ensemble have no validation images in common.
        validation, test = one["validation"] or {}, one["test"]
        best = validation.get("balanced_accuracy")
        rows.append(
            {
                "candidate": KINDS[one["kind"]] + (" *" if one is candidate else ""),
                "members": " + ".join(_member(member) for member in one["members"]),
                "balanced accuracy": _cell(best["value"] if best else None),
                "95 %": _interval(best) if best else "-",
                "melanoma sens.": _cell(_value(validation, "melanoma_sensitivity")),
                "on test": _cell(test["balanced_accuracy"]["value"]),
                "CPU": f"{sum(latency[member['backbone']] for member in one['members']):.1f} ms",
            }
        )
    return rows


def _member(member: Mapping[str, Any]) -> str:
    times = f" ×{member['weight']:g}" if member["weight"] != 1 else ""
    return f"{member['backbone']}-{member['seed']}{times}"


def _value(numbers: Mapping[str, Any], name: str) -> float | None:
    return numbers[name]["value"] if name in numbers else None


def _interval(numbers: Mapping[str, Any]) -> str:
    if numbers["low"] is None:
        reason = numbers.get("no_interval")
        return f"none ({reason})" if reason else "none"
    return f"{_cell(numbers['low'])}–{_cell(numbers['high'])}"


def _mean(numbers: Mapping[str, Any], name: str) -> float | None:
    return numbers[name]["mean"] if name in numbers else None


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
