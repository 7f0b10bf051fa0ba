"""Withdrawn images leave the next snapshot and the caches; where they have been is named."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.dataset import ingest, measure, pack
from components.dataset.catch_up import forget_listed
from components.dataset.content_cache import ContentCache
from components.dataset.fingerprint import refresh_sources
from components.dataset.measures import measures_version
from components.dataset.originals import list_originals
from components.dataset.withdraw import withdraw, withdrawal_text
from components.dataset.withdrawn import read_withdrawn
from components.errors import SourceError, TableError
from components.layout import Layout
from components.params import Params, load_params
from components.recipes import compose_recipe
from components.registry.versions import open_registry
from components.splitting.ledger import append
from components.tables import read_table, write_table
from tests.originals import read_originals

ROWS = [("A1", "L1", "mel"), ("A2", "L1", "mel"), ("A3", "L2", "nv"), ("A4", "L3", "nv")]


@pytest.fixture
def layout(workspace: Path, ham) -> Layout:
    """Return a workspace with a snapshot of four images of three lesions."""
    layout = Layout(workspace)
    use(layout, ham(ROWS))
    return layout


def use(layout: Layout, *folders: Path) -> Params:
    text, _ = compose_recipe(layout, "ham10000", sources=[str(folder) for folder in folders])
    layout.params.write_text(text, encoding="utf-8")
    params = load_params(layout.params)
    refresh_sources(params, layout)
    ingest.run(params, layout)
    return params


def ids(layout: Layout) -> list[str]:
    return list(read_table(layout.labels)["image_id"])


def retake(layout: Layout) -> list[str]:
    ingest.run(load_params(layout.params), layout)
    return ids(layout)


def publish(layout: Layout, parts: dict[str, str], inherited: dict[str, str] | None = None) -> str:
    """Put a model into the registry that has used these images; return its version.

    `inherited` are those of the model that it started from.
    """
    labels = read_table(layout.labels).set_index("image_id")
    files: dict[str, bytes | Path] = {}
    for name, used in (("exposure", parts), ("inherited", inherited or {})):
        table = labels.loc[list(used)].assign(split=list(used.values()), group_id="g")
        out = io.BytesIO()
        table.reset_index().to_parquet(out, index=False)
        files[f"{name}.parquet"] = out.getvalue()
    registry = open_registry(load_params(layout.params).registry, layout)
    return registry.publish(files, content_id=str((sorted(parts), inherited)))


def train_run(layout: Layout, origin: str, **splits: str) -> None:
    """Put a training into `runs/` that started from `origin`, and the split into its place."""
    table = {"image_id": list(splits), "split": list(splits.values())}
    write_table(pd.DataFrame(table), layout.splits)
    (layout.run("resnet18", 0)).mkdir(parents=True)
    document = {"provenance": {"weights": {"origin": origin, "sha256": "", "our_model": True}}}
    (layout.run("resnet18", 0) / "model.json").write_text(json.dumps(document))


def test_a_lesion_leaves_the_next_snapshot_with_all_its_images(layout: Layout) -> None:
    found = withdraw(layout, [], ["L1"], [])
    assert found["images"] == ["A1", "A2"]
    assert retake(layout) == ["A3", "A4"]
    assert list(list_originals(layout.images)) == ["A3", "A4"]


def test_pictures_that_arrive_later_are_not_taken_either(layout: Layout, ham, tmp_path) -> None:
    withdraw(layout, ["A3"], ["L1"], [])
    later = ham(
        [("B1", "L1", "mel"), ("B2", "M2", "nv"), ("B3", "M3", "nv")], "later",
        pictures={"B1": 8, "B2": 2, "B3": 9},  # B2 has the bytes of A3
    )  # fmt: skip
    use(layout, tmp_path / "ham", later)
    assert ids(layout) == ["A4", "B3"]


def test_a_picture_that_was_left_out_for_its_diagnosis_can_be_withdrawn(
    layout: Layout, ham
) -> None:
    """The manifest remembers it; and with another diagnosis it could be taken later."""
    ham([*ROWS, ("A5", "L5", "scc")])
    text = layout.params.read_text().replace("\ndiagnoses:", "\ndiagnoses:\n  names: {scc: null}")
    layout.params.write_text(text)
    refresh_sources(load_params(layout.params), layout)
    assert "A5" not in retake(layout) and '"A5"' in layout.manifest.read_text()
    assert withdraw(layout, ["A5"], [], [])["images"] == ["A5"]
    retake(layout)
    assert '"A5"' not in layout.manifest.read_text()
    later = [("B5", "M5", "nv"), ("B6", "M6", "nv")]
    use(layout, ham(later, "later", pictures={"B5": 4, "B6": 9}))
    assert ids(layout) == ["B6"]


def test_other_pictures_of_a_withdrawn_lesion_under_a_new_name_are_pointed_out(
    layout: Layout, ham, tmp_path, capsys
) -> None:
    withdraw(layout, [], ["L2"], [])
    later = ham([("B1", "M9", "nv"), ("B2", "M9", "nv")], "later", pictures={"B1": 2, "B2": 50})
    use(layout, tmp_path / "ham", later)
    assert ids(layout) == ["A1", "A2", "A4", "B2"]
    assert "lesionflow withdraw --lesion M9" in capsys.readouterr().out
    retake(layout)
    withdraw(layout, [], ["M9"], [])
    capsys.readouterr()
    assert retake(layout) == ["A1", "A2", "A4"]
    assert "came again" not in capsys.readouterr().out


def test_the_list_only_grows_and_says_everything_once(layout: Layout) -> None:
    first = withdraw(layout, ["A4"], [], [])
    text = layout.withdrawn.read_text()
    assert first["num_new"] == 2
    assert text.startswith("column,value\nimage_id,A4\nsha256,")
    again = withdraw(layout, ["A4"], [], [])
    assert (again["num_new"], again["images"]) == (0, ["A4"])
    withdraw(layout, ["A1"], [], [])
    assert layout.withdrawn.read_text().startswith(text)


def test_ids_that_look_like_numbers_stay_what_they_are(layout: Layout) -> None:
    layout.withdrawn.write_text("column,value\npatient_id,NA\n")
    assert read_withdrawn(layout.withdrawn).ids["patient_id"] == {"NA"}
    layout.withdrawn.write_text("column,value\npatient_id,0012\n")
    listed = read_withdrawn(layout.withdrawn)
    rows = pd.DataFrame(
        {"image_id": ["a", "b"], "lesion_id": None, "patient_id": ["12", "0012"]}, dtype="str"
    )
    assert list(listed.allows(rows)) == [True, False]


def test_models_and_runs_that_used_an_image_are_named_with_its_part(layout: Layout) -> None:
    used = publish(layout, {"A1": "train", "A3": "test"})
    publish(layout, {"A3": "train", "A4": "test"})
    registry = open_registry(load_params(layout.params).registry, layout)
    registry.promote(used, None, {})
    train_run(layout, "imagenet", A1="validation", A2="train", A3="test")
    found = withdraw(layout, ["A1", "A2"], [], [])
    assert found["models"] == [
        {
            "model": "ham10000", "version": used, "alias": "champion",
            "images": {"train": ["A1"]}, "inherited": {},
        }
    ]  # fmt: skip
    assert found["runs"] == [
        {
            "run": "runs/resnet18-0",
            "images": {"train": ["A2"], "validation": ["A1"]}, "inherited": {},
        }
    ]  # fmt: skip
    text = withdrawal_text(found)
    assert f"ham10000 {used} champion: 1 in train" in text
    assert "runs/resnet18-0: 1 in train, 1 in validation" in text


def test_models_that_started_from_one_that_saw_the_image_are_named_too(layout: Layout) -> None:
    publish(layout, {"A3": "train"})
    heir = publish(layout, {"A3": "train", "A1": "test"}, inherited={"A1": "train"})
    (found,) = withdraw(layout, ["A1"], [], [])["models"]
    assert (found["version"], found["images"]) == (heir, {"test": ["A1"]})
    assert found["inherited"] == {"train": ["A1"]}


@pytest.mark.parametrize(
    "origin",
    [
        "registry:{number}",
        "registry/ham10000/versions/{version}",
        "registry/ham10000/versions/{version}/model.safetensors",
    ],
)
def test_a_run_that_started_from_a_model_that_saw_the_image_is_named_too(
    layout: Layout, origin: str
) -> None:
    version = publish(layout, {"A1": "validation"}, inherited={"A2": "train"})
    origin = origin.format(number=int(version.removeprefix("v")), version=version)
    train_run(layout, origin, A3="train")
    found = withdraw(layout, ["A1", "A2"], [], [])
    assert found["runs"] == [
        {
            "run": "runs/resnet18-0",
            "images": {},
            "inherited": {"train": ["A2"], "validation": ["A1"]},
        }
    ]
    text = withdrawal_text(found)
    assert "runs/resnet18-0: 1 in train, 1 in validation of a model that it started from" in text


@pytest.mark.parametrize("there", [True, False], ids=["in DVC's cache", "gone"])
def test_a_run_is_named_by_the_split_that_it_was_given(layout: Layout, there: bool) -> None:
    """The nightly ingest has made another split since; nothing was trained on that one."""
    train_run(layout, "imagenet", A1="train", A3="test")
    version = hashlib.md5(layout.splits.read_bytes()).hexdigest()
    given = {"path": "data/splits.parquet", "hash": "md5", "md5": version}
    lock = {"schema": "2.0", "stages": {"train@resnet18-0": {"cmd": "x", "deps": [given]}}}
    (layout.root / "dvc.lock").write_text(json.dumps(lock), encoding="utf-8")
    if there:
        cached = layout.root / ".dvc" / "cache" / "files" / "md5" / version[:2] / version[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(layout.splits, cached)
    without = pd.DataFrame({"image_id": ["A3"], "split": ["test"]})
    write_table(without, layout.splits)
    found = withdraw(layout, ["A1"], [], [])
    assert [run["images"] for run in found["runs"]] == ([{"train": ["A1"]}] if there else [])
    said = "runs/resnet18-0: 1 in train" if there else "its split is not here any more"
    assert said in withdrawal_text(found)


def test_a_run_whose_start_cannot_be_looked_into_is_named(layout: Layout) -> None:
    train_run(layout, "registry:7", A3="train")
    found = withdraw(layout, ["A1"], [], [])
    assert found["runs"] == []
    assert "runs/resnet18-0" in found["runs_not_looked_into"]
    assert "perhaps runs/resnet18-0, started from registry:7: it is a model" in withdrawal_text(
        found
    )


def test_an_image_that_only_an_old_model_knows_can_be_withdrawn(layout: Layout, ham) -> None:
    version = publish(layout, {"A4": "train"})
    use(layout, ham(ROWS[:3], "fewer"))
    found = withdraw(layout, [], ["L3"], [])
    assert found["images"] == ["A4"]
    assert [entry["version"] for entry in found["models"]] == [version]


def test_what_was_computed_from_the_image_leaves_the_caches(layout: Layout) -> None:
    params = load_params(layout.params)
    measure.run(params, layout)
    pack.run(params, layout)
    quality = read_table(layout.quality).set_index("image_id")
    sha256 = quality["sha256"]
    store = ContentCache(layout.cache / measure.CACHE_FILE, measures_version())
    assert set(store.get(sha256)) == set(sha256)
    found = withdraw(layout, ["A1"], [], [])
    assert found["num_cache_entries"] >= 2
    assert set(store.get(sha256)) == set(sha256.drop("A1"))
    packed = [np.load(path, mmap_mode="r") for path in layout.cache.rglob("images.npy")]
    assert packed == []


def pack_archive(folder: Path, kind: str) -> Path:
    """Return an archive of `folder` that has to be unpacked to be read."""
    if kind == "tar.gz":
        return Path(shutil.make_archive(str(folder), "gztar", folder))
    inner = shutil.make_archive(str(folder.parent / "inner" / "images"), "zip", folder)
    return Path(shutil.make_archive(str(folder), "zip", Path(inner).parent))


def anywhere_in(folder: Path, data: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and data in path.read_bytes()]


@pytest.mark.parametrize("kind", ["tar.gz", "zip in a zip"])
def test_pictures_unpacked_from_an_archive_leave_the_caches(
    workspace: Path, ham, jpeg, kind: str
) -> None:
    layout = Layout(workspace)
    use(layout, pack_archive(ham(ROWS), kind))
    unpacked = layout.cache / "unpacked"
    assert any(unpacked.iterdir())
    found = withdraw(layout, ["A1"], [], [])
    assert found["cache_folders"] == [".lesionflow/cache/unpacked"]
    assert not unpacked.exists()
    assert "models that saw them: .lesionflow/cache/unpacked" in withdrawal_text(found)
    assert retake(layout) == ["A2", "A3", "A4"]  # it unpacks the archive once more
    assert not unpacked.exists()
    assert anywhere_in(layout.state, jpeg(0)) == []


def test_whatever_may_hold_a_picture_leaves_the_caches(layout: Layout, jpeg) -> None:
    folders = [
        layout.cache / "downloads",
        layout.cache / "snapshots",
        layout.half_done_snapshot,
        layout.failed_validation_report,
        layout.half_done_validation_report,
    ]
    for folder in folders:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a.jpg").write_bytes(jpeg(0))
    found = withdraw(layout, ["A1"], [], [])
    names = [folder.relative_to(layout.root).as_posix() for folder in folders]
    assert sorted(found["cache_folders"]) == sorted(names)
    assert anywhere_in(layout.state, jpeg(0)) == []
    assert not any(folder.exists() for folder in folders)


def test_what_killed_searches_left_leaves_the_caches(layout: Layout) -> None:
    left = [layout.cache / name for name in ("pairs-1-a/descriptors.npy", "tmpab12/points.npy")]
    left += [layout.cache / f".neighbours.npz.{name}.npz" for name in ("1-a", "ab12")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"descriptors")
    found = withdraw(layout, ["A1"], [], [])
    assert anywhere_in(layout.cache, b"descriptors") == []
    assert ".lesionflow/cache/pairs-1-a" in found["cache_folders"]


def fill_caches(layout: Layout) -> Path:
    """Measure and pack what there is; return the shelf of the packed set."""
    params = load_params(layout.params)
    measure.run(params, layout)
    pack.run(params, layout)
    (shelf,) = layout.packed_shelves.iterdir()
    return shelf


def test_packed_pixels_without_an_index_leave_the_caches(layout: Layout) -> None:
    shelf = fill_caches(layout)
    half = layout.packed_shelves / "half"
    half.mkdir()
    (half / "images.npy").write_bytes(b"a withdrawn picture")
    (shelf / ".images.npy.1-a.npy").write_bytes(b"a withdrawn picture")
    layout.withdrawn.write_text("column,value\nimage_id,Z9\n")
    found = withdraw(layout, ["Z9"], [], [])  # no picture here: the whole set stays
    assert anywhere_in(layout.cache, b"a withdrawn picture") == []
    assert ".lesionflow/cache/packed/half" in found["cache_folders"]
    assert (shelf / "images.npy").is_file()


def test_a_damaged_cache_is_removed_and_all_the_rest_is_done(layout: Layout) -> None:
    shelf = fill_caches(layout)
    measures = layout.cache / measure.CACHE_FILE
    journal = measures.with_name(f"{measures.name}-wal")
    for path in (measures, journal, shelf / "index.parquet"):
        path.unlink(missing_ok=True)
        path.write_bytes(b"damaged" * 1000)
    (layout.cache / "downloads").mkdir()
    storage = layout.root / load_params(layout.params).storage
    (storage / "runs" / "resnet18-0").mkdir(parents=True)
    found = withdraw(layout, ["A1"], [], [])
    gone = [measures, shelf, layout.cache / "downloads", storage / "runs"]
    assert not any(path.exists() for path in [journal, *gone])
    named = {path.relative_to(layout.root).as_posix() for path in gone}
    assert named == set(found["cache_folders"])
    assert ".lesionflow/cache/measures.sqlite" in withdrawal_text(found)


def pull(layout: Layout, *lines: str) -> None:
    """Put the list in place that was written in another clone."""
    layout.withdrawn.write_text("\n".join(["column,value", *lines, ""]))


def set_storage(layout: Layout, storage: str) -> None:
    text = layout.params.read_text()
    at = text.index("storage:")
    line = text[at:].splitlines()[0]
    layout.params.write_text(text.replace(line, f"storage: {storage}"))


def leave_training(storage: Path) -> Path:
    folder = storage / "runs" / "resnet18-0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def known_measures(layout: Layout) -> set[str]:
    """Return the images whose measurements the caches hold."""
    by_id = read_table(layout.quality).set_index("sha256")["image_id"]
    store = ContentCache(layout.cache / measure.CACHE_FILE, measures_version())
    return set(by_id[list(store.get(by_id.index))])


@pytest.mark.parametrize("by", [forget_listed, retake], ids=["before a run", "ingest"])
def test_what_another_clone_has_withdrawn_leaves_the_caches_here(
    layout: Layout, by: Callable[[Layout], object], capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = fill_caches(layout)
    training = leave_training(layout.root / load_params(layout.params).storage)
    by(layout)
    assert known_measures(layout) == {"A1", "A2", "A3", "A4"}
    assert training.is_dir()
    sha256 = read_table(layout.labels).set_index("image_id")["sha256"]["A3"]
    pull(layout, "lesion_id,L1", f"sha256,{sha256}")
    by(layout)
    assert known_measures(layout) == {"A4"}
    assert not shelf.exists()
    assert not training.exists()
    assert "withdrawn in another clone: 4 entries removed" in capsys.readouterr().out
    training.mkdir(parents=True)  # a new one, without them
    by(layout)
    assert training.is_dir()


def test_a_withdrawal_is_not_forgotten_twice_here(layout: Layout) -> None:
    withdraw(layout, ["A1"], [], [])
    training = leave_training(layout.root / load_params(layout.params).storage)
    forget_listed(layout)
    assert training.is_dir()


def test_caches_filled_again_at_an_earlier_commit_forget_again(layout: Layout) -> None:
    pull(layout, "image_id,A1")
    forget_listed(layout)
    pull(layout)
    forget_listed(layout)
    fill_caches(layout)
    pull(layout, "image_id,A1")
    forget_listed(layout)
    assert known_measures(layout) == {"A2", "A3", "A4"}


def test_a_storage_that_others_may_train_with_is_cleared_where_it_was_withdrawn_only(
    layout: Layout, tmp_path: Path
) -> None:
    set_storage(layout, str(tmp_path / "shared"))
    training = leave_training(tmp_path / "shared")
    pull(layout, "image_id,A1")
    forget_listed(layout)
    assert training.is_dir()
    withdraw(layout, ["A1"], [], [])
    assert not training.exists()


def test_withdrawing_again_forgets_all_that_is_listed(layout: Layout) -> None:
    fill_caches(layout)
    labels = read_table(layout.labels).set_index("image_id")
    pull(layout, "image_id,A1", f"sha256,{labels['sha256']['A1']}")
    layout.labels.unlink()  # nothing but the list says what A1's bytes were
    withdraw(layout, ["A1"], [], [])
    assert known_measures(layout) == {"A2", "A3", "A4"}
    assert list(layout.packed_shelves.iterdir()) == []


def test_what_only_the_ledger_knows_can_be_withdrawn(layout: Layout, ham) -> None:
    labels = read_table(layout.labels)
    append(layout.split_ledger, labels[["image_id"]].assign(split="train"), labels)
    version = commit(layout, "")
    use(layout, ham(ROWS[:3], "fewer"))  # the source with A4 is dropped
    found = withdraw(layout, [], ["L3"], [])
    assert found["images"] == ["A4"]
    assert found["remains"]["snapshots"][0]["commits"] == [version]
    hashes = labels.set_index("image_id")["sha256"]
    assert read_withdrawn(layout.withdrawn).sha256 == {hashes["A4"]}


def test_what_is_still_to_come_is_withdrawn_by_its_line(layout: Layout, ham, tmp_path) -> None:
    with pytest.raises(SourceError, match="add the line `patient_id,P9`"):
        withdraw(layout, [], [], ["P9"])
    with layout.withdrawn.open("a") as listed:
        listed.write("lesion_id,M9\n")
    assert withdraw(layout, [], ["M9"], [])["images"] == []
    use(layout, tmp_path / "ham", ham([("B1", "M9", "mel")], "later", pictures={"B1": 9}))
    assert ids(layout) == ["A1", "A2", "A3", "A4"]


def test_models_and_checkpoints_that_trainings_left_go(layout: Layout) -> None:
    storage = layout.root / load_params(layout.params).storage
    for folder in (storage / "runs" / "resnet18-0" / "identity", layout.trained / "resnet18-0"):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    found = withdraw(layout, ["A1"], [], [])
    left = [".lesionflow/training", ".lesionflow/storage/runs"]
    assert found["cache_folders"] == left
    assert f"models that saw them: {', '.join(left)}" in withdrawal_text(found)
    assert not list(layout.state.rglob("*.safetensors"))


def test_a_storage_that_cannot_be_reached_is_named(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    set_storage(layout, "s3://lesions/storage")
    found = withdraw(layout, ["A1"], [], [])
    assert list(found["remains"]["cache_folders"]) == ["s3://lesions/storage/runs"]
    assert "s3://lesions/storage/runs, which could not be removed" in withdrawal_text(found)


def test_a_folder_that_cannot_be_removed_is_named(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    (layout.cache / "downloads").mkdir(parents=True)

    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr("components.dataset.sources.copies.shutil.rmtree", refuse)
    found = withdraw(layout, ["A1"], [], [])
    assert found["cache_folders"] == []
    assert found["remains"]["cache_folders"] == {".lesionflow/cache/downloads": "Permission denied"}
    remains = withdrawal_text(found).split("They remain in:")[1]
    assert ".lesionflow/cache/downloads, which could not be removed (Permission denied)" in remains


def test_one_name_of_a_joined_lesion_withdraws_it_under_both(layout: Layout, ham, tmp_path) -> None:
    new = ham([("B1", "M1", "mel"), ("B2", "M1", "mel")], "new", pictures={"B1": 0, "B2": 9})
    use(layout, tmp_path / "ham", new)  # B1 is A1 again, so M1 is L1
    found = withdraw(layout, [], ["M1"], [])
    assert found["withdrawn"]["lesion_id"] == ["L1", "M1"]
    assert found["images"] == ["A1", "A2", "B2"]
    assert retake(layout) == ["A3", "A4"]


def test_a_misspelled_id_withdraws_nothing(layout: Layout) -> None:
    before = layout.withdrawn.read_bytes()
    for image, lesion in ((["A1", "A9"], []), (["A1"], ["L9"])):
        with pytest.raises(SourceError, match="no image has the"):
            withdraw(layout, image, lesion, [])
    with pytest.raises(SourceError, match="nothing to withdraw"):
        withdraw(layout, [], [], [])
    assert layout.withdrawn.read_bytes() == before


def test_a_clone_without_the_data_can_withdraw_too(layout: Layout) -> None:
    for path in layout.raw.rglob("*"):
        if path.is_file():
            path.unlink()
    assert withdraw(layout, ["A9"], [], [])["images"] == ["A9"]
    assert "A9" in read_withdrawn(layout.withdrawn).ids["image_id"]


def test_a_damaged_list_is_refused(layout: Layout) -> None:
    layout.withdrawn.write_text("column,value\nlesionid,L1\n")
    with pytest.raises(TableError, match="'lesionid' is no kind of id"):
        ingest.run(load_params(layout.params), layout)
    layout.withdrawn.unlink()
    with pytest.raises(TableError, match="no such table"):
        ingest.run(load_params(layout.params), layout)


def shell(layout: Layout, *command: str) -> str:
    done = subprocess.run(command, cwd=layout.root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(layout: Layout, remote: str) -> str:
    """Commit the snapshot; return the commit's abbreviation."""
    shell(layout, "dvc", "commit", "--force", "ingest")
    if remote:
        shell(layout, "dvc", "remote", "add", "--force", "-d", "store", remote)
    shell(layout, "git", "add", "-A")
    shell(
        layout, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "1"
    )
    return shell(layout, "git", "log", "-1", "--format=%h")


