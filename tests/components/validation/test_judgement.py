"""Every check is tripped by what it is about, by nothing else, and with its severity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import TableError
from components.validation.judgement import NOTHING_EARLIER
from components.validation.verdict import failure

A, B = "IMG_00", "IMG_01"  # one lesion (L00, bcc)
C = "IMG_02"  # another lesion of the same class (L01, bcc)
OTHER = "IMG_20"  # another class (L10, nv)


@dataclass(frozen=True)
class Case:
    """One thing that is wrong.

    `reason` is part of what is said of the first image that is named.
    """

    check: str
    severity: str
    spoil: Callable[[Any], None]
    offenders: tuple[str, ...]
    reason: str = ""
    also: tuple[str, ...] = ()
    """Other checks that rightly see the same thing."""


def _measure(name: str, value: float) -> Callable[[Any], None]:
    return lambda tables: tables.set("quality", A, **{name: value})


def _all(table: str, column: str, value: Any) -> Callable[[Any], None]:
    return lambda tables: getattr(tables, table).__setitem__(column, value)


def _empty_class(tables: Any) -> None:
    keep = tables.labels["diagnosis"] != "mel"
    tables.labels = tables.labels[keep].reset_index(drop=True)
    tables.quality = tables.quality[keep].reset_index(drop=True)


def _tie_lesions(tables: Any) -> None:
    """Leave two groups of bcc: near-duplicates join three of its four lesions."""
    tables.pair(A, C, "same spot")
    tables.pair(A, "IMG_04", "same spot")


def _conflict(tables: Any) -> None:
    tables.manifest["label_conflicts"] = [
        {
            "image_id": A,
            "diagnosis": "bcc",
            "source": "one",
            "other_image_id": "X_7",
            "other_diagnosis": "nv",
            "other_source": "two",
        }
    ]


def _seen_twice(tables: Any) -> None:
    again = {"same_as": A, "same_as_source": "test", "why": "the same bytes"}
    tables.manifest["seen_twice"] = [
        {"image_id": "X_7", "source": "other", **again},
        {"image_id": A, "source": "test", **again, "why": "the same values in two.csv"},
    ]


def _same_file(first: str, second: str) -> Callable[[Any], None]:
    def spoil(tables: Any) -> None:
        for table in ("labels", "quality"):
            tables.set(table, second, sha256=getattr(tables, table)["sha256"][int(first[-2:])])

    return spoil


EVERYBODY = tuple(f"IMG_{number:02d}" for number in range(24))
CASES = [
    Case(
        "labels.known_diagnoses",
        "error",
        lambda t: t.set("labels", A, diagnosis="wart", lesion_id="L99"),
        (A,),
        "diagnosis wart",
    ),
    Case(
        "labels.known_diagnoses",
        "error",
        lambda t: t.set("labels", A, diagnosis=None, lesion_id="L99"),
        (A,),
        "diagnosis (none)",
    ),
    Case(
        "labels.one_diagnosis_per_lesion",
        "quarantine",
        lambda t: t.set("labels", B, diagnosis="nv"),
        (A, B),
        "lesion L00 has several diagnoses: bcc, nv",
    ),
    Case(
        "labels.age_years",
        "error",
        lambda t: t.set("labels", A, age_years=121.0),
        (A,),
        "age 121 is impossible",
    ),
    Case("labels.age_years", "error", lambda t: t.set("labels", A, age_years=-1.0), (A,)),
    Case(
        "labels.age_placeholders",
        "warning",
        lambda t: t.set("labels", A, age_years=0.0),
        (A,),
        "age 0 stands for an unknown one",
    ),
    Case("labels.sex", "warning", lambda t: t.set("labels", A, sex="F"), (A,), "sex F"),
    Case("labels.site", "warning", lambda t: t.set("labels", A, site="Back"), (A,), "site Back"),
    Case(
        "labels.same_file",
        "warning",
        lambda t: t.split_before(A, "other bytes", "test"),
        (A,),
        "another file had this id and was in test; the split deals this one as a new image",
    ),
    Case("labels.missing.lesion_id", "warning", _all("labels", "lesion_id", None), EVERYBODY),
    Case("labels.missing.age_years", "warning", _all("labels", "age_years", np.nan), EVERYBODY),
    Case("labels.missing.sex", "warning", _all("labels", "sex", None), EVERYBODY),
    Case("labels.missing.site", "warning", _all("labels", "site", None), EVERYBODY),
    Case("labels.enough_groups", "error", _empty_class, ("mel (0 groups, 0 images)",)),
    Case(
        "labels.enough_groups",
        "error",
        _tie_lesions,
        ("bcc (2 groups, 8 images)",),
        also=("between.near_duplicates",),
    ),
    Case("images.present", "quarantine", lambda t: t.absent(A), (A,), "listed but absent"),
    Case(
        "images.decodable",
        "quarantine",
        lambda t: t.undecodable(A, "truncated (12 bytes missing)"),
        (A,),
        "cannot be decoded: truncated (12 bytes missing)",
    ),
    Case(
        "images.listed",
        "warning",
        lambda t: t.manifest.update(present_but_not_listed=["ham/stray.jpg"]),
        ("ham/stray.jpg",),
    ),
    Case(
        "images.listed_once",
        "warning",
        _seen_twice,
        (
            "X_7 of other (the same bytes as IMG_00 of test)",
            "IMG_00 of test (the same values in two.csv as IMG_00 of test)",
        ),
    ),
    Case(
        "images.shorter_side",
        "quarantine",
        lambda t: t.set("quality", A, width=40, height=28, aspect=40 / 28),
        (A,),
        "shorter_side 28 is below 32",
    ),
    Case("images.aspect", "warning", _measure("aspect", 3.0), (A,), "aspect 3 is above 2.5"),
    Case("images.aspect", "warning", _measure("aspect", 0.3), (A,), "aspect 0.3 is below 0.4"),
    Case("images.contrast", "quarantine", _measure("contrast", 0.001), (A,), "below 0.008"),
    Case("images.entropy", "quarantine", _measure("entropy", 0.4), (A,), "entropy 0.4 is below 1"),
    Case("images.brightness", "warning", _measure("brightness", 0.05), (A,), "below 0.15"),
    Case("images.brightness", "warning", _measure("brightness", 0.99), (A,), "above 0.95"),
    Case("images.sharpness", "warning", _measure("sharpness", 1.0), (A,), "below 4"),
    Case("images.colourfulness", "warning", _measure("colourfulness", 0.0), (A,), "below 4"),
    Case("images.vignette_share", "warning", _measure("vignette_share", 0.7), (A,), "above 0.5"),
    Case("images.duplicates", "warning", _same_file(A, B), (A, B), f"the same file as {B}"),
    Case(
        "between.same_picture",
        "quarantine",
        _same_file(A, OTHER),
        (A, OTHER),
        f"bcc here, but the same picture is nv as {OTHER}",
        also=("images.duplicates",),
    ),
    Case(
        "between.same_picture",
        "quarantine",
        lambda t: t.pair(A, OTHER, "same pixels"),
        (A, OTHER),
        f"bcc here, but the same picture is nv as {OTHER}",
        also=("between.near_duplicates",),
    ),
    Case(
        "between.same_spot",
        "quarantine",
        lambda t: t.pair(A, OTHER, "same spot"),
        (f"{A} and {OTHER}",),
        f"bcc here, but the same spot is nv as {OTHER}",
        also=("between.near_duplicates",),
    ),
    Case(
        "between.near_duplicates",
        "warning",
        lambda t: t.pair(A, C, "same spot"),
        (f"{A} and {C}",),
        f"same spot as {C} (L00, L01)",
    ),
    Case(
        "between.label_conflicts",
        "quarantine",
        _conflict,
        (A,),
        "bcc here, but two has it as nv (X_7)",
    ),
]


def test_a_good_snapshot_passes_every_check(tables: Any, judge_tables: Any) -> None:
    judgement = judge_tables(tables)
    assert [outcome.check.name for outcome in judgement.outcomes if not outcome.success] == []
    assert judgement.left_out == {}
    assert failure(judgement.outcomes, {}, 24, 0.0, where="here") is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.check)
def test_a_check_is_tripped_by_what_it_is_about(case: Case, tables: Any, judge_tables: Any) -> None:
    case.spoil(tables)
    judgement = judge_tables(tables)
    failed = {o.check.name: o for o in judgement.outcomes if not o.success}
    assert set(failed) == {case.check, *case.also}
    outcome = failed[case.check]
    assert outcome.check.severity == case.severity
    assert outcome.offenders == case.offenders
    assert case.reason in next(iter(outcome.reasons.values()), "")
    error = failure(judgement.outcomes, judgement.left_out, len(tables.labels), 0.2, where="here")
    assert (error is not None) == (case.severity == "error")
    if error is not None:
        assert case.check in str(error)
        assert case.offenders[0] in str(error)
        assert case.check in error.fix
    assert set(judgement.left_out) == (
        set(outcome.reasons) if case.severity == "quarantine" else set()
    )


@pytest.mark.parametrize("severity", ["error", "quarantine", "warning", "off"])
def test_the_severity_in_the_params_decides(severity: str, tables: Any, judge_tables: Any) -> None:
    tables.set("quality", A, sharpness=1.0)
    judgement = judge_tables(tables, {"images": {"sharpness": {"severity": severity}}})
    outcomes = {outcome.check.name: outcome for outcome in judgement.outcomes}
    error = failure(judgement.outcomes, judgement.left_out, 24, 0.2, where="here")
    assert (error is not None) == (severity == "error")
    assert set(judgement.left_out) == ({A} if severity == "quarantine" else set())
    assert ("images.sharpness" in outcomes) == (severity != "off")


def test_every_severity_can_be_turned_off(tables: Any, judge_tables: Any) -> None:
    _conflict(tables)
    tables.set("labels", A, sex="F")
    tables.split_before(A, "other bytes", "test")
    silent = {"severity": "off"}
    sections = {
        "labels": ["one_diagnosis_per_lesion", "age_years", "age_placeholders", "sex", "site"],
        "images": [
            "listed",
            "listed_once",
            "shorter_side",
            "aspect",
            "contrast",
            "entropy",
            "brightness",
        ],
        "between": ["same_picture", "same_spot", "label_conflicts", "near_duplicates"],
    }
    sections["labels"] += ["same_file", "missing", "enough_groups", "class_balance"]
    sections["images"] += [
        "brightness",
        "sharpness",
        "colourfulness",
        "vignette_share",
        "duplicates",
        "drift",
    ]
    rules = {section: dict.fromkeys(names, silent) for section, names in sections.items()}
    left = {outcome.check.name for outcome in judge_tables(tables, rules).outcomes}
    assert {name for name in left if "." in name} == {
        "labels.known_diagnoses",
        "images.present",
        "images.decodable",
    }


def test_a_bound_in_the_params_is_the_one_that_counts(tables: Any, judge_tables: Any) -> None:
    tables.set("quality", A, sharpness=9.5)
    tables.set("quality", B, sharpness=8.5)
    judgement = judge_tables(tables, {"images": {"sharpness": {"min": 9.0}}})
    failed = {o.check.name: o for o in judgement.outcomes if not o.success}
    assert failed["images.sharpness"].offenders == (B,)


@pytest.mark.parametrize(
    ("spoil", "check", "named"),
    [
        (lambda frame: frame.drop(columns=["sex", "site"]), "columns", "sex, site"),
        (lambda frame: frame.drop(columns="image_id"), "columns", "image_id"),
        (lambda frame: frame.iloc[:0], "rows", "at least one image"),
        (
            lambda frame: frame.assign(image_id=[A, A, *frame["image_id"][2:]]),
            "unique_image_ids",
            A,
        ),
        (lambda frame: frame.assign(image_id=[None, *frame["image_id"][1:]]), "image_id", "None"),
    ],
    ids=["missing columns", "no ids", "empty", "listed twice", "an id missing"],
)
def test_a_labels_table_that_cannot_be_read_stops_the_run_before_all_else(
    spoil: Callable[[Any], Any], check: str, named: str, tables: Any, judge_tables: Any
) -> None:
    tables.labels = spoil(tables.labels)
    judgement = judge_tables(tables)
    error = failure(judgement.outcomes, judgement.left_out, judgement.num_images, 1, where="here")
    assert error is not None
    assert f"{check} failed" in error.what
    assert named in error.what
    assert {outcome.suite for outcome in judgement.outcomes} == {"schema"}


def test_missing_values_are_counted_as_a_share(tables: Any, judge_tables: Any) -> None:
    for image in (A, B):  # 2 of 24 are 8.3 %
        tables.set("labels", image, sex=None)
    failed = [o.check.name for o in judge_tables(tables).outcomes if not o.success]
    assert failed == []
    stricter = judge_tables(tables, {"labels": {"missing": {"sex": 0.08}}})
    assert [o.offenders for o in stricter.outcomes if not o.success] == [(A, B)]


def test_two_empty_files_are_not_the_same_picture(tables: Any, judge_tables: Any) -> None:
    _same_file(A, OTHER)(tables)
    for image in (A, OTHER):
        tables.undecodable(image, "empty file")
    judgement = judge_tables(tables)
    failed = [o.check.name for o in judgement.outcomes if not o.success]
    assert failed == ["images.decodable"]


def test_a_picture_that_three_ids_share_is_left_out_everywhere(
    tables: Any, judge_tables: Any
) -> None:
    _same_file(A, B)(tables)
    tables.pair(B, OTHER, "same pixels")
    assert set(judge_tables(tables).left_out) == {A, B, OTHER}


def test_copies_of_a_picture_share_the_fate_of_its_spot(tables: Any, judge_tables: Any) -> None:
    _same_file(A, B)(tables)
    tables.pair(A, OTHER, "same spot")  # the search looks at one copy of a file
    assert set(judge_tables(tables).left_out) == {A, B, OTHER}


def test_copies_of_a_contested_picture_are_contested(tables: Any, judge_tables: Any) -> None:
    _same_file(A, B)(tables)
    _conflict(tables)
    assert set(judge_tables(tables).left_out) == {A, B}


def test_a_spot_between_copies_is_no_pair_of_an_image_with_itself(
    tables: Any, judge_tables: Any
) -> None:
    tables.pair(A, B, "same pixels")
    tables.pair(A, B, "same spot")
    assert [o.check.name for o in judge_tables(tables).outcomes if not o.success] == []


def test_a_spot_is_not_transitive(tables: Any, judge_tables: Any) -> None:
    tables.pair(A, C, "same spot")
    tables.pair(C, OTHER, "same spot")
    assert set(judge_tables(tables).left_out) == {C, OTHER}


def test_all_reasons_of_an_image_are_named(tables: Any, judge_tables: Any) -> None:
    tables.set("quality", A, contrast=0.0, entropy=0.0)
    assert judge_tables(tables).left_out == {A: "contrast 0 is below 0.008; entropy 0 is below 1"}


def test_groups_are_counted_among_the_images_that_are_kept(tables: Any, judge_tables: Any) -> None:
    for image in ("IMG_00", "IMG_01", "IMG_02", "IMG_03"):
        tables.undecodable(image, "empty file")
    failed = {o.check.name: o for o in judge_tables(tables).outcomes if not o.success}
    assert failed["labels.enough_groups"].offenders == ("bcc (2 groups, 4 images)",)


def test_without_an_earlier_snapshot_drift_is_reported_as_not_compared(
    tables: Any, judge_tables: Any
) -> None:
    notes = {outcome.check.name: outcome.note for outcome in judge_tables(tables).outcomes}
    assert notes["labels.class_balance"] == notes["images.drift"] == NOTHING_EARLIER


def test_measures_of_another_snapshot_are_refused(tables: Any, judge_tables: Any) -> None:
    tables.quality.loc[0, "image_id"] = "IMG_99"
    with pytest.raises(TableError, match="dvc repro measure"):
        judge_tables(tables)


def test_pairs_of_another_snapshot_are_refused(tables: Any, judge_tables: Any) -> None:
    tables.pair(A, "IMG_99", "same spot")
    with pytest.raises(TableError, match="IMG_99"):
        judge_tables(tables)


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(spoilt=st.dictionaries(st.sampled_from(EVERYBODY), st.sampled_from(range(4)), max_size=8))
def test_exactly_the_spoilt_images_are_left_out_in_any_order_of_rows(
    spoilt: dict[str, int], make_tables: Any, judge_tables: Any
) -> None:
    tables = make_tables()
    spoils = [
        tables.absent,
        lambda image: tables.undecodable(image, "empty file"),
        lambda image: tables.set("quality", image, contrast=0.0),
        lambda image: tables.set("quality", image, width=20, height=20),
    ]
    for image, kind in spoilt.items():
        spoils[kind](image)
    left_out = judge_tables(tables).left_out
    assert list(left_out) == sorted(spoilt)
    assert all(left_out.values())
    shuffled = tables.labels.sample(frac=1, random_state=len(spoilt))
    tables.labels = shuffled.reset_index(drop=True)
    assert judge_tables(tables).left_out == left_out
