"""Archives of original files: byte for byte, found by id, and few that change when data change."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.dataset import originals
from components.dataset.originals import OriginalsWriter, list_originals
from components.errors import SourceError
from tests.originals import read_originals, write_originals

IMAGE_IDS = st.from_regex(r"[\w.-]{0,8}\w", fullmatch=True)
IMAGES = st.dictionaries(IMAGE_IDS, st.binary(max_size=60), max_size=40)


@pytest.fixture(autouse=True)
def small_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an archive hold some images as small as ours."""
    monkeypatch.setattr(originals, "ARCHIVE_BYTES", 150)


def archives(folder: Path, images: dict[str, bytes]) -> dict[str, bytes]:
    write_originals(folder, {f"{image_id}.jpg": data for image_id, data in images.items()})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals") / "images"


@settings(deadline=None)
@given(images=IMAGES)
def test_every_file_comes_back_byte_for_byte(folder: Path, images: dict[str, bytes]) -> None:
    archives(folder, images)
    assert read_originals(folder) == {f"{name}.jpg": data for name, data in images.items()}
    assert list(list_originals(folder)) == sorted(images)


@settings(deadline=None)
@given(images=IMAGES, image_id=IMAGE_IDS, data=st.binary(max_size=60))
def test_an_added_image_changes_its_archive_and_a_withdrawn_one_too(
    folder: Path, images: dict[str, bytes], image_id: str, data: bytes
) -> None:
    without = {name: value for name, value in images.items() if name != image_id}
    before = archives(folder, without)
    after = archives(folder, without | {image_id: data})
    assert len(after.items() - before.items()) <= 2  # the archive may end after it
    assert len(before.items() - after.items()) <= 1


def test_a_source_that_is_added_leaves_the_archives_as_they_are(tmp_path: Path) -> None:
    before = archives(tmp_path, {f"a{n}": bytes(20) for n in range(100)})
    assert len(before) > 3
    with OriginalsWriter(tmp_path, "second") as writer:
        writer.add("a10-again", ".jpg", b"new")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert list_originals(tmp_path)["a10-again"].source == "second"


def test_archives_are_as_large_as_they_should_be_on_average(tmp_path: Path) -> None:
    count = len(archives(tmp_path, {f"i{n}": bytes(5) for n in range(3000)}))
    assert 70 <= count <= 130  # 3000 * 5 / 150 = 100


def test_nothing_of_when_and_where_gets_into_an_archive(tmp_path: Path) -> None:
    archives(tmp_path, {"a": b"data"})
    (path,) = tmp_path.iterdir()
    with zipfile.ZipFile(path) as archive:
        (entry,) = archive.infolist()
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert (entry.create_system, entry.compress_type) == (3, zipfile.ZIP_STORED)


def test_what_any_zip_program_packed_is_read_too(tmp_path: Path) -> None:
    """Someone may add an entry by hand: other programs write an extra field before the data."""
    entry = zipfile.ZipInfo("a.jpg")
    entry.extra = b"UT\x05\x00\x03\x00\x00\x00\x00"
    with zipfile.ZipFile(tmp_path / "made+a.zip", "w") as archive:
        archive.writestr(entry, b"data")
    assert read_originals(tmp_path) == {"a.jpg": b"data"}


def test_two_files_of_one_image_are_refused(tmp_path: Path) -> None:
    write_originals(tmp_path, {"a.jpg": b"one"})
    with OriginalsWriter(tmp_path, "other") as writer:
        writer.add("a", ".png", b"two")
    message = r"two files for image a: a\.jpg in made\+a-\w+\.zip and a\.png in other\+a-\w+\.zip"
    with pytest.raises(SourceError, match=message):
        list_originals(tmp_path)


@pytest.mark.parametrize("source", ["..", "x" * 250, "Schwarze Flecken é"])
@pytest.mark.parametrize("image_id", ["x" * 200, "ü" * 100, "...", "CON"])
def test_any_name_makes_an_archive(tmp_path: Path, source: str, image_id: str) -> None:
    write_originals(tmp_path / "images", {f"{image_id}.jpg": b"data"}, source)
    assert read_originals(tmp_path / "images") == {f"{image_id}.jpg": b"data"}
    assert list_originals(tmp_path / "images")[image_id].source == source
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_ids_that_differ_in_their_ends_or_capitals_have_archives_of_their_own(
    tmp_path: Path,
) -> None:
    files = {f"{'x' * 100}{end}.jpg": bytes(200) for end in ("a", "A", "b")}
    write_originals(tmp_path, files)
    assert len({path.name.lower() for path in tmp_path.iterdir()}) == 3
    assert read_originals(tmp_path) == files


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    write_originals(tmp_path, {"a.jpg": b"data"})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SourceError, match="damaged") as caught:
        list_originals(tmp_path)
    assert caught.value.where == str(path)
    assert "dvc checkout" in caught.value.fix


def test_an_archive_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    """DVC may link to its cache, and an object may be gone from there."""
    (tmp_path / "made+a.zip").symlink_to(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"damaged: .*No such file"):
        list_originals(tmp_path)


def test_an_archive_that_goes_while_it_is_read_is_named(tmp_path: Path) -> None:
    write_originals(tmp_path, {"a.jpg": b"data"})
    file = list_originals(tmp_path)["a"]
    file.archive.unlink()
    with pytest.raises(SourceError, match=r"damaged: a\.jpg cannot be read"):
        file.read()


def test_an_archive_that_somebody_compressed_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "made+a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(100))
    with pytest.raises(SourceError, match=r"a\.jpg is not stored in there"):
        list_originals(tmp_path)


@settings(deadline=None, max_examples=300)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_never_gives_another_picture(folder: Path, at: float, value: int) -> None:
    images = {f"{name}.jpg": name.encode() * 20 for name in "abc"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(originals, "ARCHIVE_BYTES", 1 << 20)
        write_originals(folder, images)
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] = value
    path.write_bytes(data)
    try:
        found = read_originals(folder)
    except SourceError as error:
        assert error.where in (str(path), str(folder))
    else:
        assert found.items() <= images.items()


def test_no_folder_has_no_files(tmp_path: Path) -> None:
    assert list_originals(tmp_path / "none") == {}
