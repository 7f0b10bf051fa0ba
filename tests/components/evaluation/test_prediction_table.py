"""What a prediction table must be: every refusal names the row and the image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from components.errors import TableError
from components.evaluation.prediction_table import bootstrap_groups, parse_predictions

MakeTable = Callable[..., pd.DataFrame]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.nan, "missing or not finite"),
        (np.inf, "missing or not finite"),
        (-0.1, "negative"),
        (0.9, "do not sum to 1"),
    ],
)
def test_a_probability_that_cannot_be_one_is_refused_by_row(
    make_table: MakeTable, value: float, problem: str
) -> None:
    frame = make_table(num_images=40)
    frame.loc[7, "p_mel"] = value
    with pytest.raises(TableError, match=problem) as caught:
        parse_predictions(frame)
    assert "row 8 (image_id image-00007)" in caught.value.what


def test_sums_are_taken_as_they_are_within_the_tolerance(make_table: MakeTable) -> None:
    frame = make_table(num_images=40)
    columns = [name for name in frame.columns if name.startswith("p_")]
    frame[columns] = frame[columns].round(4)
    table = parse_predictions(frame)
    assert (table.probabilities == frame[columns].to_numpy()).all()
    frame[columns] *= 1.002
    with pytest.raises(TableError, match="do not sum to 1"):
        parse_predictions(frame)


def test_a_diagnosis_without_a_probability_is_refused_by_name(make_table: MakeTable) -> None:
    frame = make_table(num_images=40)
    frame.loc[3, "diagnosis"] = "scc"
    with pytest.raises(TableError, match=r"row 4 \(image_id image-00003\): diagnosis 'scc'"):
        parse_predictions(frame)
    frame.loc[3, "diagnosis"] = None
    with pytest.raises(TableError, match=r"row 4 .*diagnosis None"):
        parse_predictions(frame)


def test_an_image_that_is_there_twice_is_refused(make_table: MakeTable) -> None:
    frame = make_table(num_images=40)
    frame.loc[9, "image_id"] = "image-00002"
    with pytest.raises(TableError, match="row 10: image_id image-00002 is there a second time"):
        parse_predictions(frame)
    frame.loc[9, "image_id"] = None
    with pytest.raises(TableError, match="row 10: no image_id"):
        parse_predictions(frame)


def test_tables_without_rows_classes_or_numbers_are_refused(make_table: MakeTable) -> None:
    frame = make_table(num_images=40)
    with pytest.raises(TableError, match="no row"):
        parse_predictions(frame.iloc[:0])
    with pytest.raises(TableError, match="probability columns"):
        parse_predictions(frame[["image_id", "diagnosis"]])
    with pytest.raises(TableError, match="p_scc"):
        parse_predictions(frame, classes=("mel", "scc"))
    with pytest.raises(TableError, match="no number"):
        parse_predictions(frame.assign(p_mel="high"))


def test_classes_are_those_of_the_columns_in_their_order(make_table: MakeTable) -> None:
    frame = make_table(num_images=40)
    columns = ["p_vasc", "p_mel", "p_akiec", "p_bcc", "p_bkl", "p_df", "p_nv"]
    table = parse_predictions(frame[["image_id", "diagnosis", *columns]])
    assert table.classes == ("vasc", "mel", "akiec", "bcc", "bkl", "df", "nv")
    assert table.malignant == ("mel", "akiec", "bcc")


def test_diagnoses_that_are_numbers_match_the_header_of_a_csv() -> None:
    frame = pd.DataFrame(
        {"image_id": [1, 2], "diagnosis": [0, 1], "p_0": [0.9, 0.2], "p_1": [0.1, 0.8]}
    )
    assert parse_predictions(frame).truth.tolist() == [0, 1]


def test_groups_are_the_coarsest_that_the_table_knows() -> None:
    frame = pd.DataFrame(
        {
            "image_id": list("abcde"),
            "patient_id": ["p", None, "p", None, None],
            "lesion_id": ["l1", "l1", "l2", None, None],
        }
    )
    groups, unit = bootstrap_groups(frame)
    assert unit == "patient_id, lesion_id"
    assert len({groups[0], groups[1], groups[2]}) == 1 and len(set(groups)) == 3
    assert bootstrap_groups(frame[["image_id"]])[1] == "image_id"
    unknown = frame.assign(patient_id=None, lesion_id=None)
    assert bootstrap_groups(unknown)[1] == "image_id"


def test_a_group_of_the_table_is_widened_by_patients_and_lesions() -> None:
    frame = pd.DataFrame(
        {
            "image_id": list("abcdefg"),
            "group_id": ["x", "y", "z", "z", None, None, None],
            "patient_id": ["p", None, "p", None, None, None, None],
            "lesion_id": ["l1", "l1", "l2", None, "l3", "l3", None],
        }
    )
    groups, unit = bootstrap_groups(frame)
    assert unit == "group_id, patient_id, lesion_id"
    # a-b by the lesion, a-c by the patient, c-d by the group; e-f by the lesion; g stands alone.
    assert groups.tolist() == [0, 0, 0, 0, 1, 1, 2]
    alone, unit = bootstrap_groups(frame[["image_id", "group_id"]])
    assert unit == "group_id" and alone.tolist() == [0, 1, 2, 2, 3, 4, 5]
