"""Subgroups: who belongs where, what is too small to tell, and the largest gap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from components.evaluation.score import score_table
from components.evaluation.subgroups import band_labels, largest_gap

MakeTable = Callable[..., pd.DataFrame]


def test_ages_fall_into_their_bands_and_unknown_ones_are_said_to_be() -> None:
    ages = [1, 29, 30, 44, 45, 59, 60, 74, 75, 90, None, -5, 0]
    labels = band_labels(pd.DataFrame({"age_years": ages}))["age_years"].tolist()
    expected = ["0-29", "0-29", "30-44", "30-44", "45-59", "45-59", "60-74", "60-74", "75+", "75+"]
    assert labels == [*expected, "unknown", "unknown", "unknown"]


def test_picture_quality_is_divided_into_thirds() -> None:
    frame = pd.DataFrame({"sharpness": [*range(9), None]})
    labels = band_labels(frame)["sharpness"].tolist()
    assert labels == ["low"] * 3 + ["mid"] * 3 + ["high"] * 3 + ["unknown"]


def test_a_column_with_one_value_makes_no_subgroups() -> None:
    frame = pd.DataFrame({"sex": ["female"] * 4, "site": ["back", "face", None, "back"]})
    assert list(band_labels(frame)) == ["site"]


def rng_half(size: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(1).random(size) < 0.5


@pytest.fixture(scope="module")
def frame(make_table: MakeTable) -> pd.DataFrame:
    table = make_table(num_images=500, seed=5)
    rng = np.random.default_rng(0)
    table["sex"] = np.where(rng.random(500) < 0.5, "female", "male")
    table["site"] = np.where(np.arange(500) < 12, "ear", "back")
    table.loc[490:, "sex"] = None
    return table


def test_a_subgroups_numbers_are_those_of_its_images(frame: pd.DataFrame) -> None:
    document = score_table(frame, resamples=200)
    women = score_table(frame[frame["sex"] == "female"], resamples=100)
    entry = document["subgroups"]["sex"][0]
    assert entry["value"] == "female" and entry["num_images"] == women["num_images"]
    assert entry["num_groups"] == women["num_groups"] and not entry["too_small"]
    for name in ("accuracy", "balanced_accuracy", "ece", "log_loss"):
        assert entry[name] == pytest.approx(women[name], abs=1e-9)
        low, high = entry["intervals"][name]
        assert low <= entry[name] <= high
    assert entry["malignant.auc"] == pytest.approx(women["malignant"]["auc"], abs=1e-9)


def test_what_is_too_small_to_tell_has_no_interval(frame: pd.DataFrame) -> None:
    sites = {e["value"]: e for e in score_table(frame, resamples=100)["subgroups"]["site"]}
    assert sites["ear"]["too_small"] and sites["ear"]["intervals"] == {}
    assert sites["ear"]["num_images"] == 12
    assert not sites["back"]["too_small"]


def test_the_unknown_come_last(frame: pd.DataFrame) -> None:
    values = [e["value"] for e in score_table(frame, resamples=100)["subgroups"]["sex"]]
    assert values == ["female", "male", "unknown"]


def test_the_largest_gap_is_between_subgroups_that_can_be_told(frame: pd.DataFrame) -> None:
    worse = frame.copy()
    columns = [name for name in frame.columns if name.startswith("p_")]
    men = worse["sex"] == "male"
    worse.loc[men, columns] = worse.loc[men, columns].to_numpy()[:, ::-1]
    document = score_table(worse, resamples=100)
    gap = largest_gap(document, "accuracy")
    assert gap is not None and gap["column"] == "sex"
    by_value = {e["value"]: e["accuracy"] for e in document["subgroups"]["sex"]}
    assert gap["gap"] == pytest.approx(by_value["female"] - by_value["male"])
    assert gap["lowest"]["value"] == "male" and gap["highest"]["value"] == "female"
    method = frame["diagnosis"].map({"nv": "follow_up"}).fillna("histo")
    mixed = frame.drop(columns=["sex"]).assign(
        diagnosis_method=method,  # nevi alone are followed up: another mix, no unfairness
        skin_type=np.where(frame["diagnosis"] == "df", "I", np.where(rng_half(500), "I", "II")),
    )
    assert largest_gap(score_table(mixed, resamples=100), "balanced_accuracy") is None
    none = score_table(frame.drop(columns=["sex"]), resamples=100)
    assert largest_gap(none, "accuracy") is None  # one of the two sites is too small
