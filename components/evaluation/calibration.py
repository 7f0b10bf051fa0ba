"""Temperature, thresholds and reliability, all fitted on validation predictions and never on test.

A temperature T divides the logits before the softmax (Guo et al. 2017, "On calibration of modern
neural networks"). Logits are known up to a constant per image from the probabilities, so a
prediction table is all that is needed. The most probable class stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.evaluation.curves import Curve
from components.evaluation.metrics import NUM_BINS, equal_width_bins
from components.evaluation.prediction_table import Codes, Floats, Predictions
from components.tables import probability_columns

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 0.05, 20.0
SENSITIVITY_TARGETS = (0.90, 0.95)
SPECIFICITY_TARGETS = (0.90, 0.95)


def log_probabilities(probabilities: Floats) -> Floats:
    """Return the logarithms, finite also for a probability that underflowed to 0."""
    return np.log(np.clip(probabilities, np.finfo(np.float64).tiny, None))


def apply_temperature(probabilities: Floats, temperature: float) -> Floats:
    """Return `softmax(log(p) / temperature)` of each row, shape (N, C).

    `apply_temperature(apply_temperature(p, t), 1 / t)` gives p back.
    """
    scaled = log_probabilities(probabilities) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def table_at(frame: pd.DataFrame, classes: Sequence[str], temperature: float) -> pd.DataFrame:
    """Return a prediction table with its probabilities at `temperature`."""
    columns = probability_columns(classes)
    scaled = apply_temperature(frame[columns].to_numpy(dtype=np.float64), temperature)
    return frame.assign(**{name: scaled[:, number] for number, name in enumerate(columns)})


def fit_temperature(probabilities: Floats, truth: Codes) -> float:
    """Return the temperature with the least log loss.

    The log loss is convex in 1 / T, so the bounded search finds the one minimum; where every
    prediction is right (T towards 0) or no better than chance (T without end) a bound is returned.

    Parameters
    ----------
    probabilities
        Shape (N, C), of the validation part, at temperature 1.
    truth
        Shape (N,), numbers of the diagnoses.
    """
    from scipy.optimize import minimize_scalar

    logits = log_probabilities(probabilities)
    own = logits[np.arange(len(truth)), truth]
    shift = logits.max(axis=1)

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        powers = np.exp((logits - shift[:, None]) * inverse).sum(axis=1)
        return float(np.mean(np.log(powers) - (own - shift) * inverse))

    bounds = (np.log(LEAST_TEMPERATURE), np.log(LARGEST_TEMPERATURE))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return float(round(np.exp(found.x), 6))


def thresholds(table: Predictions) -> list[dict[str, Any]]:
    """Return operating points of the malignancy score, and of melanoma where there is one.

    Each is the threshold that reaches a sensitivity (specificity) at the highest specificity
    (sensitivity) on the table at hand, with what it reaches there.

    Returns
    -------
    list of dict
        `score` (a class, or `malignant`), `rule` (such as `sensitivity >= 0.95`), `threshold`
        (positive when the score is at least this), `sensitivity`, `specificity`. Empty where
        one side is missing.
    """
    found = []
    for name, (scores, positive) in _binary_problems(table).items():
        curve = Curve.of(scores, positive, np.ones((1, len(table))))
        sensitivity, specificity = curve.sensitivity[0], 1 - curve.false_positive_rate[0]
        for what, reached, other, targets in (
            ("sensitivity", sensitivity, specificity, SENSITIVITY_TARGETS),
            ("specificity", specificity, sensitivity, SPECIFICITY_TARGETS),
        ):
            for target in targets:
                allowed = (reached >= target - 1e-12) & np.isfinite(curve.thresholds)
                best = _best(allowed, other, reached)
                found.append(
                    {
                        "score": name,
                        "rule": f"{what} >= {target:.2f}",
                        "threshold": float(curve.thresholds[best]),
                        "sensitivity": float(sensitivity[best]),
                        "specificity": float(specificity[best]),
                    }
                )
    return found


def operating_points(
    table: Predictions, chosen: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return what thresholds that were chosen elsewhere reach on `table`.

    The sensitivity that a threshold promised on validation is not the one that it has on test:
    this is the number to quote.
    """
    problems = _binary_problems(table)
    found = []
    for entry in chosen:
        if entry["score"] not in problems:
            continue
        scores, positive = problems[entry["score"]]
        called = scores >= entry["threshold"]
        found.append(
            {
                "score": entry["score"],
                "rule": entry["rule"],
                "threshold": entry["threshold"],
                "sensitivity": float(called[positive].mean()),
                "specificity": float((~called[~positive]).mean()),
            }
        )
    return found


def reliability(table: Predictions) -> pd.DataFrame:
    """Return the reliability diagram of the most probable class.

    Returns
    -------
    DataFrame
        A row per bin that holds images: `low`, `high` (edges), `num_images`, `confidence` and
        `accuracy` (means). The ECE is the mean of `|accuracy - confidence|` over the images.
    """
    confidence = table.probabilities.max(axis=1)
    frame = pd.DataFrame(
        {
            "bin": equal_width_bins(confidence),
            "confidence": confidence,
            "accuracy": (table.predicted == table.truth).astype(float),
        }
    )
    rows = frame.groupby("bin").agg(
        num_images=("confidence", "size"),
        confidence=("confidence", "mean"),
        accuracy=("accuracy", "mean"),
    )
    rows.insert(0, "low", rows.index / NUM_BINS)
    rows.insert(1, "high", (rows.index + 1) / NUM_BINS)
    return rows.reset_index(drop=True)


def _binary_problems(table: Predictions) -> dict[str, tuple[Floats, Any]]:
    """Return score and truth of the questions that have both answers in the table."""
    problems = {"malignant": (table.malignant_score, table.is_malignant[table.truth])}
    for number, name in enumerate(table.classes):
        if name in ("mel", "melanoma"):
            problems[name] = (table.probabilities[:, number], table.truth == number)
    return {
        name: (scores, positive)
        for name, (scores, positive) in problems.items()
        if positive.any() and not positive.all()
    }


def _best(allowed: Any, other: Floats, reached: Floats) -> int:
    """Of the points that are allowed the one with the most of `other`, then of `reached`."""
    candidates = np.flatnonzero(allowed)
    if len(candidates) == 0:  # only "nothing is positive" keeps the rule: take the highest score
        return 1
    return int(candidates[np.lexsort((-reached[candidates], -other[candidates]))[0]])
