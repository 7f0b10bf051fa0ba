"""A clone is at the commit that was asked for; a record never loses what somebody else wrote."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from components.errors import ParamsError, TableError
from components.repository import (
    RecordError,
    TransferError,
    check_same_code,
    clone,
    take_record,
    write_record,
)


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@b", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a repository with the branch `main`: params.yaml and an empty ledger."""
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    (work / "params.yaml").write_text("seed: 0\n", encoding="utf-8")
    (work / "data" / "split_ledger.csv").write_text("image_id\n", encoding="utf-8")
    _git(work, "init", "-q", "-b", "main")
    _commit_and_push(work, tmp_path / "bare.git")
    return tmp_path / "bare.git"


def _commit_and_push(work: Path, bare: Path) -> None:
    if not bare.exists():
        _git(work.parent, "init", "-q", "--bare", "-b", "main", str(bare))
        _git(work, "remote", "add", "origin", str(bare))
    _git(work, "add", "-A")
    _git(work, "commit", "-q", "-m", "change")
    _git(work, "push", "-q", "origin", "main")


def _run(bare: Path, folder: Path, lock: str, branch: str = "record") -> str | None:
    """Clone, take the record, write `dvc.lock` as a run does, record."""
    clone(str(bare), "main", folder)
    take_record(folder, branch)
    (folder / "dvc.lock").write_text(lock, encoding="utf-8")
    return write_record(folder, branch, "run")


def test_a_branch_a_commit_and_nothing_else_can_be_cloned(bare: Path, tmp_path: Path) -> None:
    commit = clone(str(bare), "main", tmp_path / "by-branch")
    assert clone(str(bare), commit, tmp_path / "by-commit") == commit
    assert (tmp_path / "by-commit" / "params.yaml").read_text() == "seed: 0\n"
    with pytest.raises(ParamsError, match="no branch, tag or commit 'mian'"):
        clone(str(bare), "mian", tmp_path / "typo")


def test_what_cannot_be_reached_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="git clone failed"):
        clone(str(tmp_path / "nowhere"), "main", tmp_path / "clone")


