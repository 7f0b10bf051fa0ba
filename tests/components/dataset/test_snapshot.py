"""Sources make one snapshot: what is taken once, what is reported, what nobody decides silently."""

from __future__ import annotations

import errno
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from components.dataset import originals
from components.dataset.config import DiagnosesParams, SourceParams
from components.dataset.snapshot import Base, known_diagnoses, write_snapshot
from components.dataset.withdrawn import Withdrawn
from components.errors import ResourceError, SourceError, SplitError
from components.splitting.assign import assign
from components.splitting.config import SplitParams
from components.splitting.ledger import Ledger, append, read_ledger
from components.tables import LABEL_COLUMNS, PAIR_COLUMNS, QUARANTINE_COLUMNS, read_table
from tests.originals import read_originals, write_originals

Take = Callable[..., "Taken"]
NOTHING: frozenset[str] = frozenset()


class Taken:
    """A snapshot as it lies on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.labels = read_table(folder / "labels.parquet", LABEL_COLUMNS).set_index("image_id")

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def images(self) -> dict[str, bytes]:
        return read_originals(self.folder / "images")


def withdrawn(sha256: frozenset[str] = NOTHING, **ids: str) -> Withdrawn:
    columns = ("image_id", "lesion_id", "patient_id")
    return Withdrawn({c: frozenset({ids[c]} if c in ids else ()) for c in columns}, sha256)


def official(folder: Path) -> SourceParams:
    """Return a HAM10000-like folder as a source that is an official test set."""
    return SourceParams(kind="ham10000", uri=str(folder), options={"part": "test"})


@pytest.fixture
def take(tmp_path: Path, seven: DiagnosesParams) -> Take:
    """Return a function that makes a snapshot of HAM10000-like folders (or given sources)."""
    count = iter(range(100))

    def run(
        *sources: Path | SourceParams,
        without: Withdrawn | None = None,
        diagnoses: DiagnosesParams = seven,
        base: Base | None = None,
    ) -> Taken:
        listed = [
            source
            if isinstance(source, SourceParams)
            else SourceParams(kind="ham10000", uri=str(source))
            for source in sources
        ]
        folder = tmp_path / f"snapshot-{next(count)}"
        write_snapshot(
            [(source, f"fingerprint of {source.uri}") for source in listed],
            diagnoses,
            without or withdrawn(),
            folder,
            root=tmp_path,
            cache=tmp_path / "cache",
            base=base,
        )
        return Taken(folder)

    return run


def test_original_bytes_labels_and_manifest(ham, take, jpeg) -> None:
    taken = take(ham([("A1", "L1", "mel"), ("A2", "L2", "nv"), ("A3", "L3", "nv")]))
    assert taken.images()["A2.jpg"] == jpeg(1)
    assert list(taken.labels["source"].unique()) == ["ham"]
    assert taken.labels["sha256"].str.len().eq(64).all()
    manifest = taken.manifest
    assert (manifest["num_images"], manifest["synthetic"]) == (3, False)
    assert manifest["counts"] == {
        "akiec": 0, "bcc": 0, "bkl": 0, "df": 0, "mel": 1, "nv": 2, "vasc": 0
    }  # fmt: skip
    source = manifest["sources"][0]
    assert (source["licence"], source["num_images"]) == ("CC BY-NC 4.0", 3)
    assert "Tschandl" in source["attribution"]


def test_the_same_sources_give_the_same_bytes(ham, take) -> None:
    folder = ham([("A2", "L1", "mel"), ("A1", "L2", "nv")])
    assert take(folder).files() == take(folder).files()


def test_the_content_id_follows_pictures_and_labels(ham, take) -> None:
    rows = [("A1", "L1", "mel"), ("A2", "L2", "nv")]
    first = take(ham(rows)).manifest["content_id"]
    relabelled = take(ham([rows[0], ("A2", "L2", "bkl")])).manifest["content_id"]
    repainted = take(ham(rows, pictures={"A1": 0, "A2": 7})).manifest["content_id"]
    assert len({first, relabelled, repainted}) == 3
    assert take(ham(rows[::-1], pictures={"A1": 0, "A2": 1})).manifest["content_id"] == first


def test_what_is_new_is_added_to_what_was_there(ham, take) -> None:
    month1 = ham([("A1", "L1", "mel"), ("A2", "L2", "nv")], "month1")
    month2 = ham([("B1", "M1", "df")], "month2", pictures={"B1": 5})
    before, after = take(month1), take(month1, month2)
    assert list(after.labels.index) == ["A1", "A2", "B1"]
    pd.testing.assert_frame_equal(after.labels.loc[["A1", "A2"]], before.labels)
    assert [s["num_images"] for s in after.manifest["sources"]] == [2, 1]
    assert list(after.labels["source"]) == ["month1", "month1", "month2"]
    first, second = (name for name in after.files() if name.endswith(".zip"))
    assert first.startswith("images/month1+A1") and second.startswith("images/month2+B1")
    assert before.files()[first] == after.files()[first]


def test_bytes_seen_before_are_not_taken_twice(ham, take) -> None:
    old = ham([("A1", "L1", "mel"), ("A2", "L2", "nv")], "old")
    new = ham([("B1", "L1", "mel"), ("B2", "M2", "nv")], "new", pictures={"B1": 0, "B2": 9})
    taken = take(old, new)
    assert list(taken.labels.index) == ["A1", "A2", "B2"]
    assert "B1.jpg" not in taken.images()
    assert taken.manifest["seen_twice"] == [
        {
            "image_id": "B1", "source": "new", "same_as": "A1", "same_as_source": "old",
            "why": "the same bytes",
        }
    ]  # fmt: skip
    assert taken.manifest["label_conflicts"] == []


def test_a_source_listed_twice_adds_nothing(ham, take) -> None:
    folder = ham([("A1", "L1", "mel"), ("A2", "L2", "nv")])
    once, twice = take(folder), take(folder, folder)
    pd.testing.assert_frame_equal(once.labels, twice.labels)
    assert len(twice.manifest["seen_twice"]) == 2


def test_the_same_picture_with_another_diagnosis_is_a_conflict_with_both(ham, take) -> None:
    old = ham([("A1", "L1", "nv")], "old")
    new = ham([("B1", "L1", "mel")], "new", pictures={"B1": 0})
    taken = take(old, new)
    assert taken.labels["diagnosis"].to_dict() == {"A1": "nv"}
    assert taken.manifest["label_conflicts"] == [
        {
            "image_id": "A1", "diagnosis": "nv", "source": "old",
            "other_image_id": "B1", "other_diagnosis": "mel", "other_source": "new",
        }
    ]  # fmt: skip


def test_bytes_shared_by_two_lesion_ids_make_them_one_lesion(ham, take) -> None:
    """Or a lesion's other pictures would be split from the one that was not taken twice."""
    old = ham([("A1", "L1", "nv"), ("A2", "L1", "nv")], "old")
    new = ham(
        [("B1", "M1", "nv"), ("B2", "M1", "nv"), ("B3", "M2", "nv")], "new",
        pictures={"B1": 0, "B2": 8, "B3": 9},
    )  # fmt: skip
    newer = ham([("C1", "K1", "nv"), ("C2", "K1", "nv")], "newer", pictures={"C1": 8, "C2": 10})
    taken = take(old, new, newer)
    assert taken.labels["lesion_id"].to_dict() == {
        "A1": "L1", "A2": "L1", "B2": "L1", "B3": "M2", "C2": "L1"
    }  # fmt: skip
    assert taken.manifest["joined_ids"][0] == {
        "column": "lesion_id", "kept": "L1", "joined": "M1", "image_id": "A1"
    }  # fmt: skip


