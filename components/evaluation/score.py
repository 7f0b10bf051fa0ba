"""`lesionflow score`: every number of a prediction table, with 95 % intervals, as one document.

`score_table` makes the document (plain JSON: no NaN, what is undefined is null), `score_text`
prints it. `docs/metrics.md` defines every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.evaluation.document import intervals_document, numbers_document
from components.evaluation.intervals import LEAST_GROUPS, LEVEL, image_weights, one_thread, stack
from components.evaluation.metrics import NUM_BINS, Measures, measure, point
from components.evaluation.prediction_table import (
    Predictions,
    parse_predictions,
    with_known_names,
)
from components.evaluation.subgroups import (
    Subgroup,
    measure_subgroup,
    subgroup_document,
    subgroups_of,
)
from components.tables import probability_columns

SCHEMA_VERSION = 1


def score_table(
    frame: pd.DataFrame,
    classes: Sequence[str] | None = None,
    malignant: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    *,
    where: str = "the prediction table",
) -> dict[str, Any]:
    """Return every metric of a prediction table.

    Parameters
    ----------
    frame
        `image_id`, `diagnosis`, `p_<class>` …; what there is of `group_id`, `patient_id`,
        `lesion_id` (the bootstrap draws all that they join), `age_years`, `sex`, `site`,
        `diagnosis_method`, `skin_type`, `brightness`, `contrast`, `sharpness` (subgroups).
    classes
        Default: those of the probability columns.
    malignant
        Default: those with a malignant name (akiec, bcc, mel, melanoma, malignant, scc).
    resamples, seed
        Of the bootstrap.
    where
        Names the table in errors.

    Returns
    -------
    dict
        The JSON document of `lesionflow score`; a table in another order of rows gives the same.

    Raises
    ------
    TableError
        The table cannot be used as it is; the message names the row.
    """
    table, rows = parse_predictions(frame, classes, malignant, where=where).in_order()
    frame = with_known_names(frame).iloc[rows].reset_index(drop=True)
    with one_thread():
        return _document(frame, table, resamples, seed)


def _document(frame: pd.DataFrame, table: Predictions, resamples: int, seed: int) -> dict[str, Any]:
    subgroups = subgroups_of(frame, table)
    resampled, by_subgroup = _bootstrap(table, subgroups, resamples, seed)
    by_column: dict[str, list[dict[str, Any]]] = {}
    for subgroup, own in zip(subgroups, by_subgroup, strict=True):
        by_column.setdefault(subgroup.column, []).append(subgroup_document(subgroup, own))
    return {
        "schema_version": SCHEMA_VERSION,
        "num_images": len(table),
        **_level_document(table, resampled),
        "per_lesion": _per_lesion(frame, table, resamples, seed),
        "subgroups": by_column,
        "bootstrap": {
            "level": LEVEL,
            "resamples": resamples,
            "seed": seed,
            "unit": table.group_by,
            "strata": "the group's rarest diagnosis",
        },
        "num_calibration_bins": NUM_BINS,
    }


def _bootstrap(
    table: Predictions, subgroups: Sequence[Subgroup], resamples: int, seed: int
) -> tuple[Measures, list[Measures]]:
    """Measure the table and its subgroups under the same resamples."""
    parts: list[Measures] = []
    by_subgroup: list[list[Measures]] = [[] for _ in subgroups]
    for weights in image_weights(table, resamples, seed):
        parts.append(measure(table, weights))
        for subgroup, own in zip(subgroups, by_subgroup, strict=True):
            own.append(measure_subgroup(subgroup.table, weights[:, subgroup.rows]))
    return stack(parts), [stack(own) for own in by_subgroup]


def _level_document(table: Predictions, resampled: Measures) -> dict[str, Any]:
    """Return what images and lesions have in common."""
    values = point(table)
    intervals, without = intervals_document(table, values, resampled)
    groups_per_class = [
        len(np.unique(table.groups[table.truth == number])) for number in range(len(table.classes))
    ]
    named = list(zip(table.classes, groups_per_class, strict=True))
    return {
        "num_groups": table.num_groups,
        "classes": list(table.classes),
        "malignant_classes": list(table.malignant),
        "absent_classes": [name for name, count in named if count == 0],
        "small_classes": [name for name, count in named if 0 < count < LEAST_GROUPS],
        **numbers_document(table, values),
        "intervals": intervals,
        "no_interval": without,
    }


def _per_lesion(
    frame: pd.DataFrame, table: Predictions, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Return the document of the lesions, their probabilities averaged over their images.

    None where no lesion is known. An image without a lesion is one of its own. A lesion with two
    diagnoses has no truth: it is left out by name.
    """
    if "lesion_id" not in frame.columns or frame["lesion_id"].isna().all():
        return None
    columns = probability_columns(table.classes)
    named = "lesion " + frame["lesion_id"].astype(str)
    lesion = named.where(frame["lesion_id"].notna(), "image " + frame["image_id"].astype(str))
    images = frame[["diagnosis", *columns]].assign(lesion=lesion, group_id=table.groups)
    grouped = images.groupby("lesion", sort=True)
    torn = grouped["diagnosis"].nunique() > 1
    lesions = (
        grouped[columns]
        .mean()
        .assign(diagnosis=grouped["diagnosis"].first(), group_id=grouped["group_id"].first())
    )
    kept = lesions[~torn].reset_index().rename(columns={"lesion": "image_id"})
    if kept.empty:
        return None
    own, _ = parse_predictions(kept, table.classes, table.malignant).in_order()
    resampled, _ = _bootstrap(own, [], resamples, seed)
    return {
        "num_lesions": len(own),
        "left_out": sorted(name.removeprefix("lesion ") for name in torn.index[torn]),
        **_level_document(own, resampled),
    }


