"""`data/sources.json` follows the content of the sources, quickly, and finds mistakes early."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.dataset import ingest
from components.dataset.fingerprint import listed_sources, refresh_sources
from components.dataset.sources.hashes import HASH_CACHE
from components.errors import ResourceError, SourceError
from components.layout import Layout
from components.params import Params, parse_params, read_yaml
from tests.originals import read_originals

REPO = Path(__file__).resolve().parents[3]
ROWS = [("A1", "L1", "mel"), ("A2", "L2", "nv")]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "work" / "data").mkdir(parents=True)
    shutil.copyfile(REPO / "data" / "withdrawn.csv", tmp_path / "work/data/withdrawn.csv")
    return Layout(tmp_path / "work")


def params_for(*sources: Path | str, diagnoses: dict[str, Any] | None = None) -> Params:
    document = read_yaml(REPO / "params" / "ham10000.yaml")
    document["sources"] = [{"kind": "ham10000", "uri": str(uri)} for uri in sources]
    document["diagnoses"] |= diagnoses or {}
    return parse_params(document, where="test")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function: how many files were hashed since the last call."""
    from components.dataset.sources import hashes

    done: list[Path] = []
    hash_one = hashes.file_sha256
    monkeypatch.setattr(hashes, "file_sha256", lambda path: done.append(path) or hash_one(path))

    def count() -> int:
        number = len(done)
        done.clear()
        return number

    return count


