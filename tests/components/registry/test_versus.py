"""Which images say something about two models, and what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.registry.ancestry import EXPOSURE_COLUMNS
from components.registry.versus import Comparison, clean_test_images, differences, judge

Row = dict[str, str | None]


def _exposure(*rows: Row) -> pd.DataFrame:
    full = [
        {"sha256": f"bytes {row['image_id']}", "group_id": row["image_id"], **row} for row in rows
    ]
    return pd.DataFrame(full, columns=list(EXPOSURE_COLUMNS)).astype(object)


def _clean(*exposures: pd.DataFrame) -> list[str]:
    return sorted(clean_test_images(list(exposures))["image_id"])


OWN = _exposure(
    {"image_id": "t1", "split": "test", "group_id": "a", "lesion_id": "l1"},
    {"image_id": "t2", "split": "test", "group_id": "a", "lesion_id": "l2"},
    {"image_id": "t3", "split": "test", "group_id": "b", "lesion_id": "l3", "patient_id": "p3"},
    {"image_id": "x", "split": "train", "group_id": "c", "lesion_id": "l4"},
    {"image_id": "q", "split": None, "group_id": "b", "lesion_id": "l3"},
)


def test_of_one_model_the_test_images_of_unseen_groups_count() -> None:
    assert _clean(OWN) == ["t1", "t2", "t3"]
    seen = pd.concat([OWN, _exposure({"image_id": "y", "split": "train", "lesion_id": "l3"})])
    assert _clean(seen) == ["t1", "t2"]


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize(
    ("other", "left"),
    [
        # The very same bytes under another name; the whole group goes with them.
        ({"image_id": "z", "sha256": "bytes t1"}, ["t3"]),
        # Another picture of the lesion, of the patient.
        ({"image_id": "z", "lesion_id": "l2"}, ["t3"]),
        ({"image_id": "z", "patient_id": "p3"}, ["t1", "t2"]),
        # A picture that is quarantined here, of the same group.
        ({"image_id": "z", "sha256": "bytes q"}, ["t1", "t2"]),
        # Nothing in common, though the group has the same name in the other snapshot.
        ({"image_id": "z", "group_id": "a"}, ["t1", "t2", "t3"]),
    ],
)
def test_what_the_champion_was_trained_or_selected_on_does_not_count(
    part: str, other: Row, left: list[str]
) -> None:
    assert _clean(OWN, _exposure(other | {"split": part})) == left


def test_a_group_that_only_the_champions_snapshot_knew_counts_too() -> None:
    """There, t3 was found to be a near-duplicate of a picture that it was trained on."""
    champion = _exposure(
        {"image_id": "t3", "split": None, "group_id": "g"},
        {"image_id": "z", "split": "train", "group_id": "g"},
    )
    assert _clean(OWN, champion) == ["t1", "t2"]


def test_what_the_champion_was_tested_on_counts() -> None:
    champion = _exposure({"image_id": "t1", "split": "test", "group_id": "g", "lesion_id": "l1"})
    assert _clean(OWN, champion) == ["t1", "t2", "t3"]


_ROWS = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(0, 5),
        st.sampled_from(["train", "validation", "test", None]),
    ),
    max_size=12,
    unique_by=lambda row: row[0],
)


@settings(max_examples=60, deadline=None)
@given(_ROWS, _ROWS)
def test_no_image_that_counts_shares_bytes_or_a_lesion_with_what_was_seen(
    own: list[Any], other: list[Any]
) -> None:
    tables = [
        _exposure(
            *(
                {
                    "image_id": f"i{n}",
                    "lesion_id": f"l{lesion}",
                    "group_id": f"g{lesion}",
                    "split": s,
                }
                for n, lesion, s in rows
            )
        )
        for rows in (own, other)
    ]
    clean = clean_test_images(tables)
    seen = pd.concat(tables)
    seen = seen[seen["split"].isin(["train", "validation"])]
    assert not set(clean["sha256"]) & set(seen["sha256"])
    assert not set(clean["lesion_id"]) & set(seen["lesion_id"])
    assert set(clean["image_id"]) <= set(tables[0].loc[tables[0]["split"] == "test", "image_id"])


def _comparison(own_right: list[bool], other_right: list[bool]) -> Comparison:
    truth = ["mel", "nv"] * (len(own_right) // 2)
    frame = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(len(truth))],
            "group_id": [f"g{n // 2}" for n in range(len(truth))],
            "diagnosis": truth,
        }
    )

    def probabilities(right: list[bool]) -> Any:
        of_mel = [
            0.9 if (name == "mel") == ok else 0.1 for name, ok in zip(truth, right, strict=True)
        ]
        return np.stack([of_mel, 1 - np.array(of_mel)], axis=1)

    return Comparison(frame, probabilities(own_right), probabilities(other_right))


def test_the_difference_is_that_of_the_balanced_accuracies() -> None:
    own = [True] * 18 + [False, True]  # one melanoma of ten missed
    other = [True] * 17 + [False] * 3  # two nevi and one melanoma missed
    value, resampled = differences(_comparison(own, other), ("mel", "nv"), 300, 0)
    assert value == pytest.approx(0.95 - 0.85)
    assert len(resampled) == 300
    assert abs(resampled.mean() - value) < 0.03


def test_the_same_predictions_differ_by_nothing_in_every_resample() -> None:
    own = [True, False] * 10
    value, resampled = differences(_comparison(own, own), ("mel", "nv"), 100, 0)
    assert value == 0
    assert np.all(resampled == 0)


@pytest.mark.parametrize(
    ("value", "low", "bound", "verdict"),
    [
        (0.0, -0.5, -0.02, "passed"),  # measures as good
        (-0.01, -0.015, -0.02, "passed"),  # a little worse, surely within the margin
        (-0.01, -0.03, -0.02, "undecided"),  # a little worse, perhaps by more than the margin
        (-0.021, -0.03, -0.02, "failed"),
        (-0.5, -0.6, None, "off"),
    ],
)
def test_the_verdict_on_a_difference(
    value: float, low: float, bound: float | None, verdict: str
) -> None:
    assert judge(value, low, bound) == verdict