def melanoma_sensitivity(document: Mapping[str, Any]) -> tuple[str, float | None]:
    """Return the name and value of the sensitivity that ranks and gates ask for.

    That of `mel` (or `melanoma`); where no class is called so, that of malignant against benign.
    """
    for name in ("mel", "melanoma"):
        if name in document["per_class"]:
            return f"per_class.{name}.sensitivity", document["per_class"][name]["sensitivity"]
    malignant = document["malignant"]
    return "malignant.sensitivity", malignant["sensitivity"] if malignant else None


# --- as text -----------------------------------------------------------------------------------

_SHOWN = (
    ("balanced_accuracy", "balanced accuracy"),
    ("accuracy", "accuracy"),
    ("macro_f1", "macro F1"),
    ("weighted_f1", "weighted F1"),
    ("macro_auc", "macro AUC"),
    ("mcc", "MCC"),
    ("cohen_kappa", "Cohen's kappa"),
    ("log_loss", "log loss"),
    ("brier", "Brier score"),
    ("ece", "ECE"),
    ("adaptive_ece", "adaptive ECE"),
)
_SHOWN_MALIGNANT = (
    ("auc", "AUC"),
    ("sensitivity_at_90_specificity", "sensitivity at 90 % specificity"),
    ("sensitivity_at_95_specificity", "sensitivity at 95 % specificity"),
    ("specificity_at_95_sensitivity", "specificity at 95 % sensitivity"),
)
_SHOWN_PER_CLASS = ("sensitivity", "specificity", "ppv", "f1", "auc")


def score_text(document: Mapping[str, Any]) -> str:
    """Return the document of `score_table` for people to read."""
    intervals = document["intervals"]
    model = document.get("model")
    lines = [f"model: {model['name']} {model['version']}"] if model else []
    lines += [
        f"{document['num_images']} images in {document['num_groups']} groups; "
        "95 % intervals by bootstrap over groups",
        "",
        *(_line(label, document[name], intervals.get(name)) for name, label in _SHOWN),
    ]
    if document["malignant"]:
        lines += ["", f"malignant ({', '.join(document['malignant_classes'])}) against benign"]
        lines += [
            _line(label, document["malignant"][name], intervals.get(f"malignant.{name}"))
            for name, label in _SHOWN_MALIGNANT
        ]
    lines += ["", *_class_lines(document)]
    if document["per_lesion"]:
        lesions = document["per_lesion"]
        lines += ["", f"per lesion ({lesions['num_lesions']}, probabilities averaged)"]
        lines += [
            _line(label, lesions[name], lesions["intervals"].get(name))
            for name, label in _SHOWN[:2]
        ]
    return "\n".join(lines + _remarks(document))


def _class_lines(document: Mapping[str, Any]) -> list[str]:
    width = max(len("class"), *(len(name) for name in document["classes"]))
    head = "".join(f"{name:>13}" for name in _SHOWN_PER_CLASS)
    lines = [f"  {'class':<{width}}{'images':>8}{head}"]
    for name, own in document["per_class"].items():
        cells = "".join(f"{_number(own[key]):>13}" for key in _SHOWN_PER_CLASS)
        lines.append(f"  {name:<{width}}{own['support']:>8}{cells}")
    return lines


def _remarks(document: Mapping[str, Any]) -> list[str]:
    lines = []
    if document["absent_classes"]:
        lines.append(
            f"no image of {', '.join(document['absent_classes'])}: "
            "balanced accuracy is over the other classes"
        )
    if document["small_classes"]:
        lines.append(
            f"fewer than {LEAST_GROUPS} groups of {', '.join(document['small_classes'])}: "
            "no interval, and averages are less sure than they look"
        )
    left_out = document.get("left_out", [])
    lines += [f"left out: {entry['image_id']}: {entry['reason']}" for entry in left_out]
    if document.get("seen_in_training"):
        lines.append(
            f"{document['seen_in_training']} images share bytes, lesion or patient with the "
            "model's training or validation images: the numbers flatter it"
        )
    return ["", *lines] if lines else []


def _line(label: str, value: float | None, bounds: Sequence[float] | None) -> str:
    shown = f"[{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
    return f"  {label:<34}{_number(value):>6}  {shown}".rstrip()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
