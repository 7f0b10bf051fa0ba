"""Withdrawn images leave the next snapshot and the caches; where they have been is named."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.dataset import ingest, measure, pack
from components.dataset.content_cache import ContentCache
from components.dataset.fingerprint import refresh_sources
from components.dataset.measures import measures_version
from components.dataset.withdraw import withdraw, withdrawal_text
from components.dataset.withdrawn import read_withdrawn
from components.errors import SourceError, TableError
from components.layout import Layout
from components.params import Params, load_params
from components.recipes import compose_recipe
from components.registry.versions import open_registry
from components.tables import read_table, write_table

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


def publish(layout: Layout, parts: dict[str, str]) -> str:
    """Put a model into the registry that has used these images; return its version."""
    labels = read_table(layout.labels).set_index("image_id")
    table = labels.loc[list(parts)].assign(split=list(parts.values()), group_id="g").reset_index()
    out = io.BytesIO()
    table.to_parquet(out, index=False)
    registry = open_registry(load_params(layout.params).registry, layout)
    return registry.publish({"exposure.parquet": out.getvalue()}, content_id=str(sorted(parts)))


def test_a_lesion_leaves_the_next_snapshot_with_all_its_images(layout: Layout) -> None:
    found = withdraw(layout, [], ["L1"], [])
    assert found["images"] == ["A1", "A2"]
    assert retake(layout) == ["A3", "A4"]
    assert sorted(path.stem for path in layout.images.iterdir()) == ["A3", "A4"]


def test_pictures_that_arrive_later_are_not_taken_either(layout: Layout, ham, tmp_path) -> None:
    withdraw(layout, ["A3"], ["L1"], [])
    later = ham(
        [("B1", "L1", "mel"), ("B2", "M2", "nv"), ("B3", "M3", "nv")], "later",
        pictures={"B1": 8, "B2": 2, "B3": 9},  # B2 has the bytes of A3
    )  # fmt: skip
    use(layout, tmp_path / "ham", later)
    assert ids(layout) == ["A4", "B3"]


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
    splits = {"image_id": ["A1", "A2", "A3"], "split": ["validation", "train", "test"]}
    write_table(pd.DataFrame(splits), layout.splits)
    (layout.run("resnet18", 0)).mkdir(parents=True)
    (layout.run("resnet18", 0) / "model.json").write_text("{}")
    found = withdraw(layout, ["A1", "A2"], [], [])
    assert found["models"] == [
        {"model": "ham10000", "version": used, "alias": "champion", "images": {"train": ["A1"]}}
    ]
    assert found["runs"] == [
        {"run": "runs/resnet18-0", "images": {"train": ["A2"], "validation": ["A1"]}}
    ]
    text = withdrawal_text(found)
    assert f"ham10000 {used} champion: 1 in train" in text
    assert "runs/resnet18-0: 1 in train, 1 in validation" in text


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


def test_snapshots_that_dvc_still_holds_are_named_with_their_commits(layout: Layout) -> None:
    def run(*command: str) -> None:
        subprocess.run(command, cwd=layout.root, check=True, capture_output=True)

    run(sys.executable, "-m", "dvc", "commit", "--force", "ingest")
    run(sys.executable, "-m", "dvc", "remote", "add", "-d", "store", "s3://bucket/dvc")
    run("git", "add", "-A")
    run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "one")
    found = withdraw(layout, ["A1"], [], [])
    remains = found["remains"]
    assert [entry["images"] for entry in remains["snapshots"]] == [["A1"]]
    assert len(remains["snapshots"][0]["commits"]) == 1
    assert remains["remotes"] == ["store s3://bucket/dvc"]
    assert json.loads(json.dumps(found)) == found
    text = withdrawal_text(found)
    assert remains["snapshots"][0]["commits"][0] in text
    assert "dvc gc --workspace --cloud" in text
    assert withdraw(layout, [], ["L3"], [])["remains"]["snapshots"][0]["images"] == ["A4"]
