"""Every metric of a prediction table, for many weightings of its images at once.

The point estimate is the weighting by ones; a bootstrap is a few thousand weightings. Both go
through the same code, so an interval can never belong to another definition than its number.
`docs/metrics.md` has the definitions; where scikit-learn has a metric, ours agrees with it.

Undefined numbers (the sensitivity of a class without images, say) are NaN in here and null in
documents.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from components.evaluation.curves import Curve
from components.evaluation.prediction_table import Codes, Floats, Predictions

NUM_BINS = 15
"""Bins of both calibration errors (Guo et al. 2017)."""
Measures = dict[str, Floats]

HEADLINE = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
    "macro_auc",
    "macro_average_precision",
    "mcc",
    "cohen_kappa",
    "log_loss",
    "brier",
    "ece",
    "adaptive_ece",
)
PER_CLASS = (
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "accuracy",
    "auc",
    "average_precision",
    "auc_above_80_sensitivity",
)
MALIGNANT = (
    "auc",
    "average_precision",
    "sensitivity",
    "specificity",
    "sensitivity_at_90_specificity",
    "sensitivity_at_95_specificity",
    "specificity_at_95_sensitivity",
)


def measure(table: Predictions, weights: Floats) -> Measures:
    """Return every metric under each weighting.

    Parameters
    ----------
    table
        N images, C classes.
    weights
        Shape (R, N), not negative.

    Returns
    -------
    dict of str to ndarray, shape (R,)
        `HEADLINE` names, `per_class.<class>.<name>` of `PER_CLASS`, and `malignant.<name>` of
        `MALIGNANT` where the table has malignant classes and others.
    """
    confusion = confusion_matrices(table, weights)
    measures = from_confusion(confusion, table.classes)
    measures |= calibration_measures(table, weights)
    areas = []
    for number, name in enumerate(table.classes):
        curve = Curve.of(table.probabilities[:, number], table.truth == number, weights)
        own = {
            "auc": curve.auc(),
            "average_precision": curve.average_precision(),
            "auc_above_80_sensitivity": curve.auc_above_sensitivity(0.8),
        }
        areas.append((own["auc"], own["average_precision"]))
        measures |= {f"per_class.{name}.{key}": value for key, value in own.items()}
    measures["macro_auc"] = mean_of_defined(np.stack([auc for auc, _ in areas], axis=1))
    measures["macro_average_precision"] = mean_of_defined(
        np.stack([precision for _, precision in areas], axis=1)
    )
    return measures | malignant_measures(table, weights, confusion)


def point(table: Predictions) -> dict[str, float]:
    """Return every metric of the table itself (NaN where it is undefined)."""
    measured = measure(table, np.ones((1, len(table))))
    return {name: float(values[0]) for name, values in measured.items()}


def confusion_matrices(table: Predictions, weights: Floats) -> Floats:
    """Return confusion matrices, shape (R, C, C): row the diagnosis, column the prediction."""
    num_classes = len(table.classes)
    cell = table.truth * num_classes + table.predicted
    counts = weights @ one_hot(cell, num_classes**2)
    return np.asarray(counts.reshape(len(weights), num_classes, num_classes))


def from_confusion(confusion: Floats, classes: tuple[str, ...]) -> Measures:
    """Return what follows from confusion matrices (R, C, C) alone.

    Macro and weighted averages are over the classes that are diagnosed or predicted at least
    once, an undefined precision counting 0 (scikit-learn's defaults); balanced accuracy is over
    the classes that are diagnosed.
    """
    total = confusion.sum(axis=(1, 2))[:, None]
    hit = np.einsum("rcc->rc", confusion)
    support, called = confusion.sum(axis=2), confusion.sum(axis=1)
    absent = total - support
    per_class = {
        "sensitivity": ratio(hit, support),
        "specificity": ratio(absent - called + hit, absent),
        "ppv": ratio(hit, called),
        "npv": ratio(absent - called + hit, total - called),
        "f1": ratio(2 * hit, support + called),
        "accuracy": ratio(total - support - called + 2 * hit, total),
    }
    seen = (support + called) > 0
    measures = {
        "accuracy": ratio(hit.sum(axis=1), total[:, 0]),
        "balanced_accuracy": mean_of_defined(per_class["sensitivity"]),
        "mcc": _mcc(hit.sum(axis=1), support, called, total[:, 0]),
        "cohen_kappa": _kappa(hit.sum(axis=1), support, called, total[:, 0]),
    }
    for name, source in (("precision", "ppv"), ("recall", "sensitivity"), ("f1", "f1")):
        values = np.nan_to_num(per_class[source])
        measures[f"macro_{name}"] = ratio((values * seen).sum(axis=1), seen.sum(axis=1))
        measures[f"weighted_{name}"] = ratio((values * support).sum(axis=1), total[:, 0])
    for key, columns in per_class.items():
        for number, name in enumerate(classes):
            measures[f"per_class.{name}.{key}"] = columns[:, number]
    return measures


def _mcc(hits: Floats, support: Floats, called: Floats, total: Floats) -> Floats:
    """Matthews correlation of many classes (Gorodkin 2004); NaN where it is 0 / 0."""
    both = hits * total - (support * called).sum(axis=1)
    spread = (total**2 - (called**2).sum(axis=1)) * (total**2 - (support**2).sum(axis=1))
    return ratio(both, np.sqrt(np.clip(spread, 0, None)))


def _kappa(hits: Floats, support: Floats, called: Floats, total: Floats) -> Floats:
    """Cohen's kappa (1960); NaN where chance alone agrees always."""
    chance = (support * called).sum(axis=1)
    return ratio(hits * total - chance, total**2 - chance)


def calibration_measures(table: Predictions, weights: Floats) -> Measures:
    """Return log loss, Brier score, ECE and adaptive ECE (see `docs/metrics.md`)."""
    confidence = table.probabilities.max(axis=1)
    surplus = (table.predicted == table.truth) - confidence
    bins = (equal_width_bins(confidence), equal_count_bins(confidence))
    columns = np.concatenate(
        [
            np.stack([_log_losses(table), _brier_scores(table)], axis=1),
            *(surplus[:, None] * one_hot(numbers, NUM_BINS) for numbers in bins),
        ],
        axis=1,
    )
    means = ratio(weights @ columns, weights.sum(axis=1, keepdims=True))
    return {
        "log_loss": means[:, 0],
        "brier": means[:, 1],
        "ece": np.abs(means[:, 2 : 2 + NUM_BINS]).sum(axis=1),
        "adaptive_ece": np.abs(means[:, 2 + NUM_BINS :]).sum(axis=1),
    }


def _log_losses(table: Predictions) -> Floats:
    """Per image: minus the log of the diagnosis' probability, clipped as scikit-learn does."""
    eps = np.finfo(np.float64).eps
    own = table.probabilities[np.arange(len(table)), table.truth]
    return np.asarray(-np.log(np.clip(own, eps, 1 - eps)))


def _brier_scores(table: Predictions) -> Floats:
    """Per image: squared distance from the one-hot diagnosis; half of it for two classes."""
    distance = table.probabilities - one_hot(table.truth, len(table.classes))
    half = 0.5 if len(table.classes) == 2 else 1.0
    return np.asarray(half * (distance**2).sum(axis=1))


def equal_width_bins(confidence: Floats) -> Codes:
    """Number of each confidence's bin: `NUM_BINS` of the same width, (low, high]."""
    edges = np.linspace(0, 1, NUM_BINS + 1)
    found = np.searchsorted(edges, confidence, side="left") - 1
    return np.clip(found, 0, NUM_BINS - 1).astype(np.int64)


def equal_count_bins(confidence: Floats) -> Codes:
    """Number of each confidence's bin: `NUM_BINS` of about the same count, equal ones together."""
    edges = np.quantile(confidence, np.linspace(0, 1, NUM_BINS + 1)[1:-1])
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


def malignant_measures(table: Predictions, weights: Floats, confusion: Floats) -> Measures:
    """Return malignant against benign: by the score, and by whether the prediction is malignant."""
    flags = table.is_malignant
    if flags.all() or not flags.any():
        return {}
    curve = Curve.of(table.malignant_score, flags[table.truth], weights)
    rows = confusion[:, flags], confusion[:, ~flags]
    called = rows[0][:, :, flags], rows[1][:, :, ~flags]
    values = {
        "auc": curve.auc(),
        "average_precision": curve.average_precision(),
        "sensitivity": ratio(called[0].sum(axis=(1, 2)), rows[0].sum(axis=(1, 2))),
        "specificity": ratio(called[1].sum(axis=(1, 2)), rows[1].sum(axis=(1, 2))),
        "sensitivity_at_90_specificity": curve.sensitivity_at_specificity(0.90),
        "sensitivity_at_95_specificity": curve.sensitivity_at_specificity(0.95),
        "specificity_at_95_sensitivity": curve.specificity_at_sensitivity(0.95),
    }
    return {f"malignant.{name}": value for name, value in values.items()}


def one_hot(numbers: Codes, size: int) -> Floats:
    """Return shape (N, size): 1 in the column of each number, else 0."""
    return np.asarray(np.eye(size)[numbers])


def ratio(numerator: npt.NDArray[np.generic], denominator: npt.NDArray[np.generic]) -> Floats:
    """Return the quotient of two arrays that broadcast; NaN where the denominator is 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    empty = np.full(shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=empty, where=denominator != 0))


def mean_of_defined(columns: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(columns)
    return ratio(np.where(defined, columns, 0.0).sum(axis=-1), defined.sum(axis=-1))
