"""The gates before a promotion: each gives a value, a bound and a verdict.

A gate is `passed`, `failed`, `undecided` (what is at hand cannot tell: not passed) or `off` (its
bound is null, or it does not apply; the value is shown all the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from components.registry.config import GateParams

Verdict = Literal["passed", "failed", "undecided", "off"]


@dataclass(frozen=True)
class Gate:
    """One gate's outcome.

    Attributes
    ----------
    name
        As in `params.yaml`, where it is there.
    value, bound
        What was measured, and what it was held against; None where there is none.
    verdict
        See the module.
    detail
        What the value is, for people.
    """

    name: str
    value: float | None
    bound: float | None
    verdict: Verdict
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def at_least(name: str, value: float | None, bound: float | None, detail: str) -> Gate:
    """Return the gate `value >= bound`."""
    return Gate(name, value, bound, _verdict(value, bound, sign=1), detail)


def at_most(name: str, value: float | None, bound: float | None, detail: str) -> Gate:
    """Return the gate `value <= bound`."""
    return Gate(name, value, bound, _verdict(value, bound, sign=-1), detail)


def _verdict(value: float | None, bound: float | None, *, sign: int) -> Verdict:
    if bound is None:
        return "off"
    if value is None or not np.isfinite(value):
        return "undecided"
    return "passed" if sign * (value - bound) >= 0 else "failed"


def quality_gates(
    test: pd.DataFrame,
    metrics: Mapping[str, Any],
    latency_ms: float | None,
    malignant: tuple[str, ...],
    params: GateParams,
) -> list[Gate]:
    """Return the gates that look at the candidate alone.

    Parameters
    ----------
    test
        Its calibrated prediction table of the test part.
    metrics
        The `score` document of that table.
    latency_ms
        Median for one picture on one CPU; None where it was not measured.
    malignant
        Classes that are.
    """
    sensitivity, detail = melanoma_sensitivity(test, malignant, params.melanoma_specificity)
    gap, gap_detail = _subgroup_gap(metrics)
    return [
        at_least(
            "min_balanced_accuracy",
            metrics["balanced_accuracy"],
            params.min_balanced_accuracy,
            _with_interval("balanced accuracy", metrics, "balanced_accuracy"),
        ),
        at_least("min_melanoma_sensitivity", sensitivity, params.min_melanoma_sensitivity, detail),
        at_most(
            "max_ece",
            metrics["ece"],
            params.max_ece,
            _with_interval("expected calibration error", metrics, "ece"),
        ),
        at_most("max_subgroup_gap", gap, params.max_subgroup_gap, gap_detail),
        at_most(
            "max_latency_ms",
            latency_ms,
            params.max_latency_ms,
            "median for one picture on one CPU"
            if latency_ms is not None
            else "was not measured (stage profile)",
        ),
    ]


def melanoma_sensitivity(
    test: pd.DataFrame, malignant: tuple[str, ...], specificity: float
) -> tuple[float | None, str]:
    """Return the sensitivity for melanoma at a specificity, and what it is.

    Highest sensitivity of a threshold on the probability of melanoma with at least this
    specificity on the table. Without a class of melanoma: on the sum of the malignant classes.
    """
    from components.evaluation.curves import Curve

    target = next((name for name in ("mel", "melanoma") if f"p_{name}" in test.columns), None)
    positives = [target] if target else list(malignant)
    label = target or f"malignant ({', '.join(malignant)}; there is no class of melanoma)"
    detail = f"sensitivity for {label} at {specificity:.0%} specificity"
    is_positive = test["diagnosis"].isin(positives).to_numpy(dtype=bool)
    if not positives or not is_positive.any() or is_positive.all():
        return None, f"{detail}: test has not both of them"
    scores = test[[f"p_{name}" for name in positives]].to_numpy(dtype=np.float64).sum(axis=1)
    curve = Curve.of(scores, is_positive, np.ones((1, len(test))))
    value = float(curve.sensitivity_at_specificity(specificity)[0])
    return value, f"{detail}, {int(is_positive.sum())} images"


def _subgroup_gap(metrics: Mapping[str, Any]) -> tuple[float | None, str]:
    from components.evaluation.subgroups import largest_gap

    found = largest_gap(metrics, "balanced_accuracy")
    if found is None:
        return None, "no two subgroups are large enough to compare"
    low, high = found["lowest"], found["highest"]
    detail = (
        f"balanced accuracy by {found['column']}: {low['value']} {low['balanced_accuracy']:.3f}, "
        f"{high['value']} {high['balanced_accuracy']:.3f}"
    )
    return float(found["gap"]), detail


def _with_interval(label: str, metrics: Mapping[str, Any], name: str) -> str:
    found = metrics["intervals"].get(name)
    shown = f", 95 % interval {found[0]:.3f} to {found[1]:.3f}" if found else ""
    return f"{label} on {metrics['num_images']} test images{shown}"
