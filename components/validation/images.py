"""Checks on the measured images: thresholds on what `measure` wrote, nothing is decoded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from components.errors import TableError
from components.tables import require_columns
from components.validation.checks import Check, Row, Suite, text_column
from components.validation.config import AtLeast, AtMost, ImageRules, Within

QUALITY_COLUMNS = (
    "image_id",
    "file_name",
    "sha256",
    "decodes",
    "problem",
    "width",
    "height",
    "aspect",
    "brightness",
    "contrast",
    "sharpness",
    "entropy",
    "colourfulness",
    "vignette_share",
)
STATISTICS = (
    "brightness",
    "contrast",
    "sharpness",
    "entropy",
    "colourfulness",
    "vignette_share",
    "shorter_side",
    "aspect",
)
"""Numeric columns of the images table that have a threshold and are watched for drift."""

_TAKEN = "taken"
_LOOK = "look at the contact sheet; a good picture: move the bound of"


def images_table(labels: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """Join labels and measures, and add what the checks look at.

    Returns
    -------
    DataFrame
        One row per image, in the order of `labels`: `image_id, diagnosis, lesion_id`, the
        columns of `QUALITY_COLUMNS`, `shorter_side`, `present` (bool), `decodable` (True, False,
        or None for an absent file), `same_bytes` (number of images with these bytes; null where
        the file is no picture: two empty files are not the same one).

    Raises
    ------
    TableError
        The tables are of different snapshots, or a measure is missing.
    """
    require_columns(quality, QUALITY_COLUMNS, where="data/quality.parquet")
    if set(labels["image_id"]) != set(quality["image_id"]) or len(labels) != len(quality):
        raise TableError(
            f"labels list {len(labels)} images and {len(quality)} were measured, or others",
            where="data/raw/labels.parquet and data/quality.parquet",
            fix="measure this snapshot: run `dvc repro measure`",
        )
    known = labels[["image_id", "diagnosis", "lesion_id"]].astype(object)
    frame = known.merge(quality[list(QUALITY_COLUMNS)], on="image_id", how="left")
    for name in ("diagnosis", "lesion_id", "file_name", "sha256", "problem"):
        frame[name] = text_column(frame[name])
    frame["present"] = frame["file_name"].notna()
    decodes = frame["decodes"].astype(bool)
    frame["decodable"] = decodes.astype(object).where(frame["present"], None)
    sides = frame[["width", "height"]].astype(float)
    frame["shorter_side"] = sides.min(axis=1)
    for name in STATISTICS:
        frame[name] = frame[name].astype(float)
    pictures = frame["sha256"].where(decodes, None)
    frame["same_bytes"] = frame.groupby(pictures)["image_id"].transform("size").astype(float)
    return frame


def images_suite(frame: pd.DataFrame, rules: ImageRules) -> Suite:
    """Build the checks on single images.

    Parameters
    ----------
    frame
        What `images_table` returned.
    rules
        Severities and thresholds.
    """
    checks = [
        Check(
            name="images.present",
            severity=rules.present.severity,
            title="every listed image is there",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "present", "value_set": [True]},
            fix="put the missing files into the source, or take their rows out of its table",
            reason=lambda _row, _image: "listed but absent",
        ),
        Check(
            name="images.decodable",
            severity=rules.decodable.severity,
            title="every file is a whole image",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "decodable", "value_set": [True]},
            fix="copy the files anew from where they came from",
            reason=lambda row, _: f"cannot be decoded: {row['problem']}",
            pictures=True,
        ),
        _at_least("shorter_side", rules.shorter_side, "the shorter side has enough pixels"),
        _within("aspect", rules.aspect, "width / height is usual"),
        _at_least("contrast", rules.contrast, "the image is not blank"),
        _at_least("entropy", rules.entropy, "the image is more than writing on a blank page"),
        _within("brightness", rules.brightness, "the image is neither too dark nor too bright"),
        _at_least("sharpness", rules.sharpness, "the image is not blurred"),
        _at_least("colourfulness", rules.colourfulness, "the image is not grey"),
        _at_most("vignette_share", rules.vignette_share, "the dark rim leaves most of the image"),
        _duplicates(frame, rules),
    ]
    return Suite("images", frame, ("image_id",), checks)


def _within(column: str, rule: Within, title: str) -> Check:
    return _threshold(column, rule.severity, title, rule.min, rule.max)


def _at_least(column: str, rule: AtLeast, title: str) -> Check:
    return _threshold(column, rule.severity, title, rule.min, None)


def _at_most(column: str, rule: AtMost, title: str) -> Check:
    return _threshold(column, rule.severity, title, None, rule.max)


def _threshold(
    column: str, severity: str, title: str, low: float | None, high: float | None
) -> Check:
    bounds = {"min_value": low, "max_value": high}

    def reason(row: Row, _: str) -> str:
        value = row[column]
        if low is not None and value < low:
            return f"{column} {value:.3g} is below {low:g}"
        return f"{column} {value:.3g} is above {high:g}"

    if low is not None and high is not None:
        bound = f"{low:g} to {high:g}"
    else:
        bound = f"at least {low:g}" if low is not None else f"at most {high:g}"
    return Check(
        name=f"images.{column}",
        severity=severity,  # type: ignore[arg-type]  # the rules' severities are Severity
        title=title,
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": column} | {k: v for k, v in bounds.items() if v is not None},
        fix=f"{_LOOK} validation.images.{column}",
        bound=bound,
        reason=reason,
        pictures=True,
    )


def _duplicates(frame: pd.DataFrame, rules: ImageRules) -> Check:
    first_of = frame.groupby("sha256")["image_id"].agg(list).to_dict()

    def reason(row: Row, image: str) -> str:
        others = [other for other in first_of[row["sha256"]] if other != image]
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        return f"the same file as {others[0]}{more}"

    return Check(
        name="images.duplicates",
        severity=rules.duplicates.severity,
        title="no file is there twice under two image ids",
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": "same_bytes", "max_value": 1},
        fix="list each picture once; the split keeps copies in one part",
        bound="at most 1",
        reason=reason,
        pictures=True,
    )


def files_suite(frame: pd.DataFrame, unlisted: Sequence[str], rules: ImageRules) -> Suite:
    """Build the check that every file of the source is listed.

    Parameters
    ----------
    frame
        What `images_table` returned.
    unlisted
        Files that the sources hold and no table lists (from the manifest).
    rules
        Severities.
    """
    listed = [str(name) for name in frame.loc[frame["present"], "file_name"]]
    names = listed + sorted(unlisted)
    flags = np.repeat([True, False], [len(listed), len(unlisted)])
    check = Check(
        name="images.listed",
        severity=rules.listed.severity,
        title="every image file is listed in a table",
        expectation="ExpectColumnValuesToBeInSet",
        arguments={"column": "listed", "value_set": [True]},
        fix="add rows for these files to the source's table, or take them away; they are not used",
    )
    table = pd.DataFrame({"file": pd.Series(names, dtype=object), "listed": flags})
    return Suite("files", table, ("file",), [check], images=(), rows="files", row_name="{file}")


def sources_suite(
    labels: pd.DataFrame, seen_twice: Sequence[Mapping[str, str]], rules: ImageRules
) -> Suite:
    """Build the check that the sources list every image once.

    Parameters
    ----------
    labels
        The labels table.
    seen_twice
        Rows of the sources that were not taken, because the image was there already (from the
        manifest).
    rules
        Severities.
    """
    taken = [(row.image_id, row.source, _TAKEN) for row in labels.itertuples()]
    again = [
        (
            row["image_id"],
            row["source"],
            f"{row['why']} as {row['same_as']} of {row['same_as_source']}",
        )
        for row in seen_twice
    ]
    columns = ("image_id", "source", "status")
    check = Check(
        name="images.listed_once",
        severity=rules.listed_once.severity,
        title="no image is listed twice, in one source or in two",
        expectation="ExpectColumnValuesToBeInSet",
        arguments={"column": "status", "value_set": [_TAKEN]},
        fix="nothing has to be done, it was taken once; take the row out of the source's table",
    )
    return Suite(
        "sources",
        pd.DataFrame([*taken, *again], columns=columns).astype(object),
        columns,
        [check],
        images=(),
        rows="rows",
        row_name="{image_id} of {source} ({status})",
    )
