"""What a clean clone pulls is what `dvc.lock` names, or an error that says what is missing.

What does not get through is tried again, and nothing else is.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prefect import Task, flow
from prefect.client.schemas.objects import State, TaskRun

from components.errors import ParamsError, SourceError
from components.repository import TransferError
from tasks import sync
from tasks.graph import read_graph
from tasks.sync import has_own_cache, pull, push

GRAPH = """
stages:
  first:
    cmd: cp data.txt kept.txt && cp data.txt made.txt
    deps: [data.txt]
    outs:
      - kept.txt
      - made.txt:
          cache: false
  second:
    cmd: cp made.txt last.txt
    deps: [made.txt]
    outs: [last.txt]
  third:
    cmd: cp last.txt never.txt
    deps: [last.txt]
    outs: [never.txt]
"""

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow(name="sync")
def _sync(workspace: Path, *, remote: str | None = None, cache: Path | None = None) -> None:
    pull(workspace, remote, cache)


@flow(name="leave")
def _leave(workspace: Path) -> None:
    push(workspace, None)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clean clone of a project in which all but its third stage ran and was pushed."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    (project / "data.txt").write_text("1", encoding="utf-8")
    (project / ".gitignore").write_text("/made.txt\n", encoding="utf-8")
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "remote", "add", "-q", "-d", "store", str(tmp_path / "store")],
        ["dvc", "repro", "-q", "second"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "-m", "all"],
    ):
        subprocess.run(command, cwd=project, check=True, capture_output=True)
    _leave(project)
    subprocess.run(["git", "clone", "-q", str(project), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def test_after_a_pull_only_what_never_ran_is_out_of_date(clone: Path, tmp_path: Path) -> None:
    _sync(clone, cache=tmp_path / "cache")
    assert (clone / "last.txt").read_text(encoding="utf-8") == "1"
    assert list((tmp_path / "cache").iterdir())
    graph = read_graph(clone)
    assert graph.stale == {"third"}
    assert graph.stages["first"].lost  # made.txt is not kept by DVC, and nothing needs it
    assert graph.to_do() == {"third"}


def test_a_cache_outside_of_the_clone_is_known_from_one_that_goes_with_it(clone: Path) -> None:
    config = clone / ".dvc" / "config"
    plain = config.read_text(encoding="utf-8")
    found = []
    for folder in ("", "[cache]\n    dir = ../mine\n", "[cache]\n    dir = ../../shared\n"):
        config.write_text(plain + folder, encoding="utf-8")
        found.append(has_own_cache(clone))
    assert found == [False, False, True]


def test_what_is_lost_is_made_again_when_something_needs_it(clone: Path) -> None:
    _sync(clone)
    (clone / "last.txt").unlink()
    assert read_graph(clone).to_do() == {"first", "second", "third"}
    assert read_graph(clone).to_do(["first"]) == {"first"}


def test_what_the_remote_has_not_is_named(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(SourceError, match=r"kept\.txt, last\.txt"):
        _sync(clone)


def test_why_dvc_failed_is_said(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").write_text("a file where a folder was", encoding="utf-8")
    subprocess.run(["dvc", "repro", "-q", "first"], cwd=clone, check=True)
    with pytest.raises(TransferError, match=r"dvc push failed: (?s:.*)Not a directory"):
        push.fn(clone, None)  # without the pauses of its retries


def test_a_remote_that_does_not_exist_is_refused(clone: Path) -> None:
    with pytest.raises(ParamsError, match="no DVC remote 'stroe'") as caught:
        _sync(clone, remote="stroe")
    assert "store" in caught.value.where


def _attempts(synced: Task[..., Any], *arguments: object, **options: int) -> int:
    """Run a task of ours that fails, without its pauses; return how often it was tried."""
    counted: list[int] = []

    def count(_: Task[..., Any], run: TaskRun, __: State[Any]) -> None:
        counted.append(run.run_count)

    impatient = synced.with_options(retry_delay_seconds=0, on_failure=[count], **options)

    @flow(name="fails")
    def fails() -> None:
        impatient(*arguments, return_state=True)

    fails()
    (times,) = counted
    return times


def test_what_does_not_get_through_is_tried_four_times_in_all(tmp_path: Path) -> None:
    nowhere = f"file://{tmp_path / 'nowhere.git'}"
    assert _attempts(sync.clone, nowhere, "main", None, tmp_path / "workspace") == 4


def test_the_other_transfers_are_tried_again_too(clone: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").write_text("a file where a folder was", encoding="utf-8")
    assert _attempts(pull, clone, None, None, retries=1) == 2
    subprocess.run(["dvc", "repro", "-q", "first"], cwd=clone, check=True)  # something to push
    assert _attempts(push, clone, None, retries=1) == 2
    shutil.rmtree(tmp_path / "project")
    assert _attempts(sync.record, clone, "record", "a run", retries=1) == 2


def test_what_would_fail_again_is_not_tried_again(clone: Path, tmp_path: Path) -> None:
    origin = f"file://{tmp_path / 'project'}"
    assert _attempts(sync.clone, origin, "mian", None, tmp_path / "workspace") == 1
    assert _attempts(pull, clone, "stroe", None) == 1
    hook = tmp_path / "project" / ".git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert _attempts(sync.record, clone, "record", "a run") == 1
