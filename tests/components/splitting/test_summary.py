"""What an image-level split would have leaked, where the answer is known."""

from __future__ import annotations

from math import isnan

import pandas as pd
import pytest

from components.splitting.summary import image_level_leak

NUM = 20


def _tables(**group_of: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return splits and labels: diagnosis -> the group of each of its images.

    Of each diagnosis, 70 % of the images are in train and 15 % in test: those are the shares that
    the estimate takes over.
    """
    rows = [
        (f"{diagnosis}{number:02d}", diagnosis, group, number / len(groups))
        for diagnosis, groups in group_of.items()
        for number, group in enumerate(groups)
    ]
    table = pd.DataFrame(rows, columns=["image_id", "diagnosis", "group_id", "place"])
    table["split"] = pd.cut(
        table["place"], [-1, 0.69, 0.84, 1], labels=["train", "validation", "test"]
    ).astype(object)
    return table[["image_id", "group_id", "split"]], table[["image_id", "diagnosis"]]


def test_groups_of_one_image_leak_nothing_and_one_large_group_leaks_whole() -> None:
    alone = [f"image:{number}" for number in range(NUM)]
    splits, labels = _tables(mel=["lesion:1"] * NUM, nv=alone)
    leak = image_level_leak(splits, labels, seed=0)
    assert leak == {"mel": 1.0, "nv": 0.0, "all": 0.5}


def test_pairs_leak_as_often_as_the_other_one_is_in_train() -> None:
    """With 200 images: 140 of the 199 others are in train."""
    pairs = [f"lesion:{number // 2}" for number in range(200)]
    splits, labels = _tables(nv=pairs)
    leak = image_level_leak(splits, labels, seed=0, repeats=200)
    assert leak["nv"] == pytest.approx(140 / 199, abs=0.02)
    assert leak["all"] == leak["nv"]


def test_siblings_of_another_diagnosis_count_and_what_is_left_out_does_not() -> None:
    """One picture of each lesion is mel, the other nv; then the latter are left out."""
    lesions = [f"lesion:{number}" for number in range(NUM)]
    splits, labels = _tables(mel=lesions, nv=lesions)
    assert image_level_leak(splits, labels, seed=0)["mel"] > 0.5
    nv = labels["image_id"][labels["diagnosis"] == "nv"]
    splits["split"] = splits["split"].mask(splits["image_id"].isin(nv))
    assert image_level_leak(splits, labels, seed=0) == {"mel": 0.0, "all": 0.0}


def test_a_diagnosis_of_which_no_image_would_be_tested_has_no_share() -> None:
    splits, labels = _tables(mel=["lesion:1"], nv=["lesion:2"] * NUM)
    leak = image_level_leak(splits, labels, seed=0)
    assert isnan(leak["mel"])
    assert leak["nv"] == leak["all"] == 1.0
