"""What follows from the outcomes: who is quarantined, whether the run stops, what is reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from components.errors import CheckFailedError
from components.tables import QUARANTINE_COLUMNS
from components.validation.checks import Outcome, named


def quarantined(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return image id -> why it is left out, sorted by id; several reasons joined with "; "."""
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.check.severity == "quarantine":
            for image, reason in outcome.reasons.items():
                reasons.setdefault(image, []).append(reason)
    return {image: "; ".join(reasons[image]) for image in sorted(reasons)}


def quarantine_table(left_out: dict[str, str]) -> pd.DataFrame:
    """Return the table of `QUARANTINE_COLUMNS`."""
    rows = list(left_out.items())
    return pd.DataFrame(rows, columns=list(QUARANTINE_COLUMNS)).astype("str")


def failure(
    outcomes: Sequence[Outcome],
    left_out: dict[str, str],
    num_images: int,
    max_share: float,
    *,
    where: str,
) -> CheckFailedError | None:
    """Return the error that stops the run, or None.

    It stops when an *error* check failed, when more than `max_share` of the images are left out,
    or when nothing is left.
    """
    failed = [o for o in outcomes if not o.success and o.check.severity == "error"]
    whats = [outcome.finding() for outcome in failed]
    fixes = [f"{outcome.check.name}: {outcome.check.fix}" for outcome in failed]
    configurable = [outcome for outcome in failed if "." in outcome.check.name]
    if configurable:
        fixes.append(
            "where this is as it should be, change the check's bound or severity in params.yaml "
            f"(validation.{configurable[0].check.name})"
        )
    if num_images and len(left_out) == num_images:
        whats.append(f"no image is left: all {num_images} are quarantined ({_why(outcomes)})")
    elif len(left_out) > max_share * num_images:
        whats.append(
            f"{len(left_out)} of {num_images} images ({len(left_out) / num_images:.1%}) would be "
            f"left out, at most {max_share:.1%} may be: {named(list(left_out))} ({_why(outcomes)})"
        )
    if len(whats) > len(failed):
        fixes.append(
            "mend these images in the source, or raise validation.max_quarantined_share in "
            "params.yaml"
        )
    if not whats:
        return None
    return CheckFailedError("\n  ".join(whats), where=where, fix="\n         ".join(fixes))


def _why(outcomes: Sequence[Outcome]) -> str:
    counts = [
        f"{outcome.check.name} {len(outcome.reasons)}"
        for outcome in outcomes
        if outcome.check.severity == "quarantine" and outcome.reasons
    ]
    return ", ".join(counts)


def summary(
    outcomes: Sequence[Outcome], num_images: int, num_quarantined: int, success: bool
) -> dict[str, Any]:
    """Return the document of `reports/validation/summary.json`."""
    return {
        "schema_version": 1,
        "success": success,
        "num_images": num_images,
        "num_quarantined": num_quarantined,
        "expectations": [_entry(outcome) for outcome in outcomes],
    }


def _entry(outcome: Outcome) -> dict[str, Any]:
    check = outcome.check
    entry: dict[str, Any] = {
        "suite": outcome.suite,
        "expectation": check.name,
        "title": check.title,
        "severity": check.severity,
        "success": outcome.success,
        "observed": outcome.observed,
        "num_offenders": len(outcome.offenders),
        "offenders": list(outcome.offenders),
        "rows": outcome.rows,
        "gx": check.expectation,
    }
    optional = {
        "bound": check.bound,
        "column": check.arguments.get("column"),
        "note": outcome.note or None,
        "fix": None if outcome.success else check.fix,
    }
    return entry | {name: value for name, value in optional.items() if value is not None}
