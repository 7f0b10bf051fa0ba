"""What `measure` and `pairs` found, in a few rows: for the Prefect UI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from components.splitting.groups import connect

MEASURES = (
    "width",
    "height",
    "aspect",
    "brightness",
    "contrast",
    "sharpness",
    "entropy",
    "colourfulness",
    "vignette_share",
    "num_bytes",
)
EVIDENCE = ("same bytes", "same pixels", "same spot")
_QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "greatest": 1.0}
_NAMING = ("patient_id", "lesion_id")


def measures_summary(quality: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per measure: its range over the images that decode.

    Parameters
    ----------
    quality
        The table of `measure`.

    Returns
    -------
    list of dict
        `measure`, `least`, `5 %`, `median`, `95 %`, `greatest` (numbers; None where no image
        decodes).
    """
    decoded = quality[quality["decodes"].astype(bool)]
    rows: list[dict[str, Any]] = []
    for name in MEASURES:
        values = decoded[name].dropna().to_numpy(np.float64)
        found = np.quantile(values, list(_QUANTILES.values())) if len(values) else None
        row: dict[str, Any] = {"measure": name}
        for number, column in enumerate(_QUANTILES):
            row[column] = None if found is None else _short(float(found[number]))
        rows.append(row)
    return rows


def pairs_summary(pairs: pd.DataFrame, labels: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per kind of evidence, and one for all: what was found, and what it ties.

    Parameters
    ----------
    pairs, labels
        The tables of `pairs` and `ingest`.

    Returns
    -------
    list of dict
        `evidence`; `pairs`; `images` (that are in a pair); `lesions_tied`: lesions (of one
        patient, where one is known; images without an id are one each) that a pair ties to
        another one; `into_groups`: how many groups those become.
    """
    named = connect(labels, by=_NAMING)
    rows = [_pairs_row(kind, pairs[pairs["evidence"] == kind], labels, named) for kind in EVIDENCE]
    return [*rows, _pairs_row("all", pairs, labels, named)]


def _pairs_row(
    evidence: str, pairs: pd.DataFrame, labels: pd.DataFrame, named: np.ndarray[Any, Any]
) -> dict[str, Any]:
    tied = pd.DataFrame({"group": connect(labels, pairs, by=_NAMING), "lesion": named})
    lesions = tied.groupby("group")["lesion"].nunique()
    lesions = lesions[lesions > 1]
    return {
        "evidence": evidence,
        "pairs": len(pairs),
        "images": len({*pairs["image_id_a"], *pairs["image_id_b"]}),
        "lesions_tied": int(lesions.sum()),
        "into_groups": len(lesions),
    }


def _short(value: float) -> float:
    """Round to what tells images apart: whole numbers from 100 on, else three figures."""
    return round(value) if abs(value) >= 100 else float(f"{value:.3g}")