def test_snapshots_that_dvc_still_holds_are_named_with_their_commits(layout: Layout) -> None:
    commit(layout, "s3://bucket/dvc")
    found = withdraw(layout, ["A1"], [], [])
    remains = found["remains"]
    assert [entry["images"] for entry in remains["snapshots"]] == [["A1"]]
    assert len(remains["snapshots"][0]["commits"]) == 1
    assert remains["snapshots_not_looked_into"] == []
    assert remains["remotes"] == ["store s3://bucket/dvc"]
    assert json.loads(json.dumps(found)) == found
    text = withdrawal_text(found)
    assert remains["snapshots"][0]["commits"][0] in text
    assert "dvc gc --workspace --cloud" in text
    assert withdraw(layout, [], ["L3"], [])["remains"]["snapshots"][0]["images"] == ["A4"]


def test_snapshots_that_only_the_remote_has_are_named_until_they_are_fetched(
    layout: Layout, ham, tmp_path
) -> None:
    first = commit(layout, str(tmp_path / "remote"))
    shell(layout, "dvc", "push", "ingest")
    use(layout, ham(ROWS[1:], "fewer"))
    second = commit(layout, "")
    shutil.rmtree(layout.root / ".dvc" / "cache")
    shell(layout, "dvc", "commit", "--force", "ingest")  # a clone has pulled the last one only
    found = withdraw(layout, ["A4"], [], [])
    remains = found["remains"]
    assert [entry["commits"] for entry in remains["snapshots"]] == [[second]]
    assert [entry["commits"] for entry in remains["snapshots_not_looked_into"]] == [[first]]
    text = withdrawal_text(found)
    assert "perhaps 1 snapshots that were not looked into" in text
    assert f"(commits: {first})" in text
    assert "`dvc fetch --all-commits ingest`" in text
    shell(layout, "dvc", "fetch", "--all-commits", "ingest")
    remains = withdraw(layout, ["A4"], [], [])["remains"]
    assert sorted(entry["commits"] for entry in remains["snapshots"]) == sorted([[first], [second]])
    assert remains["snapshots_not_looked_into"] == []


