"""What a kill leaves in DVC's list of files in use does not stand in the way of the next run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from tasks.dvc_locks import forget_killed
from tasks.graph import read_graph

ARGUMENTS = "--wait-for-lock repro -q --single-item pack"


@pytest.fixture
def at_work() -> Iterator[int]:
    """Return the id of a process with the arguments of a `dvc repro`, started as a module is."""
    program = ["-c", "import time; time.sleep(600)"]
    with subprocess.Popen([sys.executable, *program, *ARGUMENTS.split()]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return the path of DVC's program as DVC writes it down; there are spaces in it."""
    script = tmp_path / "my own disk" / "dvc main.py"
    script.parent.mkdir()
    script.touch()
    return script


def _leave(workspace: Path, pid: int, program: str = "/usr/lib/dvc/__main__.py") -> Path:
    """Write down that process `pid` writes the packed images and reads the raw ones."""
    entry = {"pid": pid, "cmd": f"{program} {ARGUMENTS}"}
    listed = workspace / ".dvc" / "tmp" / "rwlock"
    document = {
        "write": {str(workspace / "data" / "packed"): entry},
        "read": {str(workspace / "data" / "raw"): [entry]},
    }
    listed.write_text(json.dumps(document), encoding="utf-8")
    return listed


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_whoever_has_the_id_of_a_killed_process_now_blocks_nothing(workspace: Path) -> None:
    listed = _leave(workspace, os.getpid())
    with Repo(str(workspace)) as repo:
        forget_killed(repo)
    assert _read(listed) == {"write": {}, "read": {}}


def test_a_process_that_works_keeps_its_files(workspace: Path, at_work: int) -> None:
    listed = _leave(workspace, at_work)
    before = _read(listed)
    with Repo(str(workspace)) as repo:
        forget_killed(repo)
    assert _read(listed) == before


def test_a_process_that_works_keeps_its_files_wherever_it_is_installed(
    workspace: Path, at_work: int, script: Path
) -> None:
    listed = _leave(workspace, at_work, str(script))
    before = _read(listed)
    with Repo(str(workspace)) as repo:
        forget_killed(repo)
    assert _read(listed) == before


@pytest.mark.parametrize("text", ["", '{"write": {"/a/file": {"pid"', '{"write": 1}'])
def test_a_list_that_was_cut_off_is_no_obstacle(workspace: Path, text: str) -> None:
    (workspace / ".dvc" / "tmp" / "rwlock").write_text(text, encoding="utf-8")
    assert "pack" in read_graph(workspace).stages
