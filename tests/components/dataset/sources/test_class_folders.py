"""One folder per diagnosis: the folder is the diagnosis, its path the image's id."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from components.errors import SourceError

NAMES = (
    "train/benign/m1.jpg",
    "train/malignant/m1.jpg",
    "test/benign/m1.jpg",
    "test/malignant/m2.JPG",
)


def write(folder: Path, names, jpeg) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))
    return folder


def test_the_same_file_name_in_two_folders_is_two_images(tmp_path: Path, read, jpeg) -> None:
    images = read("class_folders", write(tmp_path / "data", NAMES, jpeg))
    diagnoses = dict(zip(images.labels["image_id"], images.labels["diagnosis"], strict=True))
    assert diagnoses == {
        "train__benign__m1": "benign",
        "train__malignant__m1": "malignant",
        "test__benign__m1": "benign",
        "test__malignant__m2": "malignant",
    }
    assert images.given_parts["test__benign__m1"] == "test"
    assert images.given_parts["train__benign__m1"] == "train"
    assert images.labels[["lesion_id", "patient_id", "age_years"]].isna().all(axis=None)
    assert images.read(images.files["test__benign__m1"]) == jpeg(2)


def test_folder_wrapped_folder_and_zip_give_the_same_ids(tmp_path: Path, read, jpeg) -> None:
    plain = read("class_folders", write(tmp_path / "data", NAMES, jpeg))
    write(tmp_path / "outer" / "melanoma_dataset", NAMES, jpeg)
    wrapped = read("class_folders", tmp_path / "outer")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for number, name in enumerate(NAMES):
            archive.writestr(f"melanoma_dataset/{name}", jpeg(number))
        archive.writestr("__MACOSX/melanoma_dataset/._m1.jpg", b"x")
    zipped = read("class_folders", tmp_path / "data.zip")
    for other in (wrapped, zipped):
        assert list(other.labels["image_id"]) == list(plain.labels["image_id"])
        assert other.given_parts == plain.given_parts


def test_folders_without_parts_and_with_spaces(tmp_path: Path, read, jpeg) -> None:
    names = ("Basal cell carcinoma/a b.jpg", "Nevus/1.png")
    images = read("class_folders", write(tmp_path / "data", names, jpeg))
    assert list(images.labels["diagnosis"]) == ["Basal cell carcinoma", "Nevus"]
    assert list(images.labels["image_id"]) == ["Basal_cell_carcinoma__a_b", "Nevus__1"]
    assert images.given_parts == {}


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("1.jpg", "nv/2.jpg"), "an image lies in no diagnosis' folder: 1.jpg"),
        (("train/1.jpg",), "an image lies in no diagnosis' folder: train/1.jpg"),
        (("nv/1.jpg", "train/mel/2.jpg"), "the folders are not of one kind"),
        (("nv/1.jpg", "mel/patient/2.jpg"), "the folders are not of one kind"),
        (("nv/1.jpg", "nv/1.png"), "two images would both be called nv__1"),
        (("nv/readme.txt",), "no image at all"),
    ],
)
def test_other_layouts_are_refused_by_name(tmp_path: Path, read, jpeg, names, what) -> None:
    with pytest.raises(SourceError) as error:
        read("class_folders", write(tmp_path / "data", names, jpeg))
    assert what in error.value.what


def test_the_real_zip_is_read_with_its_parts(real_data: Path, read) -> None:
    images = read("class_folders", real_data / "melanoma-folders.zip")
    assert len(images.labels) == len(images.files) == 1000
    assert set(images.labels["diagnosis"]) == {"benign", "malignant"}
    assert set(images.given_parts.values()) == {"train", "test"}
    assert images.read(next(iter(images.files.values())))[:2] == b"\xff\xd8"