def age(folder: Path) -> None:
    """Make the files look as if they had been written an hour ago."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 3600,) * 2)


def test_an_unchanged_source_is_written_once_and_hashed_once(ham, layout, counted) -> None:
    folder = ham(ROWS)
    age(folder)
    assert refresh_sources(params_for(folder), layout) is True
    assert counted() == 3
    text = layout.sources.read_text()
    assert refresh_sources(params_for(folder), layout) is False
    assert counted() == 0
    assert layout.sources.read_text() == text
    entry = json.loads(text)["sources"][0]
    assert (entry["kind"], entry["uri"], entry["num_images"]) == ("ham10000", str(folder), 2)


def test_a_changed_byte_a_new_name_and_a_new_file_change_the_fingerprint(
    ham, layout, counted, jpeg
) -> None:
    folder = ham(ROWS)
    age(folder)
    params = params_for(folder)
    picture = next(folder.rglob("A1.jpg"))
    refresh_sources(params, layout)
    counted()
    picture.write_bytes(jpeg(5))
    assert refresh_sources(params, layout) is True
    assert counted() == 1
    picture.rename(picture.with_name("A9.jpg"))
    assert refresh_sources(params, layout) is True
    picture.write_bytes(jpeg(6))
    assert refresh_sources(params, layout) is True
    assert refresh_sources(params, layout) is False


def test_a_change_within_the_tick_of_the_clock_is_noticed(ham, layout, jpeg) -> None:
    """Same size, same time: a file that has just been written is not trusted to stay."""
    folder = ham(ROWS)
    picture = next(folder.rglob("A1.jpg"))
    data = jpeg(0)
    now = time.time_ns()
    os.utime(picture, ns=(now, now))
    refresh_sources(params_for(folder), layout)
    with picture.open("r+b") as file:
        file.write(data[:-3] + b"abc")
    os.utime(picture, ns=(now, now))
    assert refresh_sources(params_for(folder), layout) is True


def test_a_link_to_nothing_is_named(ham, layout) -> None:
    folder = ham(ROWS)
    (folder / "lost.jpg").symlink_to("gone.jpg")
    with pytest.raises(SourceError) as error:
        refresh_sources(params_for(folder), layout)
    assert error.value.what == "a file of the source cannot be read: No such file or directory"
    assert error.value.where == str(folder / "lost.jpg")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"schema_version": 1}', '{"sources": null}', '{"sources": [{"kind": "table"}]}'],
)
def test_a_damaged_list_of_sources_says_what_to_do(ham, layout, text) -> None:
    layout.sources.write_text(text)
    params = params_for(ham(ROWS))
    with pytest.raises(SourceError) as error:
        refresh_sources(params, layout)
    with pytest.raises(SourceError, match="this is not the list of sources"):
        listed_sources(layout)
    assert error.value.what == "this is not the list of sources that Lesionflow writes"
    assert error.value.where == str(layout.sources)
    assert "delete the file" in error.value.fix


@pytest.mark.parametrize(
    ("start", "why"), [(0, "file is not a database"), (4096, "database disk image is malformed")]
)
def test_a_damaged_cache_of_hashes_says_what_to_do(ham, layout, start: int, why: str) -> None:
    folder = ham(ROWS)
    age(folder)
    refresh_sources(params_for(folder), layout)
    path = layout.cache / HASH_CACHE
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"x" * (len(data) - start))
    layout.sources.unlink()
    with pytest.raises(ResourceError) as error:
        refresh_sources(params_for(folder), layout)
    assert error.value.what == f"the cache cannot be used: {why}"
    assert error.value.where == str(path)
    assert "delete the file" in error.value.fix
    path.unlink()
    assert refresh_sources(params_for(folder), layout) is True


def test_the_same_content_elsewhere_has_the_same_fingerprint(ham, layout, tmp_path) -> None:
    folder = ham(ROWS)
    refresh_sources(params_for(folder), layout)
    first = listed_sources(layout)[0][1]
    shutil.copytree(folder, tmp_path / "moved")
    (tmp_path / "moved" / ".DS_Store").write_bytes(b"")
    refresh_sources(params_for(tmp_path / "moved"), layout)
    assert listed_sources(layout)[0][1] == first


def test_a_mistake_in_a_source_leaves_the_list_as_it_was(ham, layout) -> None:
    folder = ham(ROWS)
    refresh_sources(params_for(folder), layout)
    before = layout.sources.read_text()
    ham([*ROWS, ("A3", "L3", "scc")])
    with pytest.raises(SourceError, match="'scc'"):
        refresh_sources(params_for(folder), layout)
    with pytest.raises(SourceError, match="does not exist"):
        refresh_sources(params_for("nowhere"), layout)
    assert layout.sources.read_text() == before


def test_other_classes_are_checked_against_a_source_that_did_not_change(ham, layout) -> None:
    folder = ham(ROWS)
    refresh_sources(params_for(folder), layout)
    with pytest.raises(SourceError, match="'mel'"):
        refresh_sources(
            params_for(folder, diagnoses={"classes": ["nv", "bcc"], "malignant": ["bcc"]}), layout
        )


def test_a_clone_with_the_data_does_not_need_the_source(ham, layout, capsys) -> None:
    folder = ham(ROWS)
    params = params_for(folder)
    refresh_sources(params, layout)
    shutil.rmtree(folder)
    with pytest.raises(SourceError, match="does not exist"):
        refresh_sources(params, layout)
    layout.raw.mkdir()
    layout.manifest.write_text("{}")
    assert refresh_sources(params, layout) is False
    assert str(folder) in capsys.readouterr().err
    with pytest.raises(SourceError):  # a source that was never taken is needed
        refresh_sources(params_for(folder, "new"), layout)


def test_a_link_that_leads_back_does_not_trap_the_walk(ham, layout) -> None:
    folder = ham(ROWS)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    refresh_sources(params_for(folder), layout)
    assert json.loads(layout.sources.read_text())["sources"][0]["num_images"] == 2


# --- ingest -------------------------------------------------------------------------------------


def test_ingest_takes_what_was_looked_at_and_nothing_else(ham, layout, jpeg) -> None:
    folder = ham(ROWS)
    params = params_for(folder)
    refresh_sources(params, layout)
    ingest.run(params, layout)
    manifest = layout.manifest.read_bytes()
    assert sorted(read_originals(layout.images)) == ["A1.jpg", "A2.jpg"]
    next(folder.rglob("A1.jpg")).write_bytes(jpeg(9))
    with pytest.raises(SourceError, match="changed after it was looked at"):
        ingest.run(params, layout)
    assert layout.manifest.read_bytes() == manifest  # the last good state stays
    assert not layout.half_done_snapshot.exists()


def test_a_failure_half_way_leaves_the_last_snapshot(ham, layout) -> None:
    folder = ham(ROWS)
    params = params_for(folder)
    refresh_sources(params, layout)
    ingest.run(params, layout)
    other = ham([("A1", "X", "nv")], "other", pictures={"A1": 8})
    params = params_for(folder, other)
    refresh_sources(params, layout)
    with pytest.raises(SourceError, match="belong to other pictures"):
        ingest.run(params, layout)
    assert sorted(read_originals(layout.images)) == ["A1.jpg", "A2.jpg"]


def test_a_new_source_is_added_where_the_old_one_is_gone(ham, layout) -> None:
    folder = ham(ROWS)
    refresh_sources(params_for(folder), layout)
    ingest.run(params_for(folder), layout)
    shutil.rmtree(folder)
    params = params_for(folder, ham([("B1", "M1", "df")], "new", pictures={"B1": 7}))
    assert refresh_sources(params, layout) is True
    ingest.run(params, layout)
    assert json.loads(layout.manifest.read_text())["num_images"] == 3


def test_other_classes_need_the_source_itself(ham, layout) -> None:
    """The last snapshot has a source's diagnoses only as they were mapped then."""
    folder = ham(ROWS)
    refresh_sources(params_for(folder), layout)
    ingest.run(params_for(folder), layout)
    shutil.rmtree(folder)
    params = params_for(folder, diagnoses={"names": {"mel": "nv"}})
    with pytest.raises(SourceError, match="does not exist"):
        ingest.run(params, layout)


