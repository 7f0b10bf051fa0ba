"""Tables of other data sets fill the labels table, by a preset or by a mapping of columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from components.dataset.config import SourceParams
from components.dataset.snapshot import known_diagnoses
from components.dataset.sources.presets import PRESETS
from components.errors import SourceError
from components.params import load_params


def write(folder: Path, files, jpeg, images=()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    for number, name in enumerate(images):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))
    return folder


DETAILS = "ISIC_1,55.0,anterior torso,HAM_1,female\nISIC_2_downsampled,,,,\n"
TRUTH = "ISIC_1,0.0,1.0,0,0,0,0,0,0,0\nISIC_2_downsampled,1.0,0,0,0,0,0,0,0,0\n"


def isic2019(folder: Path, jpeg, truth: str = TRUTH, details: str = DETAILS) -> Path:
    return write(
        folder,
        {
            "ISIC_2019_Training_GroundTruth.csv": "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
            + truth,
            "ISIC_2019_Training_Metadata.csv": (
                "image,age_approx,anatom_site_general,lesion_id,sex\n" + details
            ),
        },
        jpeg,
        ("ISIC_2019_Training_Input/ISIC_1.jpg", "ISIC_2019_Training_Input/ISIC_2_downsampled.jpg"),
    )


def test_isic_2019_takes_the_marked_diagnosis_and_joins_the_metadata(
    tmp_path: Path, read, jpeg
) -> None:
    images = read("table", isic2019(tmp_path / "i", jpeg), preset="isic2019")
    labels = images.labels
    assert list(labels["diagnosis"]) == ["NV", "MEL"]
    assert labels["lesion_id"][0] == "HAM_1"
    assert labels["site"][0] == "anterior torso"
    assert labels.loc[1, ["lesion_id", "sex", "site", "age_years"]].isna().all()
    assert len(images.files) == 2
    assert images.licence == "CC BY-NC 4.0"


def test_images_that_the_metadata_lack_are_counted_and_named(tmp_path: Path, read, jpeg) -> None:
    """Without their lesion ids, pictures of one lesion could land in train and in test."""
    truth = TRUTH + "".join(f"ISIC_{n},0,1,0,0,0,0,0,0,0\n" for n in (3, 4, 5, 6))
    with pytest.raises(SourceError) as error:
        read("table", isic2019(tmp_path / "i", jpeg, truth), preset="isic2019")
    assert error.value.what == (
        "4 images without a row in the metadata, such as ISIC_3, ISIC_4, ISIC_5"
    )
    assert error.value.where.startswith("ISIC_2019_Training_Metadata.csv in ")
    assert "ISIC_2019_Training_GroundTruth.csv" in error.value.where
    assert "an empty lesion id where none is known" in error.value.fix


def test_metadata_that_contradict_themselves_are_named_with_their_rows(
    tmp_path: Path, read, jpeg
) -> None:
    details = DETAILS + "ISIC_9,,,,\nISIC_1,55.0,anterior torso,HAM_7,female\n"
    with pytest.raises(SourceError) as error:
        read("table", isic2019(tmp_path / "i", jpeg, details=details), preset="isic2019")
    assert error.value.what == "image ISIC_1 is listed 2 times with different values of lesion_id"
    assert error.value.where.startswith("rows 2 and 5 of ISIC_2019_Training_Metadata.csv")


def test_metadata_of_other_images_and_repeated_rows_change_nothing(
    tmp_path: Path, read, jpeg
) -> None:
    plain = read("table", isic2019(tmp_path / "i", jpeg), preset="isic2019")
    details = DETAILS + "ISIC_9,1,a,HAM_8,\nISIC_9,2,b,HAM_9,\n" + DETAILS
    images = read("table", isic2019(tmp_path / "j", jpeg, details=details), preset="isic2019")
    pd.testing.assert_frame_equal(images.labels, plain.labels)
    assert images.seen_twice == {}


def test_a_column_that_both_tables_have_is_the_metadatas(tmp_path: Path, read, jpeg) -> None:
    folder = isic2019(tmp_path / "i", jpeg)
    path = folder / "ISIC_2019_Training_GroundTruth.csv"
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{head},sex", *(f"{row}," for row in rows)]))
    assert read("table", folder, preset="isic2019").labels["sex"][0] == "female"


@pytest.mark.parametrize("row", ["0,0,0,0,0,0,0,0,0", "1,1,0,0,0,0,0,0,0", "0.5,0.5,0,0,0,0,0,0,0"])
def test_a_row_without_exactly_one_diagnosis_is_named(tmp_path: Path, read, jpeg, row) -> None:
    truth = f"ISIC_1,0,1,0,0,0,0,0,0,0\nISIC_2_downsampled,{row}\n"
    with pytest.raises(SourceError) as error:
        read("table", isic2019(tmp_path / "i", jpeg, truth), preset="isic2019")
    assert "exactly one diagnosis" in error.value.what
    assert error.value.where.startswith("row 3 of ISIC_2019_Training_GroundTruth.csv")


def test_isic_2020_keeps_patients_together(tmp_path: Path, read, jpeg) -> None:
    header = (
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target\n"
    )
    rows = (
        "ISIC_1,IP_1,male,45.0,head/neck,unknown,benign,0\n"
        "ISIC_2,IP_1,male,45.0,torso,melanoma,malignant,1\n"
    )
    folder = write(
        tmp_path / "i", {"train.csv": header + rows, "test.csv": "image_name\n"}, jpeg,
        ("train/ISIC_1.jpg", "train/ISIC_2.jpg"),
    )  # fmt: skip
    labels = read("table", folder, preset="isic2020").labels
    assert list(labels["patient_id"]) == ["IP_1", "IP_1"]
    assert list(labels["diagnosis"]) == ["benign", "malignant"]
    other = read("table", folder, preset="isic2020", columns={"diagnosis": "diagnosis"}).labels
    assert list(other["diagnosis"]) == ["unknown", "melanoma"]


def test_pad_ufes_20_has_patients_lesions_and_skin_types(tmp_path: Path, read, jpeg) -> None:
    header = "patient_id,lesion_id,age,gender,fitspatrick,region,diagnostic,img_id,biopsed\n"
    rows = (
        "PAT_1516,1765,8,,,ARM,NEV,PAT_1516_1765_530.png,False\n"
        "PAT_46,881,55,FEMALE,3.0,NECK,BCC,PAT_46_881_939.png,True\n"
    )
    folder = write(
        tmp_path / "pad", {"metadata.csv": header + rows}, jpeg,
        ("images/imgs_part_1/PAT_1516_1765_530.png", "images/imgs_part_2/PAT_46_881_939.png"),
    )  # fmt: skip
    images = read("table", folder, preset="pad-ufes-20")
    rows_read = images.labels.to_dict("records")
    assert rows_read[1] == {
        "image_id": "PAT_46_881_939",
        "patient_id": "PAT_46",
        "lesion_id": "PAD_881",
        "diagnosis": "BCC",
        "diagnosis_method": "histo",
        "age_years": 55.0,
        "sex": "female",
        "site": "neck",
        "skin_type": "3",
    }
    assert rows_read[0]["diagnosis_method"] == "consensus"
    assert len(images.files) == 2


@pytest.mark.parametrize("recipe", ["isic2019", "isic2020", "pad-ufes-20"])
def test_the_recipe_knows_every_diagnosis_of_the_data_set(recipe: str, repo: Path) -> None:
    published = {
        "isic2019": PRESETS["isic2019"].one_hot,
        "isic2020": ("benign", "malignant"),
        "pad-ufes-20": ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK"),
    }
    params = load_params(repo / "params" / f"{recipe}.yaml")
    labels = pd.DataFrame({"image_id": published[recipe], "diagnosis": published[recipe]})
    known, left_out = known_diagnoses(labels, params.diagnoses, where=recipe)
    assert set(known["diagnosis"]) == set(params.diagnoses.classes)
    assert set(left_out) == ({"UNK"} if recipe == "isic2019" else set())
    assert params.sources[0].options == {"preset": recipe}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_can_be_mapped_by_hand(tmp_path: Path, read, jpeg, suffix) -> None:
    folder = write(tmp_path / "own", {}, jpeg, ("a/1.jpg", "b/1.jpg"))
    frame = pd.DataFrame(
        {"path": ["a/1.jpg", "b/1.jpg"], "dx": ["mole", "mole"], "who": [7.0, None], "age": [3, 4]}
    )
    frame.to_csv(folder / "t.csv", index=False) if suffix == "csv" else frame.to_parquet(
        folder / "t.parquet"
    )
    images = read(
        "table", folder,
        columns={
            "image_id": "path", "diagnosis": "dx", "patient_id": "who", "age_years": "age"
        },
    )  # fmt: skip
    assert list(images.labels["image_id"]) == ["a__1", "b__1"]
    assert images.labels["patient_id"][0] == "7"
    assert images.labels["patient_id"].isna()[1]
    assert list(images.labels["age_years"]) == [3.0, 4.0]
    assert images.read(images.files["b__1"]) == jpeg(1)


def test_a_column_that_is_not_there_is_named_with_the_table(tmp_path: Path, read, jpeg) -> None:
    folder = write(tmp_path / "own", {"t.csv": "image,dx\nx,nv\n"}, jpeg, ("x.jpg",))
    with pytest.raises(SourceError) as error:
        read("table", folder, columns={"image_id": "image", "diagnosis": "dx", "sex": "gender"})
    assert error.value.what == "missing column: gender"
    assert "t.csv" in error.value.where
    assert "image, dx" in error.value.fix


def test_of_several_tables_one_must_be_chosen(tmp_path: Path, read, jpeg) -> None:
    folder = write(tmp_path / "own", {"a.csv": "i,d\nx,nv\n", "b.csv": "i,d\n"}, jpeg, ("x.jpg",))
    columns = {"image_id": "i", "diagnosis": "d"}
    with pytest.raises(SourceError, match="2 tables, where one is wanted"):
        read("table", folder, columns=columns)
    assert len(read("table", folder, columns=columns, table="a.csv").labels) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"image_id": "i"}}, "image_id and diagnosis"),
        ({"columns": {"image_id": "i", "diagnosis": "d", "agee": "a"}}, "agee is none of"),
        ({"preset": "isic1999"}, "isic2019"),
        ({"colums": {}}, "colums"),
    ],
)
def test_wrong_options_are_refused_when_params_are_read(options, message) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceParams(kind="table", uri="x", options=options)


def test_a_table_with_none_of_the_diagnoses_columns_is_refused(tmp_path: Path, read, jpeg) -> None:
    folder = isic2019(tmp_path / "i", jpeg)
    path = folder / "ISIC_2019_Training_GroundTruth.csv"
    path.write_text("image,target\nISIC_1,1\nISIC_2_downsampled,0\n")
    with pytest.raises(SourceError) as error:
        read("table", folder, preset="isic2019")
    assert error.value.what == "none of the columns MEL, NV, BCC, AK, BKL, DF, VASC, SCC, UNK"
    assert error.value.where.startswith("ISIC_2019_Training_GroundTruth.csv in ")
    assert "the option `columns`" in error.value.fix