def test_a_lesion_id_that_the_first_source_lacked_is_filled_in(ham, take, jpeg, tmp_path) -> None:
    (tmp_path / "folders" / "nv").mkdir(parents=True)
    (tmp_path / "folders" / "nv" / "x.jpg").write_bytes(jpeg(0))
    folders = SourceParams(kind="class_folders", uri="folders")
    taken = take(folders, ham([("A1", "L1", "nv"), ("A2", "L1", "nv")]))
    assert taken.labels["lesion_id"].to_dict() == {"A2": "L1", "nv__x": "L1"}


def test_one_image_id_for_two_pictures_needs_a_prefix(ham, take) -> None:
    old = ham([("A1", "L1", "nv")], "old")
    new = ham([("A1", "M1", "mel")], "new", pictures={"A1": 7})
    with pytest.raises(SourceError) as error:
        take(old, new)
    assert "A1 (from old)" in error.value.what
    assert "prefix: new-" in error.value.fix
    other = SourceParams(kind="ham10000", uri=str(new), options={"prefix": "new-"})
    assert list(take(old, other).labels.index) == ["A1", "new-A1"]


def test_ids_that_two_sources_share_are_counted_or_told_apart(ham, take) -> None:
    old = ham([("A1", "1", "nv"), ("A2", "2", "nv")], "old")
    new = ham([("B1", "1", "nv"), ("B2", "", "nv")], "new", pictures={"B1": 8, "B2": 9})
    assert take(old, new).manifest["shared_ids"] == {"lesion_id": 1, "patient_id": 0}
    other = SourceParams(kind="ham10000", uri=str(new), options={"group_prefix": "n-"})
    taken = take(old, other)
    assert taken.manifest["shared_ids"]["lesion_id"] == 0
    assert taken.labels["lesion_id"].dropna().to_dict() == {"A1": "1", "A2": "2", "B1": "n-1"}


