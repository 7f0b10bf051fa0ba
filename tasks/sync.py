"""What a run in a clean clone takes and leaves: the commit, the data by DVC, its record.

Tried again is what may go through a moment later; a wrong name, or data that are not there, is not.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from components import repository
from components.errors import ParamsError, SourceError
from components.repository import TransferError
from tasks.dvc_command import dvc_command


def _may_help(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransferError)


_OVER_NETWORK: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": _may_help,
}


@task(name="clone", task_run_name="clone {ref}", **_OVER_NETWORK)
def clone(url: str, ref: str, record_on: str | None, workspace: Path) -> str:
    """Clone `url` at `ref`, with the last record on the branch `record_on`; return the commit."""
    commit = repository.clone(url, ref, workspace)
    repository.check_same_code(workspace)
    get_run_logger().info("%s is commit %s", ref, commit[:12])
    if record_on is not None and not repository.take_record(workspace, record_on):
        get_run_logger().info("nothing is recorded on %s yet: every stage runs", record_on)
    return commit


@task(name="pull", task_run_name="pull", **_OVER_NETWORK)
def pull(workspace: Path, remote: str | None, cache: Path | None) -> None:
    """Take the data and results that `dvc.lock` names from the remote.

    Raises
    ------
    ParamsError
        There is no such remote.
    SourceError
        The remote lacks something that `dvc.lock` names.
    TransferError
        The remote cannot be reached.
    """
    _check_remote(workspace, remote)
    if cache is not None:
        _dvc(workspace, "cache", "dir", "--local", str(cache.resolve()))
    # Missing is allowed for the stages that have not run yet; what is recorded is checked below.
    _dvc(workspace, "pull", "-q", "--allow-missing", *_of(remote))
    missing = _missing(workspace)
    if missing:
        raise SourceError(
            f"dvc.lock names what the remote has not: {', '.join(missing)}",
            where=f"DVC remote {remote or '(the default one)'}",
            fix="`dvc push` it from where it was made; or remove its stages from dvc.lock, and "
            "they run again",
        )


@task(name="push", task_run_name="push", **_OVER_NETWORK)
def push(workspace: Path, remote: str | None) -> None:
    """Put the data and results that `dvc.lock` names on the remote.

    Raises
    ------
    TransferError
        The remote cannot be reached.
    """
    _dvc(workspace, "push", "-q", *_of(remote))


@task(name="record", task_run_name="record on {branch}", **_OVER_NETWORK)
def record(workspace: Path, branch: str, message: str) -> str | None:
    """Commit `dvc.lock`, the split's ledger and the like on `branch`; return the commit."""
    commit = repository.write_record(workspace, branch, message)
    get_run_logger().info("%s", f"commit {commit[:12]}" if commit else "nothing new to record")
    return commit


def has_own_cache(workspace: Path) -> bool:
    """Tell whether the configuration of DVC names a cache outside of the workspace."""
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        folder = repo.config["cache"].get("dir")
    return folder is not None and not Path(folder).resolve().is_relative_to(workspace.resolve())


def _check_remote(workspace: Path, remote: str | None) -> None:
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        known, default = sorted(repo.config["remote"]), repo.config["core"].get("remote")
    if (remote or default) not in known:
        raise ParamsError(
            f"there is no DVC remote {remote!r}" if remote else "there is no default DVC remote",
            where=f"{workspace / '.dvc' / 'config'} (it names: {', '.join(known) or 'none'})",
            fix="`dvc remote add -d NAME s3://…`, and commit .dvc/config",
        )


def _missing(workspace: Path) -> list[str]:
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        outputs = [out for out in repo.index.outs if out.hash_info and out.use_cache]
        return sorted(
            Path(out.fs_path).relative_to(workspace).as_posix() for out in outputs if not out.exists
        )


def _of(remote: str | None) -> list[str]:
    return ["--remote", remote] if remote else []


def _dvc(workspace: Path, *arguments: str) -> None:
    done = subprocess.run(
        dvc_command(*arguments),
        cwd=workspace,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-10:]
        raise TransferError(
            f"dvc {arguments[0]} failed: " + "\n".join(last),
            where="the DVC remote",
            fix="check the network, the remote's address and the credentials",
        )
