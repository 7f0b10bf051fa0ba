"""The stage as DVC runs it: messages survive, and the data are had back from DVC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from components.dataset.fingerprint import refresh_sources
from components.dataset.originals import list_originals
from components.errors import SourceError
from components.layout import Layout
from components.params import load_params, read_yaml
from components.stage import read_stage_error
from tests.originals import read_originals

ROWS = [("A1", "L1", "mel"), ("A2", "L2", "nv")]


def dvc(workspace: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=workspace,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=check,
    )


def use(workspace: Path, *folders: Path) -> Layout:
    """Put the recipe ham10000 in place with these sources and look at them."""
    from components.atomic import write_text
    from components.recipes import compose_recipe

    layout = Layout(workspace)
    text, _ = compose_recipe(layout, "ham10000", sources=[str(folder) for folder in folders])
    write_text(layout.params, text)
    refresh_sources(load_params(layout.params), layout)
    return layout


def test_an_error_survives_dvc_with_its_code(workspace: Path, ham, jpeg) -> None:
    folder = ham(ROWS)
    layout = use(workspace, folder)
    next(folder.rglob("A1.jpg")).write_bytes(jpeg(9))
    done = dvc(workspace, "repro", "ingest", check=False)
    assert done.returncode != 0
    left = read_stage_error(layout.stage_error("ingest"))
    assert left is not None
    assert (left["type"], left["exit_code"]) == ("SourceError", 2)
    assert "changed after it was looked at" in left["message"]


def test_an_ingest_that_fails_leaves_the_last_snapshot(workspace: Path, ham, jpeg) -> None:
    folder = ham(ROWS)
    layout = use(workspace, folder)
    dvc(workspace, "repro", "ingest")
    before = {path: path.read_bytes() for path in layout.raw.rglob("*") if path.is_file()}
    next(folder.rglob("A1.jpg")).write_bytes(jpeg(9))
    refresh_sources(load_params(layout.params), layout)
    next(folder.rglob("A2.jpg")).write_bytes(jpeg(8))
    assert dvc(workspace, "repro", "ingest", check=False).returncode != 0
    after = {path: path.read_bytes() for path in layout.raw.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
def test_push_and_pull_give_the_same_bytes_and_old_snapshots_come_back(
    workspace: Path, ham, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    remote = str(tmp_path / "remote")
    if kind == "s3":
        request.getfixturevalue("s3")
        boto3.client("s3").create_bucket(Bucket="dvc-store")
        remote = "s3://dvc-store/project"

    def git(*arguments: str, cwd: Path = workspace) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True)

    first = ham(ROWS, "first")
    layout = use(workspace, first)
    dvc(workspace, "remote", "add", "-d", "store", remote)
    dvc(workspace, "repro", "ingest")
    dvc(workspace, "push", "ingest")
    git("add", "-A")
    git("commit", "-qm", "one")
    git("tag", "one")
    use(workspace, first, ham([("B1", "M1", "df")], "second", pictures={"B1": 7}))
    dvc(workspace, "repro", "ingest")
    dvc(workspace, "push", "ingest")
    git("add", "-A")
    git("commit", "-qm", "two")

    clone = tmp_path / "clone"
    git("clone", "-q", str(workspace), str(clone), cwd=tmp_path)
    dvc(clone, "pull", "data/raw")
    assert contents(clone / "data" / "raw") == contents(layout.raw)
    assert json.loads((clone / "data/raw/manifest.json").read_text())["num_images"] == 3
    git("checkout", "-q", "one", cwd=clone)
    dvc(clone, "pull", "data/raw")
    assert sorted(read_originals(clone / "data/raw/images")) == ["A1.jpg", "A2.jpg"]


def test_a_source_is_added_under_dvc_where_the_old_one_is_gone(workspace: Path, ham) -> None:
    """DVC has removed data/raw by the time that the stage runs: it is taken from DVC's cache."""
    folder = ham(ROWS)
    layout = use(workspace, folder)
    dvc(workspace, "repro", "ingest")
    folder.rename(folder.with_name("gone"))
    use(workspace, folder, ham([("B1", "M1", "df")], "new", pictures={"B1": 7}))
    dvc(workspace, "repro", "ingest")
    assert list(list_originals(layout.images)) == ["A1", "A2", "B1"]
    # An image is withdrawn, still without the source:
    (workspace / "data" / "withdrawn.csv").write_text("column,value\nimage_id,A2\n")
    dvc(workspace, "repro", "ingest")
    assert list(list_originals(layout.images)) == ["A1", "B1"]


def test_a_fresh_clone_without_data_needs_the_source(workspace: Path, ham) -> None:
    folder = ham(ROWS)
    layout = use(workspace, folder)
    folder.rename(folder.with_name("gone"))
    with pytest.raises(SourceError, match="does not exist"):
        refresh_sources(load_params(layout.params), layout)


def test_the_committed_list_of_sources_is_that_of_the_quickstart(workspace: Path) -> None:
    """So that a fresh clone starts with nothing to commit."""
    layout = Layout(workspace)
    assert read_yaml(layout.params)["recipe"] == "quickstart"
    assert refresh_sources(load_params(layout.params), layout) is False


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
