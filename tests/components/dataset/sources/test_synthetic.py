"""The synthetic source is the same every time, grows without changing, and can be learned from."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.dataset.sources.config import SyntheticOptions
from components.dataset.sources.source import SourceImages
from components.dataset.sources.synthetic import fingerprint, read


def _bytes(images: SourceImages, count: int) -> dict[str, bytes]:
    return {image_id: images.read(name) for image_id, name in list(images.files.items())[:count]}


def test_the_same_options_give_the_same_bytes_in_any_order() -> None:
    options = SyntheticOptions(lesions=8, image_size=48)
    first = _bytes(read(options), 20)
    again = read(options)
    backwards = {name: again.read(again.files[name]) for name in reversed(list(first))}
    assert first == backwards


def test_another_seed_gives_other_pictures_and_another_fingerprint() -> None:
    one, two = SyntheticOptions(lesions=4), SyntheticOptions(lesions=4, seed=1)
    assert fingerprint(one) != fingerprint(two)
    assert _bytes(read(one), 1) != _bytes(read(two), 1)


def test_the_name_of_a_source_is_no_part_of_its_fingerprint() -> None:
    assert fingerprint(SyntheticOptions()) == fingerprint(SyntheticOptions(name="other"))


def test_more_lesions_only_add_to_what_was_there() -> None:
    few, many = (read(SyntheticOptions(lesions=n, image_size=48)) for n in (30, 60))
    pd.testing.assert_frame_equal(few.labels, many.labels.head(len(few.labels)))
    assert _bytes(few, 5) == _bytes(many, 5)


def test_there_are_enough_lesions_of_each_class_and_several_images_of_some() -> None:
    labels = read(SyntheticOptions()).labels
    lesions = labels.groupby("diagnosis")["lesion_id"].nunique()
    assert len(lesions) == 7
    assert lesions.min() >= 14
    assert lesions["nv"] > 2 * lesions["mel"]
    per_lesion = labels["lesion_id"].value_counts()
    assert set(per_lesion) == {1, 2, 3, 4} or set(per_lesion) == {1, 2, 3, 4, 5}
    assert labels.groupby("lesion_id")["diagnosis"].nunique().max() == 1
    assert labels["image_id"].str.fullmatch(r"SYN_\d{7}").all()
    for column in ("age_years", "sex", "site"):
        assert 0 < labels[column].isna().mean() < 0.1


def test_a_few_files_are_broken_and_one_is_absent() -> None:
    images = read(SyntheticOptions(lesions=20, image_size=48))
    absent = set(images.labels["image_id"]) - set(images.files)
    assert len(absent) == 1
    problems = 0
    for name in images.files.values():
        try:
            Image.open(io.BytesIO(images.read(name))).load()
        except (OSError, SyntaxError):
            problems += 1
    assert problems == 3
    whole = read(SyntheticOptions(lesions=20, broken=False))
    assert set(whole.labels["image_id"]) == set(whole.files)


def test_a_picture_says_that_it_is_synthetic() -> None:
    images = read(SyntheticOptions(lesions=1))
    assert images.synthetic
    picture = Image.open(io.BytesIO(images.read(next(iter(images.files.values())))))
    assert picture.size == (160, 160)
    assert b"SYNTHETIC" in picture.info["comment"]


def test_classes_can_be_told_apart_but_not_by_colour_alone() -> None:
    images = read(SyntheticOptions(broken=False, image_size=32))
    labels = images.labels.drop_duplicates("lesion_id")
    colours = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(images.read(f"{name}.jpg"))).resize((4, 4)), float)
            for name in labels["image_id"]
        ]
    ).reshape(len(labels), -1)
    classes = labels["diagnosis"].to_numpy()
    train = np.arange(len(labels)) % 2 == 0
    centres = {c: colours[train & (classes == c)].mean(0) for c in sorted(set(classes))}
    guesses = np.array(
        [min(centres, key=lambda c: np.linalg.norm(row - centres[c])) for row in colours[~train]]
    )
    recall = [np.mean(guesses[classes[~train] == c] == c) for c in centres]
    assert 1.5 / 7 < np.mean(recall) < 0.9


@pytest.mark.parametrize("size", [32, 200])
def test_the_size_can_be_chosen(size: int) -> None:
    images = read(SyntheticOptions(lesions=1, image_size=size))
    assert Image.open(io.BytesIO(images.read("SYN_0000001.jpg"))).size == (size, size)
