"""The report's tables of one model: calibration, thresholds and subgroups, ready to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.evaluation.report_tables import (
    SUBGROUP_METRICS,
    SUBGROUPS,
    Cell,
    cell,
    lookup,
    number,
)

_CALIBRATION = (
    ("log_loss", "Log loss"),
    ("brier", "Brier score"),
    ("ece", "Calibration error (ECE)"),
    ("adaptive_ece", "Adaptive ECE"),
)
_COLUMNS = (*SUBGROUP_METRICS, ("ece", "Calibration error (ECE)"))


def details(document: Mapping[str, Any], chosen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the three tables of a model.

    Parameters
    ----------
    document
        Its `part_document` of the test part.
    chosen
        Thresholds with what they reach on validation, where they were chosen.
    """
    return {
        "calibration": calibration_rows(document),
        "thresholds": threshold_rows(document, chosen),
        "subgroups": subgroup_table(document),
    }


def calibration_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the temperature changes, as trained and calibrated."""
    return [
        {
            "name": title,
            "as_trained": number(document["uncalibrated"][key]),
            "calibrated": cell(document[key], document["intervals"].get(key)),
        }
        for key, title in _CALIBRATION
    ]


def threshold_rows(document: Mapping[str, Any], chosen: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Return each threshold: its rule, what it promised on validation and what it is on test."""
    promised = {(entry["score"], entry["rule"]): entry for entry in chosen}
    rows = []
    for entry in document["operating_points"]:
        on_validation = promised[entry["score"], entry["rule"]]
        rows.append(
            {
                "score": entry["score"],
                "rule": entry["rule"].replace(">=", "≥"),
                "threshold": number(entry["threshold"]),
                "validation": _pair(on_validation),
                "test": _pair(entry),
            }
        )
    return rows


def _pair(entry: Mapping[str, Any]) -> str:
    return f"{number(entry['sensitivity'])} / {number(entry['specificity'])}"


def subgroup_table(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return titles and, per subgroup, its counts and cells; the first row is all images.

    Without subgroups there is no row.
    """
    whole = {
        "heading": "",
        "name": "all images",
        "num_images": document["num_images"],
        "num_groups": document["num_groups"],
        "too_small": False,
        "cells": _cells(document),
    }
    rows = [
        {
            "heading": title,
            "name": str(entry["value"]),
            "num_images": entry["num_images"],
            "num_groups": entry["num_groups"],
            "too_small": entry["too_small"],
            "cells": _cells(entry),
        }
        for column, title in SUBGROUPS.items()
        for entry in document["subgroups"].get(column, [])
    ]
    return {"titles": [title for _, title in _COLUMNS], "rows": [whole, *rows] if rows else []}


def _cells(entry: Mapping[str, Any]) -> list[Cell]:
    return [cell(lookup(entry, key), entry["intervals"].get(key)) for key, _ in _COLUMNS]