def test_the_same_bytes_twice_within_a_source_stay_two_images(ham, take) -> None:
    taken = take(ham([("A1", "L1", "nv"), ("A2", "L2", "mel")], pictures={"A1": 3, "A2": 3}))
    assert list(taken.labels.index) == ["A1", "A2"]
    assert taken.labels["sha256"].nunique() == 1


BLACK = io.BytesIO()
Image.new("RGB", (90, 60)).save(BLACK, "JPEG")


@pytest.mark.parametrize("broken", [b"", b"404 Not Found", BLACK.getvalue()])
def test_equal_files_that_show_nothing_are_not_the_same_picture(ham, take, broken: bytes) -> None:
    folders = []
    for name, image, diagnosis in (("old", "A1", "mel"), ("new", "B1", "nv")):
        rows = [(image, f"L{image}", diagnosis), (f"{image}x", f"L{image}", diagnosis)]
        folder = ham(rows, name, pictures={image: 0, f"{image}x": len(folders) + 1})
        next(folder.rglob(f"{image}.jpg")).write_bytes(broken)
        folders.append(folder)
    taken = take(*folders)
    assert taken.labels["lesion_id"].to_dict() == {
        "A1": "LA1", "A1x": "LA1", "B1": "LB1", "B1x": "LB1"
    }  # fmt: skip
    assert taken.images()["B1.jpg"] == broken
    assert taken.manifest["joined_ids"] == taken.manifest["label_conflicts"] == []
    again = take(*folders, folders[1])
    assert again.labels.equals(taken.labels)


def test_an_absent_image_is_listed_and_can_arrive_later(ham, take) -> None:
    rows = [("A1", "L1", "nv"), ("A2", "L1", "nv")]
    old = ham(rows, "old", pictures={"A1": 0})
    taken = take(old)
    assert taken.manifest["listed_but_absent"] == ["A2"]
    assert pd.isna(taken.labels["sha256"]["A2"])
    assert (taken.manifest["num_images"], taken.manifest["num_absent"]) == (2, 1)
    complete = take(old, ham(rows, "new"))
    assert complete.manifest["listed_but_absent"] == []
    assert "A2.jpg" in complete.images()


def test_broken_files_are_copied_as_they_are(ham, take) -> None:
    folder = ham([("A1", "L1", "nv"), ("A2", "L1", "nv")])
    next(folder.rglob("A1.jpg")).write_bytes(b"no image")
    assert take(folder).images()["A1.jpg"] == b"no image"


def test_given_parts_are_marked_in_the_source(take, tmp_path, jpeg, ham) -> None:
    for number, name in enumerate(("train/nv/1.jpg", "test/nv/2.jpg")):
        (tmp_path / "given" / name).parent.mkdir(parents=True)
        (tmp_path / "given" / name).write_bytes(jpeg(number))
    taken = take(SourceParams(kind="class_folders", uri="given"))
    assert set(taken.labels["source"]) == {"given:train", "given:test"}
    assert taken.manifest["sources"][0]["num_images"] == 2
    whole = official(ham([("A1", "L1", "nv")]))
    assert list(take(whole).labels["source"]) == ["ham:test"]


