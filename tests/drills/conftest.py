"""One undisturbed run, with which every drill compares what it ends with."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
    workspace = copy_workspace(tmp_path_factory.mktemp("undisturbed") / "workspace")
    shrink(workspace)
    edit_params(workspace, backbones=BACKBONES, training__epochs=EPOCHS)
    run = Run(workspace, "lesionflow", "retrain")
    try:
        assert run.wait() == 0, run.said
    finally:
        run.kill_everything()
    return workspace


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
def start() -> Iterator[StartRun]:
    """Return what starts a command; nothing of it outlives the test."""
    runs: list[Run] = []

    def start_run(folder: Path, *command: str, **environment: str) -> Run:
        runs.append(Run(folder, *command, **environment))
        return runs[-1]

    yield start_run
    for run in reversed(runs):
        run.kill_everything()
