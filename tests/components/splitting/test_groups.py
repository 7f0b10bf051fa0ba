"""Groups: who may never be divided, and how a group is called."""

from __future__ import annotations

import pandas as pd
import pytest

from components.errors import TableError
from components.splitting.groups import (
    clean_ids,
    connect,
    joined_only_by_pairs,
    known_by_bytes,
    name_groups,
)


def _names(labels: pd.DataFrame, pairs: pd.DataFrame | None = None, **known: int) -> list[str]:
    first_seen = {key.replace("__", ":"): line for key, line in known.items()}
    usable = pd.Series(True, index=labels.index)
    return name_groups(
        labels, connect(labels, pairs), usable=usable, first_seen=first_seen
    ).tolist()


def test_patient_lesion_bytes_and_pairs_join_transitively(labels_of, pairs_of) -> None:
    labels = labels_of(
        {"image_id": "a", "patient_id": "P"},
        {"image_id": "b", "patient_id": "P", "lesion_id": "L"},
        {"image_id": "c", "lesion_id": "L", "sha256": "same"},
        {"image_id": "d", "sha256": "same"},
        {"image_id": "e"},
        {"image_id": "f"},
    )
    component = connect(labels, pairs_of(("d", "e")))
    assert len(set(component[:5])) == 1
    assert component[5] not in component[:5]


def test_files_that_are_left_out_and_show_nothing_join_nothing(labels_of) -> None:
    labels = labels_of(
        {"image_id": "cut off", "sha256": "same"},
        {"image_id": "also cut off", "sha256": "same"},
        {"image_id": "black", "sha256": "dark"},
        {"image_id": "also black", "sha256": "dark"},
        {"image_id": "blurred", "sha256": "soft"},
        {"image_id": "also blurred", "sha256": "soft"},
    )
    quality = pd.DataFrame({"image_id": labels["image_id"]})
    quality["decodes"] = ~labels["sha256"].eq("same")
    quality["contrast"] = [None, None, 0.0, 0.0, 12.0, 12.0]
    known = known_by_bytes(labels, quality, set(labels["image_id"]))
    component = connect(known)
    assert len(set(component[:4])) == 4
    assert component[4] == component[5]


def test_equal_files_that_take_part_are_one_group_whatever_they_show(labels_of) -> None:
    """They are in the ledger by their bytes: two parts for the same bytes would contradict it."""
    labels = labels_of({"image_id": "a", "sha256": "dark"}, {"image_id": "b", "sha256": "dark"})
    quality = pd.DataFrame({"image_id": ["a", "b"], "decodes": True, "contrast": 0.0})
    assert len(set(connect(known_by_bytes(labels, quality, set())))) == 1


def test_missing_ids_join_nothing(labels_of) -> None:
    labels = labels_of(
        {"image_id": "a", "lesion_id": None, "sha256": None},
        {"image_id": "b", "lesion_id": float("nan"), "sha256": None},
        {"image_id": "c", "lesion_id": " ", "sha256": ""},
    )
    assert len(set(connect(labels))) == 3


def test_a_lesion_and_an_image_of_the_same_name_are_different_things(labels_of) -> None:
    labels = labels_of({"image_id": "x", "lesion_id": "y"}, {"image_id": "y"})
    assert _names(labels) == ["lesion:y", "image:y"]


def test_a_group_is_named_by_the_declared_id_of_its_first_image(labels_of, pairs_of) -> None:
    labels = labels_of(
        {"image_id": "b", "lesion_id": "A"},
        {"image_id": "a", "lesion_id": "B", "patient_id": "P"},
    )
    assert _names(labels, pairs_of(("a", "b"))) == ["patient:P", "patient:P"]


def test_a_group_keeps_the_name_that_the_ledger_knows(labels_of, pairs_of) -> None:
    labels = labels_of(
        {"image_id": "a", "lesion_id": "A"},
        {"image_id": "b", "lesion_id": "B"},
        {"image_id": "c", "lesion_id": "C"},
    )
    pairs = pairs_of(("a", "b"), ("b", "c"))
    assert set(_names(labels, pairs, lesion__C=3, lesion__B=7)) == {"lesion:C"}


def test_a_pair_of_an_unknown_image_is_refused_by_name(labels_of, pairs_of) -> None:
    with pytest.raises(TableError, match="such as a and gone"):
        connect(labels_of({"image_id": "a"}), pairs_of(("a", "gone")))


def test_only_pairs_that_declared_ids_do_not_explain_have_joined_something(
    labels_of, pairs_of
) -> None:
    labels = labels_of(
        {"image_id": "a", "lesion_id": "L"},
        {"image_id": "b", "lesion_id": "L"},
        {"image_id": "c", "lesion_id": "M"},
    )
    joined = joined_only_by_pairs(labels, pairs_of(("a", "b"), ("b", "c")))
    assert joined[["image_id_a", "image_id_b"]].values.tolist() == [["b", "c"]]


def test_numbers_that_a_gap_made_floats_are_still_the_same_ids() -> None:
    assert clean_ids(pd.Series([7.0, float("nan"), 8.5])).tolist() == ["7", None, "8.5"]
    assert clean_ids(pd.Series(["7 ", "", None])).tolist() == ["7", None, None]
