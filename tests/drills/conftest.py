"""One undisturbed run, with which every drill compares what it ends with."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from .measure import Drill
from .runs import Run, results, rewind

EPOCHS = 12
BACKBONES = {"mobilenet_v2": {}}
StartRun = Callable[..., Run]


@pytest.fixture(scope="session", autouse=True)
def _heed_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C reach what is started, also where the tests run in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    copy_workspace: Callable[[Path], Path],
    shrink: Callable[[Path], None],
    edit_params: Callable[..., None],
) -> Path:
    """Return a workspace in which nothing went wrong. Do not change it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the processes of one test run share it
        folder = folder.parent
    folder /= "undisturbed"
    folder.mkdir(exist_ok=True)
    workspace = folder / "workspace"
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            shutil.rmtree(workspace, ignore_errors=True)  # where the other one failed
            _run_undisturbed(copy_workspace(workspace), shrink, edit_params)
            (folder / "done").touch()
    return workspace


def _run_undisturbed(
    workspace: Path, shrink: Callable[[Path], None], edit_params: Callable[..., None]
) -> None:
    shrink(workspace)
    edit_params(workspace, backbones=BACKBONES, training__epochs=EPOCHS)
    drill = Drill()
    run = drill.start(workspace, "lesionflow", "retrain")
    try:
        assert run.wait() == 0, run.said
        drill.check()
    finally:
        drill.end()


@pytest.fixture(scope="session")
def expected(undisturbed: Path) -> dict[str, str]:
    """Return what every disturbed run must end with."""
    return results(undisturbed)


@pytest.fixture
def done(undisturbed: Path, tmp_path: Path) -> Path:
    """Return a copy of the undisturbed workspace."""
    target = tmp_path / "workspace"
    # With times kept: DVC knows a file by its time before it looks at its bytes.
    subprocess.run(["cp", "-a", str(undisturbed), str(target)], check=True)
    return target


@pytest.fixture
def untrained(done: Path) -> Path:
    """Return a workspace in which everything before the trainings is done."""
    rewind(done)
    return done


@pytest.fixture
def fresh(undisturbed: Path, copy_workspace: Callable[[Path], Path], tmp_path: Path) -> Path:
    """Return a workspace with the drills' parameters in which nothing has run."""
    workspace = copy_workspace(tmp_path / "workspace")
    shutil.copyfile(undisturbed / "params.yaml", workspace / "params.yaml")
    return workspace


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Return a folder for temporary files that Ray's sockets can lie in."""
    folder = Path("/tmp", secrets.token_hex(2)[:3])
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def drill() -> Iterator[Drill]:
    """Return what starts commands, holds each to the measure, and lets nothing outlive the test."""
    drill = Drill()
    try:
        yield drill
        drill.check()
    finally:
        drill.end()


@pytest.fixture
def start(drill: Drill) -> StartRun:
    """Return what starts a command of the user in a folder."""
    return drill.start


@pytest.fixture
def serve(drill: Drill) -> StartRun:
    """Return what starts a server, a node or the like, which is not held to the measure."""
    return drill.serve