def test_a_snapshot_that_does_not_know_what_it_left_out_stands_for_nothing(ham, layout) -> None:
    """Those of earlier versions: a picture of the new source could be among it."""
    folder = ham([*ROWS, ("A3", "L3", "scc")])
    diagnoses = {"names": {"scc": None}}
    refresh_sources(params_for(folder, diagnoses=diagnoses), layout)
    ingest.run(params_for(folder, diagnoses=diagnoses), layout)
    shutil.rmtree(folder)
    new = ham([("B1", "M1", "df")], "new", pictures={"B1": 7})
    params = params_for(folder, new, diagnoses=diagnoses)
    refresh_sources(params, layout)
    whole = layout.manifest.read_text()
    manifest = json.loads(whole)
    assert manifest.pop("left_out_images")
    layout.manifest.write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match="does not exist"):
        ingest.run(params, layout)
    manifest["sources"][0]["left_out"] = {}
    layout.manifest.write_text(json.dumps(manifest))
    ingest.run(params, layout)
    assert json.loads(layout.manifest.read_text())["num_images"] == 3


def test_a_snapshot_with_its_files_one_by_one_stands_for_nothing(ham, layout) -> None:
    """Those of earlier versions: what reads archives would find no file."""
    folder = ham(ROWS)
    refresh_sources(params_for(folder), layout)
    ingest.run(params_for(folder), layout)
    shutil.rmtree(folder)
    manifest = json.loads(layout.manifest.read_text())
    layout.manifest.write_text(json.dumps(manifest | {"schema_version": 1}))
    with pytest.raises(SourceError, match="form of an earlier version") as caught:
        ingest.run(params_for(folder), layout)
    assert "run this once where all sources are" in caught.value.fix
    layout.manifest.write_text(json.dumps(manifest))
    ingest.run(params_for(folder), layout)


def test_without_a_list_of_sources_ingest_says_what_to_run(layout) -> None:
    with pytest.raises(SourceError, match="no sources are listed"):
        ingest.run(params_for("x"), layout)


def test_the_real_increment_makes_one_snapshot_with_the_mini_set(real_data: Path, layout) -> None:
    params = params_for(real_data / "ham10000-mini", real_data / "ham10000-increment")
    refresh_sources(params, layout)
    ingest.run(params, layout)
    manifest = json.loads(layout.manifest.read_text())
    assert manifest["num_images"] == 691 + 193
    assert manifest["label_conflicts"] == manifest["seen_twice"] == []
    name = "ISIC_0034321.jpg"
    original = real_data / "ham10000-increment" / "images" / name
    assert read_originals(layout.images)[name] == original.read_bytes()


@pytest.mark.slow
def test_the_whole_set_and_the_increment_are_10208_images(real_data: Path, layout) -> None:
    params = params_for(real_data / "ham10000", real_data / "ham10000-increment")
    refresh_sources(params, layout)
    started = time.monotonic()
    assert refresh_sources(params, layout) is False
    assert time.monotonic() - started < 3
    ingest.run(params, layout)
    assert json.loads(layout.manifest.read_text())["num_images"] == 10208
