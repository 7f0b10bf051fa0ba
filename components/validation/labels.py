"""Checks on the labels table: what a row may say, and whether there is enough of each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from components.splitting.config import SplitParams
from components.splitting.groups import connect
from components.splitting.ledger import SAVED_ANEW, Ledger
from components.tables import LABEL_COLUMNS
from components.validation.checks import Check, Row, Suite, text_column
from components.validation.config import LabelRules, Numbers, Within, Words

_NO_DIAGNOSIS = "(none)"
_SOURCE_FIX = "correct it in the source"


def schema_suite(labels: pd.DataFrame) -> Suite:
    """Build the checks without which no other one means anything; they are always errors."""
    frame = labels.copy()
    if "image_id" in frame:
        frame["image_id"] = text_column(frame["image_id"])
    ids: list[Check] = []
    if "image_id" in frame:
        ids = [
            Check(
                name="image_id",
                severity="error",
                title="every row has an image id",
                expectation="ExpectColumnValuesToNotBeNull",
                arguments={"column": "image_id"},
                fix="give every row of the source's table an image id",
            ),
            Check(
                name="unique_image_ids",
                severity="error",
                title="no image id is listed twice",
                expectation="ExpectColumnValuesToBeUnique",
                arguments={"column": "image_id"},
                fix="keep one row per image in the source's table",
            ),
        ]
    columns = Check(
        name="columns",
        severity="error",
        title="the labels table has all columns",
        expectation="ExpectTableColumnsToMatchSet",
        arguments={"column_set": list(LABEL_COLUMNS), "exact_match": False},
        fix="run the stage `ingest` again; it writes all of them, empty where a source has none",
    )
    count = Check(
        name="rows",
        severity="error",
        title="there is at least one image",
        expectation="ExpectTableRowCountToBeBetween",
        arguments={"min_value": 1},
        fix="check the sources in params.yaml: none of them lists an image",
        bound="at least 1",
    )
    key = ("image_id",) if "image_id" in frame else ()
    return Suite("schema", frame, key, [columns, count, *ids], images=(), rows="rows")


def labels_suite(
    labels: pd.DataFrame, classes: Sequence[str], ledger: Ledger, rules: LabelRules
) -> Suite:
    """Build the checks on what the rows of the labels table say.

    Parameters
    ----------
    labels
        One row per image (`LABEL_COLUMNS`).
    classes
        The recipe's diagnoses.
    ledger
        What earlier runs split.
    rules
        Severities and thresholds.
    """
    frame = labels[list(LABEL_COLUMNS)].copy()
    for name in (column for column in LABEL_COLUMNS if column != "age_years"):
        frame[name] = text_column(frame[name])
    frame["age_years"] = pd.to_numeric(frame["age_years"]).astype(float)
    frame["diagnosis"] = frame["diagnosis"].fillna(_NO_DIAGNOSIS)
    by_lesion = frame.groupby("lesion_id")["diagnosis"]
    frame["lesion_diagnoses"] = by_lesion.transform("nunique")
    spelled = by_lesion.agg(lambda found: ", ".join(sorted(set(found))))
    frame["lesion_diagnoses_spelled"] = frame["lesion_id"].map(spelled)
    frame["part_of_other_file"] = text_column(frame["image_id"].map(ledger.dealt_anew(labels)))
    checks = [
        _known_diagnoses(rules, classes),
        _one_diagnosis(rules),
        _same_file(rules),
        _age(rules.age_years),
        _placeholders(rules.age_placeholders),
        _vocabulary("sex", rules.sex),
        _vocabulary("site", rules.site),
        *_missing(rules),
    ]
    return Suite("labels", frame, ("image_id",), checks)


def _known_diagnoses(rules: LabelRules, classes: Sequence[str]) -> Check:
    return Check(
        name="labels.known_diagnoses",
        severity=rules.known_diagnoses.severity,
        title="the diagnosis is one of the recipe's",
        expectation="ExpectColumnValuesToBeInSet",
        arguments={"column": "diagnosis", "value_set": list(classes)},
        fix="map the spelling onto a class in diagnoses.names of params.yaml, or add the class to "
        "diagnoses.classes",
        bound=", ".join(classes),
        reason=lambda row, _: f"diagnosis {row['diagnosis']} is not one of the recipe's",
    )


def _one_diagnosis(rules: LabelRules) -> Check:
    def reason(row: Row, _: str) -> str:
        return f"lesion {row['lesion_id']} has several diagnoses: {row['lesion_diagnoses_spelled']}"

    return Check(
        name="labels.one_diagnosis_per_lesion",
        severity=rules.one_diagnosis_per_lesion.severity,
        title="no lesion has two diagnoses",
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": "lesion_diagnoses", "max_value": 1},
        fix="find out which diagnosis is right and correct the source's table",
        bound="at most 1",
        reason=reason,
        pictures=True,
    )


def _same_file(rules: LabelRules) -> Check:
    return Check(
        name="labels.same_file",
        severity=rules.same_file.severity,
        title="an image id that was split before has the file of then",
        expectation="ExpectColumnValuesToBeNull",
        arguments={"column": "part_of_other_file"},
        fix=SAVED_ANEW,
        reason=lambda row, _: (
            f"another file had this id and was in {row['part_of_other_file']}; the split deals "
            "this one as a new image"
        ),
    )


def _age(rule: Within) -> Check:
    return Check(
        name="labels.age_years",
        severity=rule.severity,
        title=f"the age lies between {rule.min:g} and {rule.max:g} years",
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": "age_years", "min_value": rule.min, "max_value": rule.max},
        fix=f"{_SOURCE_FIX} (a year of birth, months instead of years, a shifted column?)",
        bound=f"{rule.min:g} to {rule.max:g}",
        reason=lambda row, _: f"age {row['age_years']:g} is impossible",
    )


def _placeholders(rule: Numbers) -> Check:
    values = ", ".join(f"{value:g}" for value in rule.values)
    return Check(
        name="labels.age_placeholders",
        severity=rule.severity,
        title=f"no age is a placeholder for an unknown one ({values})",
        expectation="ExpectColumnValuesToNotBeInSet",
        arguments={"column": "age_years", "value_set": list(rule.values)},
        fix="leave unknown ages empty; metrics per age group count them as given, but for 0",
        bound=f"not {values}",
        reason=lambda row, _: f"age {row['age_years']:g} stands for an unknown one",
    )


def _vocabulary(column: str, rule: Words) -> Check:
    return Check(
        name=f"labels.{column}",
        severity=rule.severity,
        title=f"the {column} is a known word",
        expectation="ExpectColumnValuesToBeInSet",
        arguments={"column": column, "value_set": list(rule.values)},
        fix=f"{_SOURCE_FIX}, or add the word to validation.labels.{column}.values",
        bound=", ".join(rule.values) if len(rule.values) < 6 else f"{len(rule.values)} words",
        reason=lambda row, _: f"{column} {row[column]} is no known word",
    )


def _missing(rules: LabelRules) -> list[Check]:
    shares: dict[str, float | None] = rules.missing.model_dump(exclude={"severity"})
    return [
        Check(
            name=f"labels.missing.{column}",
            severity=rules.missing.severity,
            title=f"hardly any image lacks {column}",
            expectation="ExpectColumnValuesToNotBeNull",
            arguments={"column": column, "mostly": 1 - share},
            fix=f"see whether the source's column for {column} was renamed; a source that has "
            f"none: set validation.labels.missing.{column} to null",
            bound=f"at most {share:.0%} missing",
        )
        for column, share in shares.items()
        if share is not None
    ]


def classes_suite(
    labels: pd.DataFrame,
    pairs: pd.DataFrame,
    left_out: Mapping[str, str],
    classes: Sequence[str],
    split: SplitParams,
    rules: LabelRules,
) -> Suite:
    """Build the check that each class has enough groups among the images that are kept.

    Groups are the split's: patient, lesion and near-duplicates, joined transitively (through
    images that are left out, too).
    """
    kept = ~labels["image_id"].isin(list(left_out))
    groups = pd.DataFrame({"diagnosis": labels["diagnosis"], "group": connect(labels, pairs)})[kept]
    by_class = groups.groupby(groups["diagnosis"].astype(object))["group"]
    num_images, num_groups = by_class.size().to_dict(), by_class.nunique().to_dict()
    frame = pd.DataFrame(
        {
            "diagnosis": list(classes),
            "num_images": [int(num_images.get(name, 0)) for name in classes],
            "num_groups": [int(num_groups.get(name, 0)) for name in classes],
        }
    )
    needed = rules.enough_groups.min or needed_groups(split)
    check = Check(
        name="labels.enough_groups",
        severity=rules.enough_groups.severity,
        title=f"every class has at least {needed} groups (lesions, patients, near-duplicates)",
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": "num_groups", "min_value": needed},
        fix="add images of more lesions, or take the class out of diagnoses.classes",
        bound=f"at least {needed}",
    )
    return Suite(
        "classes",
        frame,
        ("diagnosis",),
        [check],
        images=(),
        rows="classes",
        row_name="{diagnosis} ({num_groups} groups, {num_images} images)",
    )


def needed_groups(split: SplitParams) -> int:
    """Return the least number of groups of a class with which no part and no fold stays empty.

    The split deals at least one group to each part from as many groups as parts on, and never
    more than one above its share to test.
    """
    shares = split.shares()
    count = len(shares)
    while count - math.ceil(count * shares.get("test", 0.0)) < split.folds:
        count += 1
    return count
