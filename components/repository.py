"""The Git repository that a run starts from, and the branch that it writes its record to.

The record is what the next run must know and what is small: `dvc.lock`, the split's ledger and
what else `RECORD` names. A commit of the record has the files of the commit that the run started
from, so that checking it out gives code, parameters and results that belong together. Withdrawn
stays what any of them withdraws: the commit, the record, or the repository's default branch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from components.atomic import write_text
from components.dataset.withdrawn import append_withdrawn, entries_of
from components.errors import LesionflowError, ParamsError

_WITHDRAWN = "data/withdrawn.csv"
RECORD = (
    "dvc.lock",
    "data/reference_profile.json",
    "data/sources.json",
    "data/split_ledger.csv",
    "data/test_uses.json",
    "data/weights.json",
    _WITHDRAWN,
)
"""What a run writes that belongs into Git."""
_CODE = ("components", "flows", "tasks")
_NETWORK_SECONDS = 600.0
_AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Lesionflow"), ("EMAIL", "lesionflow@localhost"))
}


class TransferError(LesionflowError):
    """Git or DVC did not get through to the other side: trying again may help."""


class RecordError(LesionflowError):
    """The branch of the record was moved by somebody else."""


def clone(repository: str, ref: str, folder: Path) -> str:
    """Clone `repository` into `folder` at `ref`: a branch, a tag or a commit.

    What its default branch withdraws is withdrawn there, too.
    What a clone that did not get through has left in `folder` is removed: it may be tried again.

    Returns
    -------
    str
        The commit.

    Raises
    ------
    TransferError
        The repository cannot be reached.
    ParamsError
        It has no such ref, or its URL holds a password.
    TableError
        Its list of what was withdrawn cannot be read.
    """
    _check_url(repository)
    was_there = folder.exists()
    try:
        _git_over_network(folder.parent, "clone", "--no-checkout", repository, str(folder))
    except BaseException:  # git itself cleans up, but not when it is killed after a time-out
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    commit = commit_of(folder, f"refs/remotes/origin/{ref}") or commit_of(folder, ref)
    if commit is None:
        raise ParamsError(
            f"there is no branch, tag or commit {ref!r}",
            where=repository,
            fix="correct the ref, or push it to the repository",
        )
    _git(folder, "checkout", "--quiet", "--detach", commit)
    _withdraw_all(folder)
    return commit


def take_record(folder: Path, branch: str) -> bool:
    """Put the last record on `branch` in place; return whether there is one.

    What it withdraws comes on top of what the clone does.
    """
    last = recorded_commit(folder, branch)
    if last is None:
        return False
    listed = _git(folder, "ls-tree", "-r", "--name-only", last, "--", *RECORD).splitlines()
    if not listed:
        return False
    _git(folder, "checkout", "--quiet", last, "--", *listed)
    _withdraw_all(folder)
    return "dvc.lock" in listed


def _withdraw_all(folder: Path) -> None:
    """Add to the list in place what the commit and the default branch withdraw.

    A commit from before a withdrawal, or a record, would take the pictures again.
    """
    listed = folder / _WITHDRAWN
    for commit in ("HEAD", "refs/remotes/origin/HEAD"):
        found = file_at(folder, commit, _WITHDRAWN)
        if found is not None and not listed.is_file():
            write_text(listed, found)
        elif found is not None:
            append_withdrawn(listed, entries_of(found, f"{_WITHDRAWN} of {commit}"))


def write_record(folder: Path, branch: str, message: str) -> str | None:
    """Commit the record on `branch` of the repository that `folder` is a clone of.

    Returns
    -------
    str or None
        The commit; None if nothing of the record changed.

    Raises
    ------
    RecordError
        The branch was moved while the run was at work.
    TransferError
        The repository cannot be reached.
    """
    head = _git(folder, "rev-parse", "HEAD")
    last = recorded_commit(folder, branch)
    _git(folder, "add", "--force", "--", *(name for name in RECORD if (folder / name).is_file()))
    tree = _git(folder, "write-tree")
    if last is not None and tree == _git(folder, "rev-parse", f"{last}^{{tree}}"):
        return None
    parents = [last] if last is not None else []
    if last is None or not _is_in(folder, head, last):
        parents.append(head)
    chosen = [option for parent in parents for option in ("-p", parent)]
    commit = _git(folder, "commit-tree", tree, *chosen, "-m", message)
    try:
        _git_over_network(folder, "push", "--quiet", "origin", f"{commit}:refs/heads/{branch}")
    except TransferError as error:
        if "rejected" not in error.what:
            raise
        raise RecordError(
            f"the branch {branch} was moved while this run was at work",
            where="the record of this run, whose data and models are pushed",
            fix="run it again: it finds what is done; let one run at a time record on a branch",
        ) from error
    return commit


def commit_of(folder: Path, name: str) -> str | None:
    """Return the commit that `name` (a branch, a tag, `HEAD`) stands for; None: there is none."""
    done = _run(
        folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
    )
    return done.stdout.strip() if done.returncode == 0 else None


def recorded_commit(folder: Path, branch: str) -> str | None:
    """Return the last record on `branch` that the clone knows, its own included."""
    return commit_of(folder, f"refs/remotes/origin/{branch}")


def file_at(folder: Path, commit: str, name: str) -> str | None:
    """Return the text of the file `name` as it is in `commit`; None if that has no such file."""
    found = _run(folder, "show", f"{commit}:{name}")
    return found.stdout if found.returncode == 0 else None


def is_changed(folder: Path, file: Path) -> bool:
    """Tell whether `file` of the clone is another one than the commit has."""
    return bool(_git(folder, "status", "--porcelain", "--ignored", "--", str(file)))


def check_same_code(folder: Path) -> None:
    """Check that the code of the clone is the code that runs here.

    The stages run the clone's files, but the flow and the promotion are those of this process.

    Raises
    ------
    ParamsError
        They differ.
    """
    here = Path(__file__).resolve().parents[1]
    differing = sorted(
        str(name)
        for part in _CODE
        for name in _python_files(here, part) | _python_files(folder, part)
        if _bytes(here / name) != _bytes(folder / name)
    )
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ParamsError(
            f"the code that runs here is not that of the commit: {', '.join(differing[:3])}{more}",
            where=str(here),
            fix="install the commit's code where this runs (a new image), or name another ref",
        )


def _python_files(root: Path, part: str) -> set[Path]:
    return {path.relative_to(root) for path in (root / part).rglob("*.py")}


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _check_url(repository: str) -> None:
    parts = urlsplit(repository)
    # A token may stand where the name of a user does: https://TOKEN@host/…
    if parts.password or (parts.scheme in ("http", "https") and parts.username):
        raise ParamsError(
            "the URL of the repository holds a password or token, which everybody would see",
            where="repository",
            fix="use SSH, or a credential helper of Git where the run works",
        )


def _is_in(folder: Path, commit: str, history: str) -> bool:
    return _run(folder, "merge-base", "--is-ancestor", commit, history).returncode == 0


def _git(folder: Path, *arguments: str) -> str:
    done = _run(folder, *arguments)
    done.check_returncode()
    return done.stdout.strip()


def _git_over_network(folder: Path, *arguments: str) -> None:
    try:
        done = _run(folder, *arguments, timeout=_NETWORK_SECONDS)
        trouble = done.stderr.strip() if done.returncode else None
    except subprocess.TimeoutExpired:
        trouble = f"not done after {_NETWORK_SECONDS:g} s"
    if trouble is not None:
        raise TransferError(
            f"git {arguments[0]} failed: {trouble}",
            where="the Git repository",
            fix="check its URL, the network, and that this machine may read (and write) it",
        )


def _run(
    folder: Path, *arguments: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    command = ["git", *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**_AUTHOR, **os.environ, "GIT_TERMINAL_PROMPT": "0"},  # nobody is there to type
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # ended as a whole: who fetches and unpacks writes into the folder
    ) as process:
        try:
            said, trouble = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, trouble)
