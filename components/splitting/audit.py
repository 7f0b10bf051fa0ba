"""Leak audit of anybody's split table: does anything in validation or test share a lesion,
a patient or its bytes with training?

Works on what others publish: CSV or Parquet, `val` for validation, a labels table in HAM10000's
own form (`dx`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from components.errors import TableError
from components.splitting.groups import ID_KINDS, clean_ids, connect
from components.tables import PARTS, require_columns

_SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_SHOWN = 10
_IDS = ("patient_id", "lesion_id")


def audit(splits: pd.DataFrame, labels: pd.DataFrame) -> dict[str, Any]:
    """Look for groups that a split divides.

    Parameters
    ----------
    splits
        `image_id` and `split` (train, val or validation, test; no value: left out). An image
        that is listed in two parts is a leak too.
    labels
        `image_id`, `lesion_id`, and of `patient_id`, `sha256`, `diagnosis` or `dx` what there
        is. Images without a lesion or a patient are groups of their own, but for their bytes.

    Returns
    -------
    dict, ready for JSON
        `leaking_lesions`: groups in more than one part, each named by its patient, else its
        lesion, else its image; `leaking_images`: part -> its images whose group is also in
        train; `leaking_share`: the same as a share of the part's images; `conflicting_labels`:
        lesion (or image) -> its several diagnoses; `unknown_images`: in the split but not in the
        labels (they cannot be audited); `images_without_ids`: neither lesion nor patient is known
        (at most their bytes can be compared); `missing_images`: labelled, but not in the split;
        `repeated_images`: listed more than once in the split; `num_images`, `num_groups`,
        `images_per_part`, `leaks` (bool).

    Raises
    ------
    TableError
        A column is missing, a value of `split` is unknown, the tables share no image, or the
        labels say of none what it could share with another one.
    """
    require_columns(splits, ("image_id", "split"), where="the split table")
    require_columns(labels, ("image_id", "lesion_id"), where="the labels table")
    parts = _read_parts(splits)
    facts = _read_facts(labels)
    rows = parts.merge(facts.drop_duplicates("image_id"), on="image_id", how="left")
    if rows["group_id"].isna().all():
        raise TableError(
            f"no image of the split table (such as {parts['image_id'].iloc[0]!r}) is in the "
            f"labels table (such as {facts['image_id'].iloc[0]!r})"
            if len(parts) and len(facts)
            else "nothing to audit: the split table or the labels table is empty",
            where="column image_id of both tables",
            fix="give both tables the same ids (no file endings such as .jpg)",
        )
    without_ids = rows.loc[rows["has_ids"].eq(False), "image_id"]
    rows["group_id"] = rows["group_id"].fillna("2:" + rows["image_id"])
    places = rows[["group_id", "part"]].drop_duplicates()
    divided = places.loc[places["group_id"].duplicated(), "group_id"].unique()
    if not len(divided) and not rows["is_comparable"].eq(True).any():
        raise TableError(
            "no image of the split table has a lesion, a patient or a sha256, so there is nothing "
            "to audit by",
            where="columns lesion_id, patient_id and sha256 of the labels table",
            fix="give the labels table the lesion or patient ids of the data set",
        )
    trained = set(places.loc[places["part"] == "train", "group_id"])
    leaking = {part: sorted(set(_images(rows, part, trained))) for part in PARTS if part != "train"}
    per_part = {part: int(rows.loc[rows["part"] == part, "image_id"].nunique()) for part in PARTS}
    repeated = parts.loc[parts["image_id"].duplicated(), "image_id"]
    return {
        "leaks": bool(len(divided)),
        "leaking_lesions": sorted(name.split(":", 1)[1] for name in divided),
        "leaking_images": leaking,
        "leaking_share": {
            part: len(images) / per_part[part] if per_part[part] else 0.0
            for part, images in leaking.items()
        },
        "conflicting_labels": _conflicts(facts),
        "unknown_images": sorted(set(parts["image_id"]) - set(facts["image_id"])),
        "images_without_ids": sorted(set(without_ids)),
        "missing_images": sorted(set(facts["image_id"]) - set(clean_ids(splits["image_id"]))),
        "repeated_images": sorted(set(repeated)),
        "num_images": int(rows["image_id"].nunique()),
        "num_groups": int(places["group_id"].nunique()),
        "images_per_part": per_part,
    }


def _read_parts(splits: pd.DataFrame) -> pd.DataFrame:
    """Return `image_id` and `part` of the rows that are in a part."""
    spelled = clean_ids(splits["split"])
    part = spelled.map(lambda value: None if value is None else _SPELLINGS.get(value.lower(), ""))
    unknown = spelled[part == ""]
    if len(unknown):
        raise TableError(
            f"unknown part {unknown.iloc[0]!r}",
            where=f"the split table, column split, row {unknown.index[0] + 1}",
            fix=f"use one of {', '.join(_SPELLINGS)}, or nothing for an image that is left out",
        )
    image_id = clean_ids(splits["image_id"])
    nameless = image_id.index[image_id.isna()]
    if len(nameless):
        raise TableError(
            "a row without image_id",
            where=f"the split table, row {nameless[0] + 1}",
            fix="give every row an image_id",
        )
    return pd.DataFrame({"image_id": image_id, "part": part})[part.notna()]


def _read_facts(labels: pd.DataFrame) -> pd.DataFrame:
    """Return `image_id`, `lesion_id`, `diagnosis` and the group of every labelled image."""
    rows = labels[clean_ids(labels["image_id"]).notna()].reset_index(drop=True)
    ids = [name for name in ("image_id", *_IDS, "sha256") if name in rows.columns]
    rows = rows.assign(**{name: clean_ids(rows[name]) for name in ids})
    facts = rows[["image_id", "lesion_id"]].copy()
    diagnosis = next((name for name in ("diagnosis", "dx") if name in rows.columns), None)
    facts["diagnosis"] = clean_ids(rows[diagnosis]) if diagnosis else None
    named = pd.DataFrame({"component": connect(rows), "key": _best_keys(rows)})
    first = named.sort_values("key").drop_duplicates("component").set_index("component")["key"]
    facts["group_id"] = named["component"].map(first)
    facts["has_ids"] = rows[[name for name in ids if name in _IDS]].notna().any(axis=1)
    facts["is_comparable"] = rows[ids].drop(columns="image_id").notna().any(axis=1)
    # Of an image that is listed twice, one row may say what the other does not.
    of_image = facts.groupby("image_id")[["has_ids", "is_comparable"]]
    return facts.assign(**of_image.transform("any"))


def _best_keys(rows: pd.DataFrame) -> pd.Series:
    """Return the patient, else the lesion, else the image of each row, sorting in this order."""
    keys = pd.Series(None, index=rows.index, dtype=object)
    for rank, (_, column) in enumerate(ID_KINDS):
        if column in rows.columns:
            keys = keys.where(keys.notna(), f"{rank}:" + clean_ids(rows[column]))
    return keys


def _images(rows: pd.DataFrame, part: str, trained: set[str]) -> pd.Series:
    return rows.loc[(rows["part"] == part) & rows["group_id"].isin(trained), "image_id"]


def _conflicts(facts: pd.DataFrame) -> dict[str, list[str]]:
    """Return the lesions, and the images listed twice, that have several diagnoses."""
    found: dict[str, list[str]] = {}
    for column in ("lesion_id", "image_id"):
        pairs = facts[[column, "diagnosis"]].dropna().drop_duplicates()
        several = pairs[pairs[column].duplicated(keep=False)]
        for name, rows in several.groupby(column):
            found[str(name)] = sorted(rows["diagnosis"])
    return dict(sorted(found.items()))


def audit_text(result: Mapping[str, Any]) -> str:
    """Return the result of `audit` as a few lines for a terminal."""
    lines = [
        f"{result['num_images']} images of {result['num_groups']} lesions or patients: "
        + ", ".join(f"{part} {count}" for part, count in result["images_per_part"].items()),
        _verdict(result),
    ]
    for part, images in result["leaking_images"].items():
        if images:
            share = result["leaking_share"][part]
            lines.append(
                f"{part}: {len(images)} images ({share:.1%}) have a lesion or patient in train: "
                + _some(images)
            )
    notes = {
        "conflicting_labels": "with several diagnoses",
        "repeated_images": "images are listed more than once in the split",
        "unknown_images": "images of the split are not in the labels and were NOT audited",
        "images_without_ids": "images have neither a lesion nor a patient: at most their bytes "
        "were compared",
        "missing_images": "labelled images are not in the split",
    }
    lines += [
        f"{len(result[name])} {text}: {_some(list(result[name]))}"
        for name, text in notes.items()
        if result[name]
    ]
    return "\n".join(lines)


def _verdict(result: Mapping[str, Any]) -> str:
    if result["leaks"]:
        return (
            f"LEAKS: {len(result['leaking_lesions'])} lesions or patients are in more than one "
            f"part: {_some(result['leaking_lesions'])}"
        )
    num_not_audited = len({*result["unknown_images"], *result["images_without_ids"]})
    if num_not_audited:
        num_audited = result["num_images"] - num_not_audited
        return f"no leak among {num_audited} audited images; {num_not_audited} could not be audited"
    return "no leak: every lesion and patient is in one part only"


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