def test_a_clone_that_hangs_leaves_nothing_in_the_way_of_the_next(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.repository._NETWORK_SECONDS", 3.0)
    folder = tmp_path / "clone"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls, and never answers
        url = f"git://127.0.0.1:{silent.getsockname()[1]}/x.git"
        with pytest.raises(TransferError, match="git clone failed: not done after 3 s"):
            clone(url, "main", folder)
    assert not folder.exists()
    clone(str(bare), "main", folder)
    assert (folder / "params.yaml").is_file()


def test_what_lay_there_before_a_clone_is_not_removed(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="already exists"):
        clone(str(bare), "main", tmp_path / "work")
    assert (tmp_path / "work" / "params.yaml").is_file()


@pytest.mark.parametrize("user", ["me:hunter2", "hunter2"], ids=["password", "token"])
def test_a_password_in_the_url_is_refused_and_not_repeated(tmp_path: Path, user: str) -> None:
    with pytest.raises(ParamsError, match="holds a password or token") as caught:
        clone(f"https://{user}@example.org/x.git", "main", tmp_path / "clone")
    assert "hunter2" not in str(caught.value)


def test_the_next_clone_has_the_record_and_the_newest_code(bare: Path, tmp_path: Path) -> None:
    assert _run(bare, tmp_path / "first", "one") is not None
    (tmp_path / "work" / "params.yaml").write_text("seed: 1\n", encoding="utf-8")
    _commit_and_push(tmp_path / "work", bare)
    head = clone(str(bare), "main", tmp_path / "second")
    assert take_record(tmp_path / "second", "record")
    assert (tmp_path / "second" / "dvc.lock").read_text() == "one"
    (tmp_path / "second" / "dvc.lock").write_text("two", encoding="utf-8")
    commit = write_record(tmp_path / "second", "record", "run")
    # What is recorded belongs to the code and the parameters that made it, and is below both.
    assert _git(bare, "show", f"{commit}:params.yaml") == "seed: 1"
    assert _git(bare, "show", f"{commit}:dvc.lock") == "two"
    assert head in _git(bare, "rev-list", "--parents", "-1", str(commit)).split()[1:]
    assert len(_git(bare, "rev-list", "--parents", "-1", str(commit)).split()) == 3


def test_the_record_can_stand_on_the_branch_that_is_cloned(bare: Path, tmp_path: Path) -> None:
    commit = _run(bare, tmp_path / "first", "one", branch="main")
    assert clone(str(bare), "main", tmp_path / "second") == commit


def test_what_own_weights_were_is_recorded(bare: Path, tmp_path: Path) -> None:
    clone(str(bare), "main", tmp_path / "first")
    weights = tmp_path / "first" / "data" / "weights.json"
    weights.write_text("first", encoding="utf-8")
    assert write_record(tmp_path / "first", "record", "run") is not None
    clone(str(bare), "main", tmp_path / "second")
    take_record(tmp_path / "second", "record")
    assert (tmp_path / "second" / "data" / "weights.json").read_text() == "first"


def _withdraw(work: Path, bare: Path, *images: str) -> None:
    lines = ["column,value", *(f"image_id,{image}" for image in images)]
    (work / "data" / "withdrawn.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    _commit_and_push(work, bare)


def _withdrawn_in(folder: Path) -> list[str]:
    listed = (folder / "data" / "withdrawn.csv").read_text(encoding="utf-8").splitlines()
    assert listed[0] == "column,value"
    return sorted(line.removeprefix("image_id,") for line in listed[1:])


def test_what_was_withdrawn_once_stays_so_for_a_ref_from_before(bare: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    _withdraw(work, bare, "a")
    _git(work, "push", "-q", "origin", "main:refs/heads/old")
    _withdraw(work, bare, "a", "b")
    clone(str(bare), "old", tmp_path / "by-default-branch")
    assert _withdrawn_in(tmp_path / "by-default-branch") == ["a", "b"]

    _run(bare, tmp_path / "first", "one")
    _withdraw(work, bare, "c")  # somebody wrote the list anew
    clone(str(bare), "old", tmp_path / "second")
    take_record(tmp_path / "second", "record")
    assert _withdrawn_in(tmp_path / "second") == ["a", "b", "c"]
    (tmp_path / "second" / "dvc.lock").write_text("two", encoding="utf-8")
    commit = write_record(tmp_path / "second", "record", "run")
    assert "image_id,c" in _git(bare, "show", f"{commit}:data/withdrawn.csv")


def test_a_record_from_before_a_withdrawal_does_not_undo_it(bare: Path, tmp_path: Path) -> None:
    _withdraw(tmp_path / "work", bare, "a")
    _run(bare, tmp_path / "first", "one")
    _withdraw(tmp_path / "work", bare, "a", "b")
    _git(bare, "symbolic-ref", "HEAD", "refs/heads/none")  # the ref's own list is enough
    clone(str(bare), "main", tmp_path / "second")
    take_record(tmp_path / "second", "record")
    assert _withdrawn_in(tmp_path / "second") == ["a", "b"]


def test_a_list_that_cannot_be_read_is_named(bare: Path, tmp_path: Path) -> None:
    """An empty list would take the pictures again."""
    (tmp_path / "work" / "data" / "withdrawn.csv").write_text("", encoding="utf-8")
    _commit_and_push(tmp_path / "work", bare)
    with pytest.raises(TableError, match="what was withdrawn cannot be read") as caught:
        clone(str(bare), "main", tmp_path / "clone")
    assert "data/withdrawn.csv" in caught.value.where


def test_nothing_new_is_no_commit(bare: Path, tmp_path: Path) -> None:
    assert _run(bare, tmp_path / "first", "one") is not None
    assert _run(bare, tmp_path / "second", "one") is None


def test_a_branch_that_was_moved_meanwhile_is_not_overwritten(bare: Path, tmp_path: Path) -> None:
    _run(bare, tmp_path / "first", "one")
    clone(str(bare), "main", tmp_path / "slow")
    theirs = _run(bare, tmp_path / "second", "two")
    (tmp_path / "slow" / "dvc.lock").write_text("three", encoding="utf-8")
    with pytest.raises(RecordError, match="moved while this run was at work"):
        write_record(tmp_path / "slow", "record", "run")
    assert _git(bare, "rev-parse", "record") == theirs


def test_code_that_is_not_the_commits_is_named(repo: Path, workspace: Path) -> None:
    check_same_code(workspace)
    changed = workspace / "components" / "layout.py"
    changed.write_text("# another version\n", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"components/layout\.py") as caught:
        check_same_code(workspace)
    assert caught.value.where == str(repo)
