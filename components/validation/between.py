"""Checks on pictures that show the same: two labels for one picture cannot both be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from components.errors import TableError
from components.tables import PAIR_COLUMNS, require_columns
from components.validation.checks import Check, Row, Suite
from components.validation.config import BetweenRules

SAME_PICTURE = ("same bytes", "same pixels")
SAME_SPOT = "same spot"
_FIX = "find out which diagnosis is right and correct the source's table"


def pictures_suite(frame: pd.DataFrame, pairs: pd.DataFrame, rules: BetweenRules) -> Suite:
    """Build the check that one picture has one diagnosis, under however many image ids.

    Images are one picture when their bytes are the same or `pairs` says that their bytes or
    pixels are, transitively.

    Parameters
    ----------
    frame
        What `images.images_table` returned.
    pairs
        Near-duplicates (`PAIR_COLUMNS`).
    rules
        Severities.

    Raises
    ------
    TableError
        A pair names an image that the labels have not.
    """
    _require_known(frame, pairs)
    table = frame[["image_id", "diagnosis"]].copy()
    table["picture"] = _pictures(frame, pairs)
    by_picture = table.groupby("picture")["diagnosis"]
    table["picture_diagnoses"] = by_picture.transform("nunique")
    members = table.groupby("picture")

    def reason(row: Row, _: str) -> str:
        group = members.get_group(row["picture"])
        other = group[group["diagnosis"] != row["diagnosis"]].iloc[0]
        return (
            f"{row['diagnosis']} here, but the same picture is {other['diagnosis']} as "
            f"{other['image_id']}"
        )

    check = Check(
        name="between.same_picture",
        severity=rules.same_picture.severity,
        title="the same picture does not have two diagnoses",
        expectation="ExpectColumnValuesToBeBetween",
        arguments={"column": "picture_diagnoses", "max_value": 1},
        fix=_FIX,
        bound="at most 1",
        reason=reason,
        pictures=True,
    )
    return Suite("pictures", table, ("image_id",), [check])


def _require_known(frame: pd.DataFrame, pairs: pd.DataFrame) -> None:
    require_columns(pairs, PAIR_COLUMNS, where="data/pairs.parquet")
    unknown = sorted({*pairs["image_id_a"], *pairs["image_id_b"]} - set(frame["image_id"]))
    if unknown:
        raise TableError(
            f"pairs name images that are not listed: {', '.join(unknown[:5])}",
            where="data/pairs.parquet",
            fix="search this snapshot for near-duplicates: run `dvc repro pairs`",
        )


def _pictures(frame: pd.DataFrame, pairs: pd.DataFrame) -> pd.Series:
    """Return the number of the picture that each image shows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    position = pd.Series(range(len(frame)), index=frame["image_id"])
    same = pairs[pairs["evidence"].isin(SAME_PICTURE)]
    bytes_of, kinds = pd.factorize(frame["sha256"].where(frame["decodes"].astype(bool), None))
    is_picture = bytes_of >= 0
    first = [*position[same["image_id_a"]], *position[is_picture]]
    second = [*position[same["image_id_b"]], *(bytes_of[is_picture] + len(frame))]
    size = len(frame) + len(kinds)
    graph = coo_array(([True] * len(first), (first, second)), shape=(size, size))
    number = connected_components(graph, directed=False)[1][: len(frame)]
    return pd.Series(number, index=frame.index)


def pairs_suite(frame: pd.DataFrame, pairs: pd.DataFrame, rules: BetweenRules) -> Suite:
    """Build the checks on pairs of pictures.

    Parameters
    ----------
    frame
        What `images.images_table` returned.
    pairs
        Near-duplicates (`PAIR_COLUMNS`).
    rules
        Severities.
    """
    key = ("image_id_a", "image_id_b")
    checks = [
        Check(
            name="between.same_spot",
            severity=rules.same_spot.severity,
            title="one spot does not have two diagnoses",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "same_diagnosis", "value_set": [True]},
            fix=_FIX,
            reason=_two_diagnoses,
            pictures=True,
        ),
        Check(
            name="between.near_duplicates",
            severity=rules.near_duplicates.severity,
            title="pictures of one spot have one lesion id",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": "same_lesion", "value_set": [True]},
            fix="nothing has to be done, they are one group of the split; one lesion id for both "
            "says so in the data",
            reason=_other_lesion,
            pictures=True,
        ),
    ]
    table = _pairs_table(frame, pairs)
    return Suite(
        "pairs",
        table,
        key,
        checks,
        images=key,
        rows="pairs",
        row_name="{image_id_a} and {image_id_b}",
    )


