"""The audit of anybody's split, on made-up tables and on the real HAM10000 metadata."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.errors import TableError
from components.splitting.audit import audit, audit_text
from components.splitting.summary import image_level_leak
from components.tables import read_table, write_table


def _labels(**lesion: str | None) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(lesion), "lesion_id": list(lesion.values())})


def _splits(**part: str | None) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(part), "split": list(part.values())})


def test_a_lesion_in_two_parts_is_named_with_its_images() -> None:
    labels = _labels(a="L", b="L", c="M", d="M", e=None, f=None)
    result = audit(_splits(a="Train", b="val", c="test", d="valid", e="train", f="test"), labels)
    assert result["leaks"]
    assert result["leaking_lesions"] == ["L", "M"]
    assert result["leaking_images"] == {"validation": ["b"], "test": []}
    assert result["leaking_share"] == {"validation": 0.5, "test": 0.0}
    assert json.loads(json.dumps(result)) == result


def test_a_clean_split_leaks_nothing_and_left_out_images_do_not_count() -> None:
    labels = _labels(a="L", b="L", c="M")
    result = audit(_splits(a="train", b=None, c="test"), labels)
    assert not result["leaks"]
    assert result["leaking_lesions"] == []
    assert result["images_per_part"] == {"train": 1, "validation": 0, "test": 1}
    assert "no leak" in audit_text(result)


def test_lesions_of_one_patient_are_one_group_transitively() -> None:
    labels = _labels(a="L", b="M", c="M", d="N")
    labels["patient_id"] = ["P", "P", None, None]
    result = audit(_splits(a="train", b=None, c="test", d="test"), labels)
    assert result["leaking_lesions"] == ["P"]
    assert result["leaking_images"]["test"] == ["c"]


def test_the_same_bytes_under_two_names_leak() -> None:
    labels = _labels(a=None, b=None).assign(sha256=["same", "same"])
    assert audit(_splits(a="train", b="test"), labels)["leaking_images"]["test"] == ["b"]


def test_an_image_listed_in_two_parts_leaks_even_when_it_has_no_label() -> None:
    splits = pd.DataFrame(
        {"image_id": ["a", "a", "b", "x", "x"], "split": ["train", "test", "test", "train", "val"]}
    )
    result = audit(splits, _labels(a=None, b=None))
    assert result["leaking_lesions"] == ["a", "x"]
    assert result["leaking_images"] == {"validation": ["x"], "test": ["a"]}
    assert result["repeated_images"] == ["a", "x"]
    assert result["unknown_images"] == ["x"]


def test_what_could_not_be_audited_is_said() -> None:
    result = audit(_splits(a="train", ghost="test"), _labels(a="L", b="L"))
    assert result["unknown_images"] == ["ghost"]
    assert result["missing_images"] == ["b"]
    said = audit_text(result)
    assert "1 images of the split are not in the labels and were NOT audited: ghost" in said
    assert "no leak among 1 audited images; 1 could not be audited" in said
    assert "every lesion" not in said


def test_images_without_a_lesion_or_a_patient_are_not_called_clean() -> None:
    labels = _labels(a="L", b="M", c=None, d=None).assign(patient_id=[None, None, None, "P"])
    result = audit(_splits(a="train", b="test", c="test", d="test"), labels)
    assert result["images_without_ids"] == ["c"]
    said = audit_text(result)
    assert "no leak among 3 audited images; 1 could not be audited" in said
    assert "1 images have neither a lesion nor a patient: at most their bytes were" in said
    assert "every lesion" not in said


def test_an_image_listed_twice_has_the_lesion_that_one_of_its_rows_names() -> None:
    labels = pd.DataFrame({"image_id": ["a", "a", "b"], "lesion_id": [None, "L", "L"]})
    result = audit(_splits(a="train", b="test"), labels)
    assert result["leaking_lesions"] == ["L"]
    assert result["images_without_ids"] == []


@pytest.mark.parametrize("column", ["diagnosis", "dx"])
def test_a_lesion_with_two_diagnoses_is_named(column: str) -> None:
    labels = _labels(a="L", b="L", c="M").assign(**{column: ["nv", "mel", "nv"]})
    result = audit(_splits(a="train", b="train", c="test"), labels)
    assert result["conflicting_labels"] == {"L": ["mel", "nv"]}
    assert not result["leaks"]


def test_numeric_ids_of_two_files_are_the_same_ids() -> None:
    labels = pd.DataFrame({"image_id": ["1", "2"], "lesion_id": [7.0, 7.0]})
    result = audit(pd.DataFrame({"image_id": [1, 2], "split": ["train", "test"]}), labels)
    assert result["leaking_lesions"] == ["7"]


def _read(folder: Path, name: str, *rows: str) -> pd.DataFrame:
    (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return read_table(folder / name)


def test_lesions_that_differ_in_zeros_only_are_two_and_one_called_na_is_one(tmp_path: Path) -> None:
    labels = _read(
        tmp_path, "labels.csv", "image_id,lesion_id", "001,01", "1,1", "2,NA", "3,NA", "4,", "5,"
    )
    clean = _read(
        tmp_path, "clean.csv", "image_id,split", "001,train", "1,test", "4,train", "5,test"
    )
    assert audit(clean, labels)["leaking_lesions"] == []
    leaking = _read(tmp_path, "leaking.csv", "image_id,split", "2,train", "3,test")
    assert audit(leaking, labels)["leaking_lesions"] == ["NA"]


def test_ids_of_a_parquet_file_are_those_of_a_csv(tmp_path: Path) -> None:
    numbers = pd.DataFrame({"image_id": [1, 2, 3], "lesion_id": [7.0, 7.0, None]})
    write_table(numbers, tmp_path / "labels.parquet")
    splits = _read(tmp_path, "splits.csv", "image_id,split", "1,train", "2,test", "3,test")
    result = audit(splits, read_table(tmp_path / "labels.parquet"))
    assert result["leaking_lesions"] == ["7"]
    assert result["unknown_images"] == []


@pytest.mark.parametrize(
    ("splits", "labels", "message"),
    [
        (_splits(a="holdout"), _labels(a="L"), r"unknown part 'holdout'(?s:.*)row 1"),
        (_splits(**{"a.jpg": "test"}), _labels(a="L"), r"'a.jpg'\) is in the labels(?s:.*)endings"),
        (_splits(), _labels(a="L"), "nothing to audit"),
        (_splits(a="test"), _labels(a="L").drop(columns="lesion_id"), "lesion_id"),
        (_splits(a="train", b="test"), _labels(a=None, b=None), "nothing to audit by"),
    ],
)
def test_tables_that_cannot_be_audited_are_refused(
    splits: pd.DataFrame, labels: pd.DataFrame, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        audit(splits, labels)


@pytest.fixture
def ham10000(real_data: Path) -> pd.DataFrame:
    return pd.read_csv(real_data / "ham10000" / "HAM10000_metadata.csv")


def test_an_image_level_split_of_ham10000_leaks_more_than_a_third(ham10000) -> None:
    """The share that published pipelines leak with 80 % of the images in training."""
    in_train = np.random.default_rng(0).random(len(ham10000)) < 0.8
    splits = ham10000[["image_id"]].assign(split=np.where(in_train, "train", "test"))
    started = time.perf_counter()
    result = audit(splits, ham10000)
    assert time.perf_counter() - started < 2
    assert 0.37 <= result["leaking_share"]["test"] <= 0.40
    melanomas = set(ham10000.loc[ham10000["dx"] == "mel", "image_id"])
    in_test = melanomas & set(splits.loc[splits["split"] == "test", "image_id"])
    leaking = melanomas & set(result["leaking_images"]["test"])
    assert 0.63 <= len(leaking) / len(in_test) <= 0.70


def test_the_estimate_of_an_image_level_leak_agrees_with_the_audit(ham10000) -> None:
    labels = ham10000.rename(columns={"dx": "diagnosis"})
    in_train = np.random.default_rng(1).random(len(labels)) < 0.8
    splits = labels[["image_id"]].assign(
        group_id=labels["lesion_id"], split=np.where(in_train, "train", "test")
    )
    estimate = image_level_leak(splits, labels, seed=0)
    assert 0.37 <= estimate["all"] <= 0.40
    assert 0.63 <= estimate["mel"] <= 0.70
