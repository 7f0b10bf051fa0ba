"""ROC and precision-recall numbers of a score, for many weightings of the images at once.

Every function takes weights of shape (R, N): R weightings (resamples of a bootstrap, or one row of
ones) of N images. Images with the same score lie on one point of the curve, whatever their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]

_SLACK = 1e-9  # sums of weights that are not whole numbers miss a bound by rounding


@dataclass(frozen=True)
class Curve:
    """Weights of the positive and negative images at or above falling thresholds.

    Runs of negative images between two positive ones are one step: they form a straight piece of
    the ROC curve and gain no recall, so that every number below is the same as from all points.

    Attributes
    ----------
    true_positives, false_positives
        Shape (R, B + 1): by falling threshold; the first column is 0 (nothing called positive).
    thresholds
        Shape (B + 1,): an image is called positive when its score is at least this; the first
        is infinite.
    """

    true_positives: Floats
    false_positives: Floats
    thresholds: Floats

    @staticmethod
    def of(scores: Floats, positive: Flags, weights: Floats) -> Curve:
        """Return the curve of `scores` (N,), where `positive` (N,) is the truth."""
        order = np.argsort(-scores, kind="stable")
        step = _steps(scores[order], positive[order])
        num_steps = int(step[-1]) + 1
        is_positive = positive[order]
        last = np.flatnonzero(np.append(np.diff(step) != 0, True))
        return Curve(
            _running_sums(weights, order[is_positive], step[is_positive], num_steps),
            _running_sums(weights, order[~is_positive], step[~is_positive], num_steps),
            np.append(np.inf, scores[order][last]),
        )

    @property
    def sensitivity(self) -> Floats:
        """True positive rate at each threshold, shape (R, B + 1); NaN without positives."""
        return _divide(self.true_positives, self.true_positives[:, -1:])

    @property
    def false_positive_rate(self) -> Floats:
        """1 - specificity at each threshold, shape (R, B + 1); NaN without negatives."""
        return _divide(self.false_positives, self.false_positives[:, -1:])

    def auc(self) -> Floats:
        """Area under the ROC curve by the trapezoidal rule, ties counting half; shape (R,)."""
        width = np.diff(self.false_positives, axis=1)
        height = self.true_positives[:, 1:] + self.true_positives[:, :-1]
        area = np.einsum("rb,rb->r", width, height) / 2
        return _divide(area, self.true_positives[:, -1] * self.false_positives[:, -1])

    def average_precision(self) -> Floats:
        """Sum of precision times gain in recall over the thresholds (no interpolation); (R,)."""
        called = self.true_positives[:, 1:] + self.false_positives[:, 1:]
        precision = np.divide(
            self.true_positives[:, 1:], called, out=np.zeros_like(called), where=called > 0
        )
        total = np.einsum("rb,rb->r", np.diff(self.true_positives, axis=1), precision)
        return _divide(total, self.true_positives[:, -1])

    def auc_above_sensitivity(self, least: float) -> Floats:
        """Area under the part of the ROC curve whose sensitivity is at least `least`; (R,).

        The integral of sensitivity over the false positive rate, from where the curve (its points
        joined by straight lines) reaches `least` to 1, not normalised: 1 is perfect, a random
        score has (1 - least²) / 2. As the official scorer of the ISIC challenges does it
        (`auc_sens_80` of isic-challenge-scoring).
        """
        high, wide = self.sensitivity, self.false_positive_rate
        rise = np.diff(high, axis=1)
        # Share of each piece of the curve that lies below `least`; a level piece is in or out.
        below = np.divide(
            np.clip(least - high[:, :-1], 0, None),
            rise,
            out=np.where(high[:, :-1] < least, 1.0, 0.0),
            where=rise > 0,
        )
        below = np.clip(below, 0, 1)
        width = np.diff(wide, axis=1) * (1 - below)
        low = high[:, :-1] + below * rise
        return np.asarray(np.sum(width * (low + high[:, 1:]) / 2, axis=1))

    def sensitivity_at_specificity(self, least: float) -> Floats:
        """Highest sensitivity of a threshold with at least this specificity; shape (R,)."""
        allowed = self.false_positive_rate <= 1 - least + _SLACK
        best = np.where(allowed, self.sensitivity, 0.0).max(axis=1)
        return np.asarray(np.where(self._both, best, np.nan))

    def specificity_at_sensitivity(self, least: float) -> Floats:
        """Highest specificity of a threshold with at least this sensitivity; shape (R,)."""
        allowed = self.sensitivity >= least - _SLACK
        best = np.where(allowed, 1 - self.false_positive_rate, 0.0).max(axis=1)
        return np.asarray(np.where(self._both, best, np.nan))

    @property
    def _both(self) -> Flags:
        return np.asarray((self.true_positives[:, -1] > 0) & (self.false_positives[:, -1] > 0))


def _steps(scores: Floats, positive: Flags) -> Codes:
    """Number the steps of a curve for scores in falling order: ties, and runs of negatives."""
    tie = np.append(0, np.cumsum(np.diff(scores) != 0))
    has_positive = np.bincount(tie, weights=positive)[tie] > 0
    starts = (np.diff(tie) != 0) & (has_positive[1:] | has_positive[:-1])
    return np.append(0, np.cumsum(starts)).astype(np.int64)


def _running_sums(weights: Floats, columns: Codes, step: Codes, num_steps: int) -> Floats:
    """Sum `weights[:, columns]` up to each step, shape (R, num_steps + 1), from 0 on."""
    sums = np.zeros((len(weights), num_steps + 1))
    if len(columns):
        present, starts = np.unique(step, return_index=True)
        sums[:, present + 1] = np.add.reduceat(weights[:, columns], starts, axis=1)
    return np.asarray(np.cumsum(sums, axis=1, out=sums))


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient, NaN where the denominator is not above 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    empty = np.full(shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=empty, where=denominator > 0))
