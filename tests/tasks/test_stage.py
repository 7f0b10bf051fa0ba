"""Why DVC failed where the stage itself said nothing; what is left of a stage that was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prefect.logging import disable_run_logger

from components.errors import ResourceError
from components.stage import BUG_EXIT_CODE
from tasks.graph import Stage
from tasks.stage import StageError, run_stage

GRAPH = """
stages:
  make:
    cmd: COMMAND
    deps: [in.txt]
    outs: [out.txt]
"""
PROGRAM = """
from pathlib import Path
from prefect.logging import disable_run_logger
from tasks.graph import Stage
from tasks.stage import StageError, run_stage
with disable_run_logger():
    try:
        run_stage.fn(Stage("make", (), ()), stale=True, workspace=Path.cwd(), cluster=dict)
    except StageError as error:
        print(error.code, error)
"""
SHARED_GRAPH = """
stages:
  make:
    cmd: python make.py
    deps: [in.txt]
    outs: [out.txt]
"""
SHARED_OUT = """
import os
import time
from pathlib import Path
from components.dataset.workers import Workers
from components.stage import run_stage

def share(number):
    Path(f"busy-{number}").touch()
    if number == 0:
        while not Path("busy-1").exists() or Path("wait").exists():
            time.sleep(0.1)
        os.kill(int(Path("pid").read_text()), 9)  # the stage, as who runs out of memory
    time.sleep(600)

def work(params, layout):
    if Path("in.txt").read_text() == "1":
        Path("out.txt").write_text("good")
        return
    Path("pid").write_text(str(os.getpid()))
    Path("out.txt").write_text("half of it")
    with Workers(2) as workers:
        list(workers.map(share, [0, 1]))

if __name__ == "__main__":
    run_stage("make", work)
"""
MARK = "LESIONFLOW_TEST_OF_A_KILLED_STAGE"


def _workspace(folder: Path, command: str) -> Path:
    (folder / "dvc.yaml").write_text(GRAPH.replace("COMMAND", command), encoding="utf-8")
    (folder / "in.txt").write_text("1", encoding="utf-8")
    for start in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(start, cwd=folder, check=True, capture_output=True)
    return folder


def test_what_dvc_says_reaches_the_message(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, "echo it works; true")
    stage = Stage("make", (), ())
    with disable_run_logger(), pytest.raises(StageError) as caught:
        run_stage.fn(stage, stale=True, workspace=workspace, cluster=dict)
    assert caught.value.code == BUG_EXIT_CODE
    assert "it works" in str(caught.value)
    assert "output 'out.txt' does not exist" in str(caught.value)


@pytest.mark.parametrize("alone", ["", "setsid "])
def test_what_a_stage_leaves_running_holds_nothing_up_and_its_last_words_are_read(
    tmp_path: Path, alone: str
) -> None:
    left = f"{alone}sh -c 'echo $$ > pid; exec sleep 600' &"
    until = "while [ ! -s pid ]; do sleep 0.1; done"
    workspace = _workspace(tmp_path, f'"{left} {until}; seq 20000; echo the last words; exit 1"')
    began = time.monotonic()
    with disable_run_logger(), pytest.raises(StageError, match="the last words"):
        run_stage.fn(Stage("make", (), ()), stale=True, workspace=workspace, cluster=dict)
    assert time.monotonic() - began < 60
    sleeper = int((workspace / "pid").read_text(encoding="utf-8"))
    if alone:  # not of the stage's session: not ours to end
        os.kill(sleeper, signal.SIGKILL)
    else:
        assert not _runs(sleeper)


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_kill_that_a_shell_reports_is_a_kill(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, "exit 137")
    with disable_run_logger(), pytest.raises(StageError, match="its process was killed"):
        run_stage.fn(Stage("make", (), ()), stale=True, workspace=workspace, cluster=dict)


def test_a_full_cache_of_dvc_is_a_full_disk(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, "head -c 2000000 /dev/urandom > out.txt")
    cache = workspace / ".dvc" / "cache"
    cache.mkdir(exist_ok=True)
    small = f"mount -t tmpfs -o size=256k tmpfs {cache}"
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*alone, small], check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    done = subprocess.run(
        [*alone, f'{small} && exec "$0" -c "$1"', sys.executable, PROGRAM],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{ResourceError.exit_code} stage make failed: no space left on the disk" in done.stdout
    assert "DVC's cache" in done.stdout
    assert "to do: free some space" in done.stdout


class Killed:
    """A flow's process with one stage whose workers are busy; what it starts carries a mark."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._mark = uuid.uuid4().hex
        self._log = workspace.parent / f"{self._mark}.log"
        with self._log.open("wb") as log:
            self.flow = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                cwd=workspace,
                env=os.environ | {MARK: self._mark},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def processes(self) -> list[psutil.Process]:
        """Return what still runs of it."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            marked = process.environ().get(MARK) == self._mark
            return marked and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            return False

    def wait_until_busy(self) -> None:
        """Return when all workers have begun."""
        end = time.monotonic() + 60
        while not all((self.workspace / f"busy-{number}").exists() for number in (0, 1)):
            assert self.flow.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.1)


@pytest.fixture
def shared(_blank_workspace: Path, tmp_path: Path) -> Iterator[Killed]:
    """Yield a run of a stage that has succeeded once, and now shares its work out to workers."""
    workspace = Path(shutil.copytree(_blank_workspace, tmp_path / "workspace"))
    (workspace / "dvc.yaml").write_text(SHARED_GRAPH, encoding="utf-8")
    (workspace / "make.py").write_text(SHARED_OUT, encoding="utf-8")
    (workspace / "in.txt").write_text("1", encoding="utf-8")
    subprocess.run(["dvc", "repro", "-q"], cwd=workspace, check=True, capture_output=True)
    (workspace / "in.txt").write_text("2", encoding="utf-8")
    (workspace / "wait").touch()
    run = Killed(workspace)
    try:
        yield run
    finally:
        for process in run.processes():
            process.kill()
        run.flow.wait()


def test_a_stage_that_is_killed_while_its_workers_are_busy_fails_at_once_and_takes_them_along(
    shared: Killed,
) -> None:
    shared.wait_until_busy()
    (shared.workspace / "wait").unlink()
    shared.flow.wait(timeout=60)
    assert shared.processes() == []
    code, _, message = shared.said.partition(" ")
    assert int(code) == ResourceError.exit_code
    assert message.startswith("stage make failed: its process was killed (SIGKILL)\n")
    assert "ran out of memory" in message
    assert (shared.workspace / "out.txt").read_text(encoding="utf-8") == "good"


def test_a_flow_that_is_killed_leaves_no_worker_of_its_stage(shared: Killed) -> None:
    shared.wait_until_busy()
    shared.flow.kill()
    shared.flow.wait()
    end = time.monotonic() + 20
    while shared.processes() and time.monotonic() < end:
        time.sleep(0.2)
    assert [process.cmdline() for process in shared.processes()] == []
