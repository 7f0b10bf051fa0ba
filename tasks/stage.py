"""One DVC stage as one Prefect task: brought up to date in a subprocess, watched line by line."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path

import psutil
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed

from components.cluster import lost
from components.errors import CheckFailedError, LesionflowError, ResourceError, in_one_line
from components.layout import Layout
from components.progress import Progress
from components.stage import BUG_EXIT_CODE, FLOW_PID, read_stage_error
from tasks.artifacts import ProgressArtifact
from tasks.dvc_command import dvc_command
from tasks.graph import Stage
from tasks.journal import note
from tasks.stage_artifacts import publish, publish_failure

_DVC_FAILED = "ERROR: failed to reproduce"  # the message of the stage, or of ours, says more
_COMMAND_ENDED = re.compile(re.escape(_DVC_FAILED) + r".* exited with (-?\d+)$")
_WITH_RUN = "ended with the run"
_running: dict[subprocess.Popen[bytes], str] = {}
_running_lock = threading.Lock()
_ended_with_run: set[subprocess.Popen[bytes]] = set()
_ending = threading.Lock()


class StageError(LesionflowError):
    """A stage failed; carries the message and the exit code that the stage left."""

    def __init__(self, stage: str, message: str, exit_code: int) -> None:
        super().__init__(message, where=stage, fix="")
        self.stage = stage
        self.code = exit_code

    def __str__(self) -> str:
        return f"stage {self.stage} failed: {self.what}"

    def __reduce__(self) -> tuple[object, ...]:
        return StageError, (self.stage, self.what, self.code)


@task(task_run_name="{stage.name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(
    stage: Stage, *, stale: bool, workspace: Path, cluster: Callable[[], Mapping[str, str]]
) -> State:
    """Bring one stage up to date; DVC decides whether that means work.

    Parameters
    ----------
    stage
        The stage, as DVC names it.
    stale
        False: DVC's status said that there is nothing to do, so nothing is started.
    workspace
        Folder that holds `dvc.yaml`.
    cluster
        Waits for the Ray cluster; returns the variables that take a training to it, on top of this
        process' own.

    Returns
    -------
    Its state: completed, cached, or cancelled if the stage was ended with its run.

    Raises
    ------
    StageError
        The stage failed; what it had done before is kept.
    """
    layout = Layout(workspace)
    if not stale:
        note(layout, "stage_cached", stage=stage.name)
        return Completed(name="Cached", message="nothing changed since the last run")
    logger = get_run_logger()
    logger.info("%s", _why(stage))
    environment = _way_to_cluster(stage, layout, cluster)
    note(layout, "stage_started", stage=stage.name, why=_why(stage))
    started = time.monotonic()
    layout.stage_error(stage.name).unlink(missing_ok=True)
    tail: deque[str] = deque(maxlen=30)
    progress = ProgressArtifact(stage.name)
    with _subprocess(stage.name, workspace, environment) as process:
        for line in map(str.rstrip, _lines(process)):
            seen = Progress.parse(line)
            if seen is not None:
                progress.update(seen)
                detail = f" · {seen.detail}" if seen.detail else ""
                logger.info("%s: %d/%d %s%s", seen.what, seen.done, seen.total, seen.unit, detail)
            elif line:
                tail.append(line)
                if not line.startswith(_DVC_FAILED):
                    logger.info("%s", line)
        code = process.wait()
        with_run = code != 0 and process in _ended_with_run
    ended = {"stage": stage.name, "seconds": round(time.monotonic() - started, 3)}
    if with_run:
        note(layout, "stage_failed", **ended, message=_WITH_RUN)
        return Cancelled(message=_WITH_RUN)
    if code != 0:
        _put_back(stage, layout, code)
        error = _stage_error(stage, layout, list(tail), code, {**os.environ, **environment})
        note(layout, "stage_failed", **ended, message=in_one_line(error.what))
        if error.code == CheckFailedError.exit_code:
            publish_failure(stage.kind, layout)
        raise error
    note(layout, "stage_ended", **ended)
    progress.finish()
    publish(stage.name, layout)
    return Completed(message="brought up to date")


def _way_to_cluster(
    stage: Stage, layout: Layout, cluster: Callable[[], Mapping[str, str]]
) -> Mapping[str, str]:
    if stage.kind != "train":
        return {}
    try:
        return cluster()
    except ResourceError as error:
        note(layout, "stage_failed", stage=stage.name, seconds=0.0, message=in_one_line(str(error)))
        raise StageError(stage.name, str(error), error.exit_code) from error


def _why(stage: Stage) -> str:
    if stage.lost:
        return "nothing has changed, but what it wrote is gone and is needed"
    if not stage.changes:
        return "stands below a change"
    more = f" and {len(stage.changes) - 3} more" if len(stage.changes) > 3 else ""
    return "; ".join(stage.changes[:3]) + more


def _put_back(stage: Stage, layout: Layout, code: int) -> None:
    """Put back what the stage wrote last, where its own process did not live to do so.

    Not where DVC itself was ended: the run was cancelled, and nobody waits for files.
    """
    if code < 0 or read_stage_error(layout.stage_error(stage.name)) is not None:
        return
    command = [sys.executable, "-m", "components.last_good", stage.name]
    done = subprocess.run(
        command, cwd=layout.root, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        get_run_logger().warning(
            "what %s last wrote cannot be put back; `dvc checkout --force %s` tries it again",
            stage.name,
            stage.name,
        )


def _stage_error(
    stage: Stage, layout: Layout, tail: list[str], code: int, environment: Mapping[str, str]
) -> StageError:
    left = read_stage_error(layout.stage_error(stage.name))
    if left is not None:
        return StageError(stage.name, str(left["message"]), int(left["exit_code"]))
    cluster = lost(environment.get("RAY_ADDRESS", "")) if stage.kind == "train" else None
    if cluster is not None:
        return StageError(stage.name, str(cluster), cluster.exit_code)
    last = "\n".join(tail[-10:])
    if os.strerror(errno.ENOSPC) in last:  # as DVC filled its cache
        full = ResourceError(
            "no space left on the disk",
            where=f"{layout.root}, or DVC's cache",
            fix="free some space and run the same command again",
        )
        return StageError(stage.name, str(full), full.exit_code)
    if _killed(tail):
        killed = ResourceError(
            "its process was killed (SIGKILL)",
            where="the machine that the flow runs on",
            fix="it probably ran out of memory: free some, or use a machine with more",
        )
        return StageError(stage.name, str(killed), killed.exit_code)
    return StageError(stage.name, f"DVC ended with exit code {code}:\n{last}", BUG_EXIT_CODE)


def _killed(tail: Iterable[str]) -> bool:
    """Whether DVC says of its command that it was killed: directly, or below a shell."""
    ends = filter(None, map(_COMMAND_ENDED.match, tail))
    return any(int(end[1]) in (-signal.SIGKILL, 128 + signal.SIGKILL) for end in ends)


@contextmanager
def _subprocess(
    stage: str, workspace: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `dvc repro` of one stage, in a session of its own so that it can be ended as a whole."""
    python = Path(sys.executable)
    own = {
        # The stages' `cmd: python …` must find this environment's interpreter.
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        FLOW_PID: str(os.getpid()),
    }
    process = subprocess.Popen(
        dvc_command("--wait-for-lock", "repro", "-q", "--single-item", stage),
        cwd=workspace,
        env={**os.environ, **own, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with _running_lock:
        _running[process] = stage
    try:
        yield process
    finally:
        end_process_group(process)
        with _running_lock:
            del _running[process]
            _ended_with_run.discard(process)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yield what a stage prints until DVC has ended, and end what that has left at work.

    Not until the pipe is closed: the workers of a stage that was killed have it, too.
    """
    assert process.stdout is not None
    begun = b""
    with process.stdout as pipe:
        while True:
            ended = process.poll() is not None
            if ended:
                end_process_group(process)
            ready = wait([pipe.fileno()], timeout=0 if ended else 0.5)
            # All that a pipe can hold: after the end, nothing more is waited for.
            read = os.read(pipe.fileno(), 1 << 20) if ready else b""
            *whole, begun = (begun + read).replace(b"\r", b"\n").split(b"\n")
            for line in whole:
                yield line.decode(errors="replace")
            if ended or (ready and not read):
                break
    yield begun.decode(errors="replace")


def end_process_group(process: subprocess.Popen[bytes], grace_seconds: float = 10) -> None:
    """End a stage and everything that it started: ask first, then kill.

    Its first process may have ended, and others of its group not.
    """
    process.poll()
    with _ending:  # who is ending already is not asked again by another thread
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, how)
            except ProcessLookupError:
                return
            # DVC ends at once, and the command that it runs may not.
            end = time.monotonic() + grace_seconds
            while _at_work(process.pid) and time.monotonic() < end:
                time.sleep(0.1)
            process.poll()


def _at_work(group: int) -> bool:
    """Whether a process of `group` has not ended; one that nobody has reaped yet has."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def end_running_stages() -> None:
    """End every stage that this process started (the flow was cancelled or interrupted)."""
    with _running_lock:
        running = list(_running)
        _ended_with_run.update(process for process in running if process.poll() is None)
    for process in running:
        end_process_group(process)


def running_stages() -> list[str]:
    """Return the names of the stages that this process has under way.

    Takes no lock, for a signal handler asks, too: the main thread may be what holds it.
    """
    return sorted(_running.values())
