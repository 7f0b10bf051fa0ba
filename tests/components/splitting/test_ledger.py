"""The ledger: read strictly, appended to atomically, never rewritten."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from components.errors import SplitError, TableError
from components.splitting.ledger import (
    LEDGER_COLUMNS,
    PART_OF_STRENGTH,
    STRENGTH,
    Ledger,
    append,
    read_ledger,
)

HEADER = ",".join(LEDGER_COLUMNS) + "\n"


def _splits(**part: str | None) -> pd.DataFrame:
    return pd.DataFrame({"image_id": list(part), "split": list(part.values())})


def test_no_file_is_an_empty_ledger(tmp_path: Path, labels_of) -> None:
    ledger = read_ledger(tmp_path / "none.csv")
    assert ledger.first_seen() == {}
    assert ledger.claims(labels_of({"image_id": "a"})).isna().all(axis=None)


def test_appending_keeps_every_byte_and_is_done_once(tmp_path: Path, labels_of) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text(HEADER)
    labels = labels_of({"image_id": "b", "lesion_id": "L"}, {"image_id": "a"}, {"image_id": "dark"})
    splits = _splits(b="train", a="test", dark=None)
    assert append(path, splits, labels) == 2
    before = path.read_bytes()
    assert before.decode() == HEADER + "a,bytes of a,,,test\nb,bytes of b,,L,train\n"
    assert append(path, splits, labels) == 0
    assert path.read_bytes() == before
    assert append(path, _splits(c="train"), labels_of({"image_id": "c"})) == 1
    assert path.read_bytes().startswith(before)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.csv"]


def test_ids_learned_later_are_recorded_too(tmp_path: Path, labels_of) -> None:
    path = tmp_path / "ledger.csv"
    append(path, _splits(a="test"), labels_of({"image_id": "a"}))
    append(path, _splits(a="test"), labels_of({"image_id": "a", "patient_id": "P"}))
    sibling = labels_of({"image_id": "z", "patient_id": "P"})
    assert read_ledger(path).claims(sibling)["strongest"].tolist() == [STRENGTH["test"]]


def test_bytes_come_before_declared_ids_and_names_count_only_without_bytes(labels_of) -> None:
    rows = [
        ("a", "bytes of a", None, "L", "train"),
        ("b", "bytes of b", None, "L", "test"),
        ("absent", None, None, None, "validation"),
    ]
    ledger = Ledger(pd.DataFrame(rows, columns=list(LEDGER_COLUMNS)))
    labels = labels_of(
        {"image_id": "renamed", "sha256": "bytes of a", "lesion_id": "L"},
        {"image_id": "new", "lesion_id": "L"},
        {"image_id": "absent", "sha256": "there now"},
        {"image_id": "a", "sha256": "other bytes"},
        {"image_id": "a", "sha256": None},
    )
    claims = ledger.claims(labels)
    names = claims.apply(lambda column: column.map(PART_OF_STRENGTH)).fillna("new")
    assert names["weakest"].tolist() == ["train", "train", "validation", "new", "train"]
    assert names["strongest"].tolist() == ["train", "test", "validation", "new", "train"]


def test_files_that_changed_under_their_id_are_named_with_the_part_of_then(labels_of) -> None:
    rows = [
        ("a", "old a", None, None, "train"),
        ("with lesion", "old l", None, "L", "test"),
        ("with patient", "old p", "P", None, "test"),
        ("same", "bytes of same", None, None, "test"),
        ("renamed", "bytes of it", None, None, "train"),
        ("absent once", None, None, None, "test"),
        ("absent once", "old o", None, None, "test"),
        ("other lesion", "old x", None, "X", "validation"),
    ]
    ledger = Ledger(pd.DataFrame(rows, columns=list(LEDGER_COLUMNS)))
    labels = labels_of(
        {"image_id": "a"},
        {"image_id": "with lesion", "lesion_id": "L"},
        {"image_id": "with patient", "patient_id": "P"},
        {"image_id": "same"},
        {"image_id": "renamed"},
        {"image_id": "absent once"},
        {"image_id": "other lesion", "lesion_id": "Y"},
        {"image_id": "new"},
    )
    assert ledger.dealt_anew(labels) == {
        "a": "train",
        "other lesion": "validation",
        "renamed": "train",
    }
    renumbered = labels_of({"image_id": "a", "sha256": "bytes of it"})
    assert ledger.dealt_anew(renumbered) == {}
    assert Ledger.empty().dealt_anew(labels) == {}


def test_a_file_that_came_back_is_the_one_of_then(tmp_path: Path, labels_of) -> None:
    path = tmp_path / "ledger.csv"
    old = labels_of({"image_id": "a", "sha256": "1"})
    new = labels_of({"image_id": "a", "lesion_id": "L"})  # nothing says that L was in the old file
    append(path, _splits(a="train"), old)
    assert read_ledger(path).dealt_anew(new) == {"a": "train"}
    append(path, _splits(a="test"), new)
    assert read_ledger(path).dealt_anew(new) == {"a": "train"}  # recording it changes nothing
    assert read_ledger(path).dealt_anew(old) == {}


def test_an_image_cannot_change_its_part(tmp_path: Path, labels_of) -> None:
    path = tmp_path / "ledger.csv"
    labels = labels_of({"image_id": "a"})
    append(path, _splits(a="test"), labels)
    before = path.read_bytes()
    with pytest.raises(SplitError, match="such as a from test to train"):
        append(path, _splits(a="train"), labels)
    assert path.read_bytes() == before


def test_bytes_in_two_parts_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text(HEADER + "a,abc,,,test\nb,abc,,,train\n")
    with pytest.raises(SplitError, match=r"stand in two parts, such as a(?s:.*)abc"):
        read_ledger(path)


def test_an_unresolved_merge_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text(HEADER + "a,abc,,,test\n<<<<<<< HEAD,,,,\n")
    with pytest.raises(TableError, match=r"unknown part ''(?s:.*)line 3"):
        read_ledger(path)


@pytest.mark.parametrize(
    "damaged",
    [
        HEADER.encode() + b"a,abc,,,test\nb,bcd,,,train,one cell too many\n",
        HEADER.encode() + b"a,abc,,,te\xffst\n",
        b"",
    ],
    ids=["a line that is too long", "no UTF-8", "cut off at its start"],
)
def test_a_ledger_that_cannot_be_read_is_no_empty_one(tmp_path: Path, damaged: bytes) -> None:
    """An empty one would deal everything anew, and train on what was test."""
    path = tmp_path / "ledger.csv"
    path.write_bytes(damaged)
    with pytest.raises(TableError) as caught:
        read_ledger(path)
    assert caught.value.what.startswith("the split ledger cannot be read: ")
    assert caught.value.where == str(path)
    assert caught.value.fix == "take back the last good version from Git"
    assert path.read_bytes() == damaged


def test_an_id_that_looks_like_nothing_stays_an_id(tmp_path: Path, labels_of) -> None:
    path = tmp_path / "ledger.csv"
    append(path, _splits(a="test"), labels_of({"image_id": "a", "lesion_id": "NA"}))
    assert read_ledger(path).first_seen()["lesion:NA"] == 0


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import pandas as pd
        from components.splitting.ledger import append
        from components.tables import LABEL_COLUMNS
        for number in range(10):
            name = f"{sys.argv[2]}-{number}"
            labels = pd.DataFrame([{"image_id": name, "sha256": name}], columns=LABEL_COLUMNS)
            append(Path(sys.argv[1]), labels.assign(split="train")[["image_id", "split"]], labels)
        """
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in "xyz"]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(read_ledger(path).rows) == 30