def test_a_picture_that_a_later_official_test_set_has_too_is_marked_as_test(ham, take) -> None:
    """It is not taken twice; without the mark the split would deal it like any other."""
    rows = [("A1", "L1", "nv"), ("A2", "L2", "mel")]
    old, challenge = ham(rows, "old"), ham(
        [("B1", "M1", "nv"), ("B2", "M2", "mel")], "challenge", pictures={"B1": 0, "B2": 9}
    )  # fmt: skip
    taken = take(old, official(challenge))
    marked = {"A1": "old:test", "A2": "old", "B2": "challenge:test"}
    assert taken.labels["source"].to_dict() == marked
    assert [source["num_images"] for source in taken.manifest["sources"]] == [2, 1]
    again = take(old, official(challenge), ham(rows, "copy"))
    assert again.labels["source"].to_dict() == marked
    assert take(official(challenge), old).labels["source"].to_dict() == {
        "A2": "old", "B1": "challenge:test", "B2": "challenge:test"
    }  # fmt: skip


def test_an_official_test_set_that_arrives_after_it_was_trained_on_is_refused(
    ham, take, tmp_path
) -> None:
    rows = [(f"A{number:02d}", f"L{number}", "nv") for number in range(10)]
    old = ham(rows, "old")
    challenge = ham(
        [(f"B{number:02d}", f"M{number}", "nv") for number in range(10)],
        "challenge",
        pictures={f"B{number:02d}": number for number in range(10)},
    )
    pairs = pd.DataFrame(columns=list(PAIR_COLUMNS))
    quarantine = pd.DataFrame(columns=list(QUARANTINE_COLUMNS))
    first = take(old).labels.reset_index()
    splits = assign(first, pairs, quarantine, Ledger.empty(), SplitParams(), seed=0)
    num_seen = int((splits["split"] != "test").sum())
    assert append(tmp_path / "ledger.csv", splits, first) == 10
    both = take(old, official(challenge)).labels.reset_index()
    with pytest.raises(SplitError, match=f"{num_seen} images of the given test set were trained"):
        assign(
            both,
            pairs,
            quarantine,
            read_ledger(tmp_path / "ledger.csv"),
            SplitParams(official_test=True),
            seed=0,
        )


# --- diagnoses ------------------------------------------------------------------------------------


def labels_with(*diagnoses: str | None) -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id": [f"A{i}" for i in range(len(diagnoses))], "diagnosis": diagnoses}
    )


def test_spellings_are_mapped_onto_classes_and_null_leaves_out() -> None:
    diagnoses = DiagnosesParams(
        classes=("mel", "nv"), malignant=("mel",), names={"Nevus": "nv", "UNK": None, "": None}
    )
    labels, left_out = known_diagnoses(
        labels_with("MEL", "nevus", "unk", "nv", None), diagnoses, where="x"
    )
    assert labels["diagnosis"].to_dict() == {0: "mel", 1: "nv", 3: "nv"}
    assert left_out == {"": 1, "unk": 1}


def test_an_unknown_diagnosis_is_named_with_an_image_and_the_mapping() -> None:
    diagnoses = DiagnosesParams(classes=("mel", "nv"), malignant=("mel",))
    with pytest.raises(SourceError) as error:
        known_diagnoses(labels_with("mel", "scc", "scc", None), diagnoses, where="folder")
    assert "'scc' (2 images, such as A1)" in error.value.what
    assert "'' (1 image, such as A3)" in error.value.what
    assert "diagnoses.names" in error.value.fix


@pytest.fixture
def without_scc(seven: DiagnosesParams) -> DiagnosesParams:
    return seven.model_copy(update={"names": {"SCC": None, "": None}})


def conflict(taken: tuple[str, str, str], other: tuple[str, str, str]) -> dict[str, str]:
    names = ("image_id", "diagnosis", "source")
    return dict(zip(names, taken, strict=True)) | {
        f"other_{name}": value for name, value in zip(names, other, strict=True)
    }


