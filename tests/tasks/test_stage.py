"""Why DVC failed where the stage itself said nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