def _pairs_table(frame: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair: both diagnoses, and whether diagnosis and lesion agree.

    `same_diagnosis` is None where the evidence is not "same spot" (`pictures_suite` looks at
    those).
    """
    known = frame.set_index("image_id")
    table = _with_copies(pairs[list(PAIR_COLUMNS)].astype(object), _pictures(frame, pairs), frame)
    for side in ("a", "b"):
        for name in ("diagnosis", "lesion_id"):
            table[f"{name}_{side}"] = known.loc[table[f"image_id_{side}"], name].to_numpy()
    agree = (table["diagnosis_a"] == table["diagnosis_b"]).astype(object)
    table["same_diagnosis"] = agree.where(table["evidence"] == SAME_SPOT, None)
    table["same_lesion"] = table["lesion_id_a"] == table["lesion_id_b"]
    return table


def _copies(frame: pd.DataFrame, picture: pd.Series) -> dict[str, list[str]]:
    """Return image id -> the ids under which the same picture is there, its own included."""
    members = frame["image_id"].groupby(picture).agg(list)
    return dict(zip(frame["image_id"], picture.map(members), strict=True))


def _with_copies(pairs: pd.DataFrame, picture: pd.Series, frame: pd.DataFrame) -> pd.DataFrame:
    """Return `pairs` with each "same spot" between all copies of the two pictures.

    The search looks at one copy of each picture only.
    """
    copies = _copies(frame, picture)
    rows = []
    for row in pairs.to_dict("records"):
        sides = [[row["image_id_a"]], [row["image_id_b"]]]
        if row["evidence"] == SAME_SPOT:
            sides = [copies[side[0]] for side in sides]
        for first, second in product(*sides):
            low, high = sorted((first, second))
            if low != high:
                rows.append(row | {"image_id_a": low, "image_id_b": high})
    table = pd.DataFrame(rows, columns=list(PAIR_COLUMNS)).astype(object)
    return table.drop_duplicates(["image_id_a", "image_id_b", "evidence"], ignore_index=True)


def _sides(row: Row, image: str) -> tuple[str, str]:
    """Return the suffixes of `image` and of the other image of a pair."""
    return ("a", "b") if row["image_id_a"] == image else ("b", "a")


def _two_diagnoses(row: Row, image: str) -> str:
    own, other = _sides(row, image)
    return (
        f"{row[f'diagnosis_{own}']} here, but the same spot is {row[f'diagnosis_{other}']} as "
        f"{row[f'image_id_{other}']}"
    )


def _other_lesion(row: Row, image: str) -> str:
    own, other = _sides(row, image)
    lesions = [row[f"lesion_id_{side}"] or "no lesion" for side in (own, other)]
    return f"{row['evidence']} as {row[f'image_id_{other}']} ({lesions[0]}, {lesions[1]})"


def conflicts_suite(
    frame: pd.DataFrame,
    pairs: pd.DataFrame,
    conflicts: Sequence[Mapping[str, Any]],
    rules: BetweenRules,
) -> Suite:
    """Build the check that no source names another diagnosis for a picture that is taken.

    Parameters
    ----------
    frame
        What `images.images_table` returned.
    pairs
        Near-duplicates (`PAIR_COLUMNS`): copies of a contested picture are contested, too.
    conflicts
        The manifest's `label_conflicts`: `image_id` and `diagnosis` of the picture that was taken,
        `other_image_id`, `other_diagnosis` and `other_source` of the one that was not (of one that
        the recipe leaves out, the diagnosis is in the source's own words).
    rules
        Severities.
    """
    copies = _copies(frame, _pictures(frame, pairs))
    found: dict[str, list[str]] = {}
    for entry in conflicts:
        for image in copies[entry["image_id"]]:
            found.setdefault(image, []).append(_conflict(entry))
    texts = ["; ".join(found.get(image, [])) or None for image in frame["image_id"]]
    check = Check(
        name="between.label_conflicts",
        severity=rules.label_conflicts.severity,
        title="no source has another diagnosis for a picture that is taken",
        expectation="ExpectColumnValuesToBeNull",
        arguments={"column": "conflict"},
        fix=_FIX,
        reason=lambda row, _: str(row["conflict"]),
        pictures=True,
    )
    table = pd.DataFrame({"image_id": frame["image_id"], "conflict": texts}).astype(object)
    return Suite("conflicts", table, ("image_id",), [check])


def _conflict(entry: Mapping[str, Any]) -> str:
    return (
        f"{entry['diagnosis']} here, but {entry['other_source']} has it as "
        f"{entry['other_diagnosis']} ({entry['other_image_id']})"
    )