def test_a_picture_that_another_source_leaves_out_is_a_conflict_in_any_order(
    ham, take, without_scc
) -> None:
    old = ham([("A1", "L1", "nv"), ("A2", "L2", "mel")], "old")
    new = ham(
        [("B1", "M1", "Scc"), ("B2", "M2", "scc"), ("B3", "M3", "df")], "new",
        pictures={"B1": 0, "B2": 8, "B3": 9},
    )  # fmt: skip
    expected = conflict(("A1", "nv", "old"), ("B1", "Scc", "new"))
    for sources in ((old, new), (new, old)):
        taken = take(*sources, diagnoses=without_scc)
        assert taken.manifest["label_conflicts"] == [expected]
        assert list(taken.labels.index) == ["A1", "A2", "B3"]
        assert not {"B1.jpg", "B2.jpg"} & set(taken.images())


def test_a_picture_that_its_own_source_leaves_out_too_is_a_conflict(ham, take, without_scc) -> None:
    folder = ham(
        [("A1", "L1", "nv"), ("A2", "L2", "scc"), ("A3", "L3", "nv")],
        pictures={"A1": 3, "A2": 3, "A3": 4},
    )
    assert take(folder, diagnoses=without_scc).manifest["label_conflicts"] == [
        conflict(("A1", "nv", "ham"), ("A2", "scc", "ham"))
    ]


def test_an_absent_picture_is_told_by_its_id(ham, take, without_scc) -> None:
    old = ham([("A1", "L1", "nv"), ("A2", "L2", "nv")], "old")
    new = ham([("A1", "L1", "scc")], "new", pictures={})
    (new / "other.jpg").write_bytes(next(old.rglob("A2.jpg")).read_bytes())
    expected = [conflict(("A1", "nv", "old"), ("A1", "scc", "new"))]
    for sources in ((old, new), (new, old)):
        taken = take(*sources, diagnoses=without_scc)
        assert taken.manifest["label_conflicts"] == expected


def test_no_diagnosis_other_pictures_and_files_that_show_nothing_contradict_nothing(
    ham, take, without_scc
) -> None:
    old = ham([("A1", "L1", "nv"), ("A2", "L2", "nv")], "old", pictures={"A1": 0, "A2": 1})
    new = ham(
        [("B1", "M1", ""), ("B2", "M2", "scc"), ("B3", "M3", "scc")], "new",
        pictures={"B1": 0, "B2": 1, "B3": 9},
    )  # fmt: skip
    for name in ("A2", "B2"):
        next((old if name == "A2" else new).rglob(f"{name}.jpg")).write_bytes(BLACK.getvalue())
    taken = take(old, new, diagnoses=without_scc)
    assert taken.manifest["label_conflicts"] == []
    assert taken.labels.equals(take(old, diagnoses=without_scc).labels)


def test_an_image_id_that_is_left_out_with_other_bytes_needs_a_prefix(
    ham, take, without_scc
) -> None:
    """Whether it is the same picture stored anew, with another diagnosis, only a person knows."""
    old = ham([("A1", "L1", "nv")], "old")
    new = ham([("A1", "M1", "scc")], "new", pictures={"A1": 7})
    for first, second in ((old, new), (new, old)):
        with pytest.raises(SourceError) as error:
            take(first, second, diagnoses=without_scc)
        assert f"A1 (from {first.name})" in error.value.what
        assert f"prefix: {second.name}-" in error.value.fix
    other = SourceParams(kind="ham10000", uri=str(new), options={"prefix": "new-"})
    assert take(old, other, diagnoses=without_scc).manifest["label_conflicts"] == []


# --- withdrawal --------------------------------------------------------------------------------


def test_what_was_withdrawn_is_not_taken(ham, take) -> None:
    folder = ham([("A1", "L1", "nv"), ("A2", "L1", "nv"), ("A3", "L2", "nv")])
    taken = take(folder)
    by_lesion = take(folder, without=withdrawn(lesion_id="L1"))
    assert list(by_lesion.labels.index) == ["A3"]
    assert len(by_lesion.files()) == 3  # labels, manifest, one archive
    assert set(by_lesion.images()) == {"A3.jpg"}
    assert by_lesion.manifest["sources"][0]["num_withdrawn"] == 2
    by_bytes = take(folder, without=withdrawn(frozenset({taken.labels["sha256"]["A2"]})))
    assert list(by_bytes.labels.index) == ["A1", "A3"]
    assert "A2.jpg" not in by_bytes.images()


