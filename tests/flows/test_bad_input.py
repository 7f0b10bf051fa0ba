"""Bad input gives one message (what, where, what to do) and the right code, through every layer."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.graph import read_graph

Command = Callable[..., subprocess.CompletedProcess[str]]


def _folder_with(tmp_path: Path, metadata: str) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "HAM10000_metadata.csv").write_text(metadata, encoding="utf-8")
    (folder / "a.jpg").write_bytes(b"no picture")
    return folder


def _said(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_source_that_does_not_exist_leaves_the_recipe_as_it_was(
    workspace: Path, lesionflow: Command
) -> None:
    before = (workspace / "params.yaml").read_bytes()
    done = lesionflow(workspace, "use", "ham10000", "--source", "/nowhere/at/all")
    assert done.returncode == 2
    assert "/nowhere/at/all" in _said(done)
    assert (workspace / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("retrain", "-S", "training.epoch=3"), "training.epoch"),
        (("retrain", "-S", "pack.image_size=huge"), "pack.image_size"),
        (("use", "nothing"), "quickstart"),
        (("use", "quickstart", "--backbones", "resnet19"), "resnet19"),
        (("use", "quickstart", "--seeds", "one"), "whole numbers"),
        (("audit", "missing.csv", "--labels", "missing.csv"), "missing.csv"),
        (("score", "missing.csv"), "missing.csv"),
        (("score", "missing.csv", "--resamples", "0"), "--resamples"),
        (("score", "missing.csv", "--seed", "-1"), "--seed"),
        (("use", "quickstart", "--image-size", "-1"), "pack.image_size"),
        (("use", "quickstart", "--seeds", "-1"), "none below 0"),
        (("registry", "prune", "--keep", "0"), "--keep"),
        (("ui", "--port", "0"), "--port"),
        (("predict", "missing.jpg"), "no champion"),
        (("rollback",), "no earlier champion"),
        (("tune", "resnet19"), "unknown backbone 'resnet19'"),
        (("tune", "resnet50"), "add `resnet50: {}` there"),
    ],
)
def test_the_users_mistake_is_named_with_exit_code_2(
    workspace: Path, lesionflow: Command, arguments: tuple[str, ...], named: str
) -> None:
    done = lesionflow(workspace, *arguments)
    assert done.returncode == 2
    assert named in _said(done)
    assert done.stdout == ""


def test_outside_a_workspace_the_message_says_where_to_go(
    tmp_path: Path, lesionflow: Command
) -> None:
    done = lesionflow(tmp_path, "status")
    assert done.returncode == 2
    assert "dvc.yaml" in _said(done)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ("lesion_id,image_id,age\nL1,a,30\n", "dx"),
        (
            "lesion_id,image_id,dx,dx_type,age,sex,localization\nL1,a,wart,histo,30,male,back\n",
            "wart",
        ),
    ],
    ids=["missing column", "unknown diagnosis"],
)
def test_a_wrong_source_is_told_through_dvc_and_prefect(
    workspace: Path, tmp_path: Path, lesionflow: Command, metadata: str, named: str
) -> None:
    folder = _folder_with(tmp_path, metadata)
    used = lesionflow(workspace, "use", "ham10000", "--source", str(folder))
    done = lesionflow(workspace, "retrain") if used.returncode == 0 else used
    assert done.returncode == 2
    assert named in done.stderr.split("lesionflow:")[-1]


def test_more_cpus_than_the_machine_has_is_said_and_not_waited_for(
    finished_copy: Path, lesionflow: Command, edit_params: Callable[..., None]
) -> None:
    edit_params(finished_copy, backbones__resnet18={"cpus_per_worker": 4096.0})
    champion = finished_copy / "registry" / "quickstart-synthetic" / "aliases" / "champion.json"
    before = champion.read_bytes()
    done = lesionflow(finished_copy, "retrain")
    last = done.stderr.split("lesionflow:")[-1]
    assert done.returncode == 2
    assert "train@resnet18-0" in last
    assert "4096" in last
    assert champion.read_bytes() == before
    assert "train@mobilenet_v2-0" not in read_graph(finished_copy).stale


def test_a_failed_check_is_exit_code_1_and_names_the_images(
    finished_copy: Path, lesionflow: Command, edit_params: Callable[..., None]
) -> None:
    edit_params(finished_copy, validation__max_quarantined_share=0.0)
    done = lesionflow(finished_copy, "retrain")
    last = done.stderr.split("lesionflow:")[-1]
    assert done.returncode == 1
    assert "validate" in last
    assert "SYN_" in last
    assert "Traceback" not in done.stdout + done.stderr
    database = finished_copy / ".lesionflow" / "prefect" / "prefect.db"
    with sqlite3.connect(database) as connection:
        (shown,) = connection.execute(
            "select description from artifact where key = 'validation' order by created desc"
        ).fetchone()
    assert shown.startswith("This stopped the run.")
