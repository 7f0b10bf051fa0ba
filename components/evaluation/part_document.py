"""What an evaluation says of one part: `score`, and what calibration and thresholds came to.

The same for a run and for an ensemble: whatever is promoted has the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from components.evaluation.calibration import operating_points
from components.evaluation.document import plain
from components.evaluation.metrics import point
from components.evaluation.prediction_table import parse_predictions
from components.evaluation.score import score_table
from components.params import Params

UNCALIBRATED = ("log_loss", "brier", "ece", "adaptive_ece")
"""Numbers that a temperature changes, given without it too."""


def part_document(
    params: Params,
    part: str,
    raw: pd.DataFrame,
    calibrated: pd.DataFrame,
    *,
    temperature: float | None,
    chosen: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the document of `metrics.json`.

    Parameters
    ----------
    part
        `validation` or `test`.
    raw, calibrated
        Prediction tables of the part, before and after calibration.
    temperature
        That lies between them; None for an ensemble, whose members have their own.
    chosen
        Thresholds, chosen on validation.

    Returns
    -------
    dict
        Of `score_table` for `calibrated`, with `part`, `temperature`, `uncalibrated` (some numbers
        of `raw`) and `operating_points` (what the thresholds reach on this part).
    """
    classes, malignant = params.diagnoses.classes, params.diagnoses.malignant
    where = f"{part} part"
    document = score_table(
        calibrated,
        classes,
        malignant,
        resamples=params.evaluation.bootstrap_resamples,
        seed=params.seed,
        where=where,
    )
    before = point(parse_predictions(raw, classes, malignant, where=where))
    after = parse_predictions(calibrated, classes, malignant, where=where)
    return document | {
        "part": part,
        "temperature": temperature,
        "uncalibrated": {name: plain(before[name]) for name in UNCALIBRATED},
        "operating_points": operating_points(after, chosen),
    }