def test_an_image_that_had_another_id_in_an_old_snapshot_is_found_by_its_bytes(
    layout: Layout, ham
) -> None:
    first = commit(layout, "")
    renamed = ham([(f"new-{image_id}", *row) for image_id, *row in ROWS], "renamed")
    use(layout, renamed)
    second = commit(layout, "")
    remains = withdraw(layout, ["new-A4"], [], [])["remains"]
    found = {entry["commits"][0]: entry["images"] for entry in remains["snapshots"]}
    assert found == {first: ["A4"], second: ["new-A4"]}


def test_snapshots_of_the_earlier_form_are_looked_into(layout: Layout) -> None:
    """Their files lie one by one, and DVC's listing names them."""
    for name, data in read_originals(layout.images).items():
        (layout.images / name).write_bytes(data)
    for archive in layout.images.glob("*.zip"):
        archive.unlink()
    first = commit(layout, "")
    (version,) = (layout.root / ".dvc" / "cache").rglob("*.dir")
    labels = next(e for e in json.loads(version.read_text()) if e["relpath"] == "labels.parquet")
    (version.parent.parent / labels["md5"][:2] / labels["md5"][2:]).unlink()
    remains = withdraw(layout, ["A4"], [], [])["remains"]
    assert [(e["commits"], e["images"]) for e in remains["snapshots"]] == [([first], ["A4"])]
    assert remains["snapshots_not_looked_into"] == []


def test_a_snapshot_whose_labels_are_not_here_is_not_called_clean(layout: Layout, ham) -> None:
    commit(layout, "")
    (version,) = (layout.root / ".dvc" / "cache").rglob("*.dir")
    labels = next(e for e in json.loads(version.read_text()) if e["relpath"] == "labels.parquet")
    use(layout, ham(ROWS[1:], "fewer"))
    shell(layout, "git", "checkout", "-q", "--orphan", "other")  # no commit names it any more
    shell(layout, "git", "branch", "-D", "master")
    (version.parent.parent / labels["md5"][:2] / labels["md5"][2:]).unlink()
    found = withdraw(layout, ["A4"], [], [])
    (entry,) = found["remains"]["snapshots_not_looked_into"]
    assert (entry["version"], entry["commits"]) == (version.parent.name + version.name, [])
    assert "perhaps 1 snapshots that were not looked into" in withdrawal_text(found)


def test_without_a_remote_a_snapshot_that_is_not_here_has_to_be_looked_for(layout: Layout) -> None:
    commit(layout, "")
    shutil.rmtree(layout.root / ".dvc" / "cache")
    text = withdrawal_text(withdraw(layout, ["A4"], [], []))
    assert "no remote is configured: run the same command in the clone that made them" in text