# --- the last snapshot in the place of its sources ------------------------------------------------


@pytest.fixture(params=["an archive each", "some in an archive", "all in one"])
def sizes_of_archives(request: pytest.FixtureRequest, monkeypatch, jpeg) -> None:
    """Let archives hold as many images as the parameter says."""
    sizes = {"an archive each": 1, "some in an archive": 2 * len(jpeg(0)), "all in one": 1 << 30}
    monkeypatch.setattr(originals, "ARCHIVE_BYTES", sizes[request.param])


@pytest.mark.usefixtures("sizes_of_archives")
def test_the_last_snapshot_and_what_is_new_is_the_same_as_all_sources(ham, take) -> None:
    old = ham(
        [("A2", "L1", "nv"), ("A1", "L2", "mel"), ("A3", "L3", "df")], "old",
        pictures={"A2": 0, "A1": 1, "Z": 5},
    )  # fmt: skip
    new = ham([("B1", "M1", "nv"), ("B2", "M1", "nv")], "new", pictures={"B1": 1, "B2": 9})
    newer = ham(
        [("C1", "L1", "bkl"), ("C2", "K", "nv"), ("A3", "L3", "df")], "newer",
        pictures={"C1": 0, "C2": 9, "A3": 12},
    )  # fmt: skip
    whole = take(old, official(new), newer)
    assert len(whole.manifest["seen_twice"]) == 4
    base = Base(take(old, official(new)).folder, 2)
    for folder in (old, new):
        (folder / "HAM10000_metadata.csv").unlink()
    again = take(old, official(new), newer, base=base)
    assert again.manifest == whole.manifest
    assert again.files() == whole.files()


@pytest.mark.usefixtures("sizes_of_archives")
def test_withdrawing_works_without_the_sources(ham, take) -> None:
    folder = ham([("A1", "L1", "nv"), ("A2", "L2", "nv"), ("A3", "L2", "nv")])
    base = Base(take(folder).folder, 1)
    gone = withdrawn(image_id="A2")
    assert take(folder, without=gone, base=base).files() == take(folder, without=gone).files()


def test_the_last_snapshot_remembers_what_was_left_out(ham, take, without_scc) -> None:
    old = ham(
        [("A1", "L1", "scc"), ("A2", "L2", "scc"), ("A3", "L3", "mel")], "old",
        pictures={"A1": 0, "A2": 1, "A3": 1},
    )  # fmt: skip
    new = ham([("B1", "M1", "nv")], "new", pictures={"B1": 0})
    whole = take(old, new, diagnoses=without_scc)
    assert whole.manifest["label_conflicts"] == [
        conflict(("B1", "nv", "new"), ("A1", "scc", "old")),
        conflict(("A3", "mel", "old"), ("A2", "scc", "old")),
    ]
    base = Base(take(old, diagnoses=without_scc).folder, 1)
    again = Base(take(old, new, diagnoses=without_scc).folder, 2)
    gone = withdrawn(lesion_id="L1")
    without = take(old, new, diagnoses=without_scc, without=gone)
    assert [note["image_id"] for note in without.manifest["label_conflicts"]] == ["A3"]
    assert "A1" not in (without.folder / "manifest.json").read_text()
    (old / "HAM10000_metadata.csv").unlink()
    assert take(old, new, diagnoses=without_scc, base=base).files() == whole.files()
    assert take(old, new, diagnoses=without_scc, base=again).files() == whole.files()
    later = take(old, new, diagnoses=without_scc, base=again, without=gone)
    assert later.manifest["label_conflicts"] == without.manifest["label_conflicts"]
    assert "A1" not in (later.folder / "manifest.json").read_text()


def test_a_snapshot_that_somebody_changed_is_no_base(ham, take) -> None:
    folder = ham([("A1", "L1", "nv"), ("A2", "L2", "nv")])
    base = Base(take(folder).folder, 1)
    write_originals(base.folder / "images", {"A1.jpg": b"other"})
    with pytest.raises(SourceError, match="A1 is not the image that was taken"):
        take(folder, base=base)


def test_a_full_disk_is_one_clear_error(ham, take, monkeypatch) -> None:
    folder = ham([("A1", "L1", "nv"), ("A2", "L2", "nv")])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(ResourceError, match="no space left"):
        take(folder)
