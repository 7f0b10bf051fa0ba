"""The report's tables: from documents of numbers to cells that are ready to print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.evaluation.plots_overview import Interval
from components.evaluation.score import melanoma_sensitivity

NOTHING = "–"
Cell = dict[str, str]
_HEADLINE = (
    ("balanced_accuracy", "Balanced accuracy"),
    ("accuracy", "Accuracy"),
    ("macro_f1", "Macro F1"),
    ("macro_auc", "Macro AUC"),
    ("mcc", "Matthews correlation"),
    ("cohen_kappa", "Cohen's kappa"),
    ("log_loss", "Log loss"),
    ("brier", "Brier score"),
    ("ece", "Calibration error (ECE)"),
)
_MALIGNANT = (
    ("auc", "AUC"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("sensitivity_at_90_specificity", "sensitivity at 90 % specificity"),
    ("sensitivity_at_95_specificity", "sensitivity at 95 % specificity"),
    ("specificity_at_95_sensitivity", "specificity at 95 % sensitivity"),
)
_PER_CLASS = (
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
    ("ppv", "PPV"),
    ("f1", "F1"),
    ("auc", "AUC"),
    ("average_precision", "Average precision"),
)
SUBGROUPS = {
    "age_years": "age",
    "sex": "sex",
    "site": "site",
    "skin_type": "skin type",
    "diagnosis_method": "diagnosis confirmed by",
    "brightness": "brightness",
    "contrast": "contrast",
    "sharpness": "sharpness",
}
"""Column -> heading, in the order in which they are shown."""
RUN_TITLES = (
    *("Balanced accuracy", "Accuracy", "Macro AUC", "Melanoma sensitivity"),
    *("Malignant or benign, AUC", "ECE"),
)
SUBGROUP_METRICS = (
    ("balanced_accuracy", "Balanced accuracy"),
    ("malignant.sensitivity", "Malignant found (sensitivity)"),
)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as text, a dash for None or NaN."""
    return NOTHING if value is None or np.isnan(value) else f"{value:.{digits}f}"


def p_value(value: float | None) -> str:
    """Return a p-value as text: a small one is never shown as 0."""
    return "< 0.001" if value is not None and value < 0.0005 else number(value)


def share(value: float | None) -> str:
    """Return a share of 1 as a percentage."""
    return NOTHING if value is None or np.isnan(value) else f"{value:.1%}"


def cell(value: float | None, bounds: Sequence[float] | None) -> Cell:
    """Return a value with its interval as `value` and `bounds`."""
    text = f"{bounds[0]:.3f} – {bounds[1]:.3f}" if bounds else ""
    return {"value": number(value), "bounds": text}


def headline_rows(document: Mapping[str, Any]) -> list[Cell]:
    """Return name, value and interval of the numbers over all classes."""
    found = document["intervals"]
    rows = [{"name": title} | cell(document[key], found.get(key)) for key, title in _HEADLINE]
    if document["malignant"]:
        rows += [
            {"name": f"Malignant or benign: {title}"}
            | cell(document["malignant"][key], found.get(f"malignant.{key}"))
            for key, title in _MALIGNANT
        ]
    return rows


def headline_cells(document: Mapping[str, Any]) -> list[Cell]:
    """Return the cells of a run's row; their titles are `RUN_TITLES`."""
    found, malignant = document["intervals"], document["malignant"] or {}
    name, value = melanoma_sensitivity(document)
    keys = ("balanced_accuracy", "accuracy", "macro_auc")
    cells = [cell(document[key], found.get(key)) for key in keys]
    cells.append(cell(value, found.get(name)))
    cells.append(cell(malignant.get("auc"), found.get("malignant.auc")))
    return [*cells, cell(document["ece"], found.get("ece"))]


def tile_rows(document: Mapping[str, Any]) -> list[Cell]:
    """Return the four numbers that the verdict shows large."""
    found, malignant = document["intervals"], document["malignant"]
    name, value = melanoma_sensitivity(document)
    rows = [("Balanced accuracy", document["balanced_accuracy"], "balanced_accuracy")]
    if value is not None:
        which = "Malignant" if name.startswith("malignant") else "Melanoma"
        rows.append((f"{which} sensitivity", value, name))
    if malignant:
        rows.append(("Malignant or benign, AUC", malignant["auc"], "malignant.auc"))
    rows.append(("Calibration error (ECE)", document["ece"], "ece"))
    return [{"name": title} | cell(number, found.get(key)) for title, number, key in rows]


