"""Workspaces in which the whole job has run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def lesionflow() -> Command:
    """Return a function that runs `lesionflow …` in a workspace as a user would."""

    def run(
        workspace: Path, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        # Prefect's database of the workspace itself: what `lesionflow ui` would show.
        kept = {name: value for name, value in os.environ.items() if name != "PREFECT_HOME"}
        return subprocess.run(
            ["lesionflow", *arguments],
            cwd=workspace,
            env={**kept, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )

    return run


@pytest.fixture(scope="session")
def edit_params() -> Callable[..., None]:
    """Return a function that sets dotted keys of a workspace's `params.yaml`."""

    def edit(workspace: Path, **changes: Any) -> None:
        yaml = YAML()
        path = workspace / "params.yaml"
        document = yaml.load(path.read_text(encoding="utf-8"))
        for key, value in changes.items():
            *parents, last = key.split("__")
            place = document
            for parent in parents:
                place = place[int(parent) if parent.isdigit() else parent]
            place[last] = value
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(document, file)

    return edit


@pytest.fixture(scope="session")
def shrink(edit_params: Callable[..., None]) -> Callable[[Path], None]:
    """Return a function that makes the quickstart of a workspace as small as it can be."""

    def make_small(workspace: Path) -> None:
        edit_params(
            workspace,
            sources__0__options__lesions=150,
            sources__0__options__image_size=160,
            pack__image_size=32,
            training__image_size=32,
            training__epochs=2,
            evaluation__bootstrap_resamples=200,
            gates__min_balanced_accuracy=0.0,
        )

    return make_small


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    copy_workspace: Callable[[Path], Path],
    shrink: Callable[[Path], None],
    lesionflow: Command,
) -> Path:
    """Return a workspace in which `lesionflow retrain` has run once. Do not change it."""
    workspace = copy_workspace(tmp_path_factory.mktemp("finished") / "workspace")
    shrink(workspace)
    done = lesionflow(workspace, "retrain")
    (workspace / "terminal.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return workspace


@pytest.fixture
def finished_copy(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished workspace that the test may change."""
    target = tmp_path / "copy"
    # With times kept: DVC knows a file by its time before it looks at its bytes.
    subprocess.run(["cp", "-a", str(finished), str(target)], check=True)
    return target


@pytest.fixture
def without_champion(finished_copy: Path) -> Path:
    """Return a copy of the finished workspace that nothing is promoted in yet."""
    shutil.rmtree(finished_copy / "registry")
    return finished_copy
