"""The registry's record of what each test set was used for, and what the report is told of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from components.evaluation.uses import id_of_test_set, read_test_uses, write_test_uses
from components.registry.looks import Looks
from components.registry.store import FolderStore


def test_what_is_told_is_what_was_recorded_each_candidate_once(tmp_path: Path) -> None:
    looks = Looks(FolderStore(tmp_path / "registry"))
    for candidate in ("one", "two", "one"):
        looks.add("this set", {"candidate": candidate})
    looks.add("another set", {"candidate": "one"})
    path = tmp_path / "test_uses.json"
    write_test_uses(path, looks.counts())
    assert read_test_uses(path) == {"this set": 2, "another set": 1}


def test_a_file_that_says_the_same_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "test_uses.json"
    path.write_text("{}\n")
    write_test_uses(path, {})
    assert path.read_text() == "{}\n", "what Git has does not change for nothing"


def test_the_same_images_with_the_same_diagnoses_are_the_same_test_set() -> None:
    images = pd.DataFrame({"sha256": ["a", "b"], "diagnosis": pd.Categorical(["nv", "mel"])})
    assert id_of_test_set(images) == id_of_test_set(images[::-1].astype(object))
    assert id_of_test_set(images) != id_of_test_set(images.assign(diagnosis=["mel", "mel"]))
    assert id_of_test_set(images) != id_of_test_set(images[:1])