def per_class_table(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return titles and, per class, its support and cells."""
    found = document["intervals"]
    rows = [
        {
            "name": name,
            "malignant": name in document["malignant_classes"],
            "support": own["support"],
            "cells": [
                cell(own[key], found.get(f"per_class.{name}.{key}")) for key, _ in _PER_CLASS
            ],
        }
        for name, own in document["per_class"].items()
    ]
    return {"titles": [title for _, title in _PER_CLASS], "rows": rows}


def subgroup_rows(
    document: Mapping[str, Any],
) -> list[tuple[str, str, int, list[Interval]]]:
    """Return the rows of the forest plot: all images first, then each column's subgroups."""
    whole = {key: lookup(document, key) for key, _ in SUBGROUP_METRICS}
    rows = [
        (
            "",
            "all images",
            int(document["num_images"]),
            [bounded(whole[key], document["intervals"].get(key)) for key, _ in SUBGROUP_METRICS],
        )
    ]
    for column, title in SUBGROUPS.items():
        for entry in document["subgroups"].get(column, []):
            values = [
                bounded(entry.get(key), entry["intervals"].get(key)) for key, _ in SUBGROUP_METRICS
            ]
            rows.append((title, str(entry["value"]), int(entry["num_images"]), values))
    return rows


def lookup(document: Mapping[str, Any], key: str) -> float | None:
    """Return the number of a document that a dotted key names, None where there is none.

    A subgroup has the dotted name itself for its key.
    """
    if key in document:
        return None if document[key] is None else float(document[key])
    found: Any = document
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return None if found is None else float(found)


def bounded(value: float | None, bounds: Sequence[float] | None) -> Interval:
    """Return value, low and high as numbers, NaN for what there is not."""
    low, high = bounds or (np.nan, np.nan)
    return (np.nan if value is None else float(value), float(low), float(high))


def board_interval(part: Mapping[str, Any] | None, metric: str) -> Interval:
    """Return a leaderboard row's mean and bounds of `metric`."""
    found = (part or {}).get(metric)
    if not found:
        return bounded(None, None)
    bounds = [found["low"], found["high"]]
    return bounded(found["mean"], None if None in bounds else bounds)


def board_rows(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the leaderboard as printable cells."""
    rows = []
    for row in board["rows"]:
        cells = {
            f"{part}_{metric}": _interval_cell(board_interval(row.get(part), metric))
            for part in ("validation", "test")
            for metric in ("balanced_accuracy", "melanoma_sensitivity")
        }
        rows.append(
            {
                "rank": row["rank"],
                "backbone": row["backbone"],
                "seeds": len(row["seeds"]),
                "parameters": _millions(row.get("num_parameters")),
                "macs": _millions(row.get("macs")),
                "latency": number(latency_of(row), 1),
                "gpu_latency": number(gpu_latency_of(row), 1),
                "size": _megabytes(row.get("size_bytes")),
            }
            | cells
        )
    return rows


def _interval_cell(interval: Interval) -> Cell:
    value, low, high = interval
    return cell(value, None if np.isnan(low) else (low, high))


def latency_of(row: Mapping[str, Any]) -> float:
    """Return a leaderboard row's median latency of one picture on the CPU, in milliseconds."""
    return float(row["latency_ms"]["cpu_batch1"]["median"])


def gpu_latency_of(row: Mapping[str, Any]) -> float | None:
    """Return the same on the GPU; None where the stage `profile` had none."""
    found = row["latency_ms"].get("cuda_batch1")
    return None if found is None else float(found["median"])


def _millions(count: float | None) -> str:
    return NOTHING if count is None else f"{count / 1e6:,.1f} M"


def _megabytes(size: float | None) -> str:
    return NOTHING if size is None else f"{size / 1e6:,.1f} MB"
