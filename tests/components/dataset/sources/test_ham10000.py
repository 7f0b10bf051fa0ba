"""HAM10000 is read as it comes, and what is wrong with it is said by name."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import pytest

from components.errors import SourceError

ROWS = [("A1", "L1", "mel"), ("A2", "L1", "mel"), ("A3", "L2", "nv")]


def test_images_in_parts_are_matched_with_their_rows(ham, read, jpeg) -> None:
    images = read("ham10000", ham(ROWS))
    assert list(images.labels["image_id"]) == ["A1", "A2", "A3"]
    assert list(images.labels["lesion_id"]) == ["L1", "L1", "L2"]
    assert images.read(images.files["A2"]) == jpeg(1)
    assert (images.licence, images.present_but_not_listed) == ("CC BY-NC 4.0", ())
    assert "Tschandl" in images.attribution


@pytest.mark.parametrize(
    ("metadata", "delimiter"),
    [("HAM10000_metadata", ","), ("HAM10000_metadata.tab", "\t"), ("ham10000_metadata.TXT", "\t")],
)
def test_the_metadata_may_have_any_suffix_and_commas_or_tabs(
    ham, read, metadata, delimiter
) -> None:
    images = read("ham10000", ham(ROWS, metadata=metadata, delimiter=delimiter))
    assert list(images.labels["diagnosis"]) == ["mel", "mel", "nv"]


def test_the_zips_may_stay_as_they_come(ham, read, jpeg) -> None:
    folder = ham(ROWS)
    for part in sorted(folder.glob("HAM10000_images_part_*")):
        with zipfile.ZipFile(f"{part}.zip", "w") as archive:
            for path in sorted(part.iterdir()):
                archive.write(path, path.name)
                path.unlink()
        part.rmdir()
    images = read("ham10000", folder)
    assert {name: images.read(file) for name, file in images.files.items()} == {
        "A1": jpeg(0), "A2": jpeg(1), "A3": jpeg(2)
    }  # fmt: skip


def test_zip_and_unpacked_folder_side_by_side_are_one_set_of_images(ham, read, jpeg) -> None:
    folder = ham(ROWS)
    with zipfile.ZipFile(folder / "HAM10000_images_part_1.zip", "w") as archive:
        archive.writestr("A1.jpg", jpeg(0))
    assert len(read("ham10000", folder).files) == 3
    with zipfile.ZipFile(folder / "HAM10000_images_part_1.zip", "w") as archive:
        archive.writestr("A1.jpg", jpeg(99))
    with pytest.raises(SourceError, match="two different files for image A1"):
        read("ham10000", folder)


def test_what_is_unknown_is_missing_and_an_age_of_0_is_a_value(ham, read) -> None:
    unknown = {"age": "", "sex": "unknown", "localization": "Unknown"}
    zero = {"age": "0.0", "sex": "female", "localization": "Lower Extremity"}
    labels = read("ham10000", ham([("A1", "L1", "nv", unknown), ("A2", "L2", "nv", zero)])).labels
    assert math.isnan(labels["age_years"][0])
    assert labels.loc[0, ["sex", "site"]].isna().all()
    assert tuple(labels.loc[1, ["age_years", "sex", "site"]]) == (0.0, "female", "lower extremity")
    assert labels["patient_id"].isna().all()


def test_listed_but_absent_and_present_but_not_listed_are_named(ham, read) -> None:
    images = read("ham10000", ham(ROWS, pictures={"A1": 0, "A3": 2, "B9": 9}))
    assert set(images.labels["image_id"]) - set(images.files) == {"A2"}
    assert images.present_but_not_listed == ("HAM10000_images_part_1/B9.jpg",)


def test_masks_of_the_download_are_no_images(ham, read) -> None:
    folder = ham(ROWS)
    (folder / "masks").mkdir()
    (folder / "masks" / "A1_segmentation.png").write_bytes(b"mask")
    assert read("ham10000", folder).present_but_not_listed == ()


def test_listed_twice_with_the_same_values_is_taken_once_and_reported(ham, read) -> None:
    images = read("ham10000", ham([*ROWS, ("A1", "L1", "mel")], pictures={"A1": 0}))
    assert list(images.labels["image_id"]) == ["A1", "A2", "A3"]
    assert images.seen_twice == {"A1": "rows 2 and 5"}


def test_listed_twice_with_other_values_names_the_image_and_the_rows(ham, read) -> None:
    with pytest.raises(SourceError) as error:
        read("ham10000", ham([*ROWS, ("A1", "L1", "nv")]))
    assert "image A1 is listed 2 times with different values of diagnosis" in error.value.what
    assert "rows 2 and 5 of HAM10000_metadata.csv" in error.value.where


def test_a_missing_column_is_named_with_the_file(ham, read) -> None:
    folder = ham(ROWS, columns=("lesion_id", "image_id", "dx_type", "age", "sex", "localization"))
    with pytest.raises(SourceError) as error:
        read("ham10000", folder)
    assert error.value.what == "missing column: dx"
    assert "HAM10000_metadata.csv" in error.value.where


def test_no_metadata_no_image_no_folder_each_have_their_message(ham, read, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no image at all"):
        read("ham10000", ham(ROWS, "bare", pictures={}))
    folder = ham(ROWS)
    (folder / "HAM10000_metadata.csv").unlink()
    with pytest.raises(SourceError, match="no table called HAM10000_metadata"):
        read("ham10000", folder)
    with pytest.raises(SourceError) as error:
        read("ham10000", "nowhere")
    assert error.value.what == "the source does not exist: nowhere"
    assert str(tmp_path / "nowhere") in error.value.where


@pytest.mark.parametrize(
    ("row", "what", "where"),
    [
        (("A4", "L1", "nv", {"age": "old"}), "'old' is no age", "row 5, column age"),
        (("../A4", "L1", "nv"), "cannot be an image id", "row 5, column image_id"),
        (("", "L1", "nv"), "cannot be an image id", "row 5, column image_id"),
    ],
)
def test_an_impossible_value_is_shown_with_its_row(ham, read, row, what, where) -> None:
    with pytest.raises(SourceError) as error:
        read("ham10000", ham([*ROWS, row], pictures={"A1": 0}))
    assert what in error.value.what
    assert where in error.value.where


def test_a_metadata_file_that_is_no_table_is_refused(ham, read) -> None:
    folder = ham(ROWS)
    for content, why in (
        (b"\xff\xfe\x00\x9f binary", "'utf-8' codec can't decode byte 0xff"),
        (b"", "No columns to parse"),
    ):
        (folder / "HAM10000_metadata.csv").write_bytes(content)
        with pytest.raises(SourceError) as error:
            read("ham10000", folder)
        assert error.value.what.startswith(f"the table cannot be read: {why}")
        assert error.value.where.startswith("HAM10000_metadata.csv in ")
        assert "UTF-8 text with a header" in error.value.fix


def test_a_file_that_cannot_be_read_is_named(ham, read) -> None:
    folder = ham(ROWS)
    picture = next(folder.rglob("A1.jpg"))
    picture.unlink()
    picture.symlink_to("gone.jpg")
    images = read("ham10000", folder)
    with pytest.raises(SourceError) as error:
        images.read(images.files["A1"])
    assert error.value.what == "a file of the source cannot be read: No such file or directory"
    assert error.value.where == str(picture)
    assert "mend the link" in error.value.fix


def test_a_prefix_goes_before_every_image_id(ham, read) -> None:
    images = read("ham10000", ham(ROWS, pictures={"A1": 0, "A2": 1}), prefix="x-")
    assert list(images.labels["image_id"]) == ["x-A1", "x-A2", "x-A3"]
    assert set(images.files) == {"x-A1", "x-A2"}
    assert list(images.labels["lesion_id"]) == ["L1", "L1", "L2"]


def test_real_images_are_read_as_downloaded(real_data: Path, read) -> None:
    images = read("ham10000", real_data / "ham10000")
    labels = images.labels
    assert (len(labels), labels["lesion_id"].nunique()) == (10015, 7470)
    assert dict(labels["diagnosis"].value_counts()) == {
        "nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115
    }  # fmt: skip
    assert (labels["age_years"].isna().sum(), (labels["age_years"] == 0).sum()) == (57, 39)
    assert (labels["sex"].isna().sum(), labels["site"].isna().sum()) == (57, 234)
    assert len(images.files) == 10015
