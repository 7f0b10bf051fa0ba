"""What a stage wrote when it last succeeded is there after a run of it that failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.stage import read_stage_error

GRAPH = """
stages:
  make:
    cmd: python make.py
    deps: [wanted.txt]
    outs:
      - folder
      - table.txt
      - unkept.txt:
          cache: false
"""
MAKE = """
import os
from pathlib import Path
from components.errors import SourceError
from components.stage import run_stage

def work(params, layout):
    wanted = Path("wanted.txt").read_text()
    Path("folder").mkdir(exist_ok=True)
    Path("folder", f"{wanted}.txt").write_text(wanted)
    if wanted == "wrong":
        raise SourceError("this is wrong", where="wanted.txt", fix="mend it")
    if wanted == "killed":
        os.kill(os.getpid(), 9)
    Path("table.txt").write_text(f"table of {wanted}")
    Path("unkept.txt").write_text(wanted)

run_stage("make", work)
"""


def _run(workspace: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=workspace, capture_output=True, text=True, check=False
    )


def _make(workspace: Path, wanted: str) -> subprocess.CompletedProcess[str]:
    (workspace / "wanted.txt").write_text(wanted, encoding="utf-8")
    return _run(workspace, "-m", "dvc", "repro", "make")


def _there(workspace: Path) -> dict[str, str]:
    paths = [*sorted((workspace / "folder").glob("*")), workspace / "table.txt"]
    return {path.name: path.read_text(encoding="utf-8") for path in paths if path.exists()}


LAST = {"good.txt": "good", "table.txt": "table of good"}


@pytest.fixture(scope="module")
def _made_once(_blank_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("last-good") / "workspace"
    shutil.copytree(_blank_workspace, workspace)
    (workspace / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    (workspace / "make.py").write_text(MAKE, encoding="utf-8")
    done = _make(workspace, "good")
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.fixture
def made(_made_once: Path, tmp_path: Path) -> Path:
    """Return a workspace in which the stage has succeeded once."""
    target = tmp_path / "workspace"
    subprocess.run(["cp", "-a", str(_made_once), str(target)], check=True)
    return target


def test_dvc_repro_by_hand_leaves_what_the_stage_last_wrote_and_its_message(made: Path) -> None:
    done = _make(made, "wrong")
    assert done.returncode != 0
    assert "this is wrong" in done.stderr
    assert "put back what it last wrote: folder, table.txt" in done.stdout
    assert _there(made) == LAST  # without what the failed run had written
    left = read_stage_error(made / ".lesionflow" / "errors" / "make.json")
    assert left is not None
    assert left["exit_code"] == 2
    (made / "wanted.txt").write_text("good", encoding="utf-8")
    status = _run(made, "-m", "dvc", "status", "--json").stdout
    assert json.loads(status) == {"make": [{"changed outs": {"unkept.txt": "deleted"}}]}


def test_outputs_belong_together_so_that_none_is_put_back_when_one_is_not_in_the_cache(
    made: Path,
) -> None:
    kept = [path for path in (made / ".dvc" / "cache" / "files").rglob("*") if path.is_file()]
    (table,) = [path for path in kept if path.read_bytes() == b"table of good"]
    table.unlink()
    done = _make(made, "wrong")
    assert "this is wrong" in done.stderr
    assert "put back" not in done.stdout + done.stderr
    assert _there(made) == {"wrong.txt": "wrong"}


def test_a_stage_that_dvc_did_not_start_loses_and_gets_nothing(made: Path) -> None:
    (made / "wanted.txt").write_text("wrong", encoding="utf-8")
    done = _run(made, "make.py")
    assert done.returncode == 2
    assert _there(made) == LAST | {"wrong.txt": "wrong"}


def test_what_a_killed_stage_lost_is_put_back_unless_another_process_works_on_it(
    made: Path,
) -> None:
    assert _make(made, "killed").returncode != 0
    assert _there(made) == {"killed.txt": "killed"}
    listed = made / ".dvc" / "tmp" / "rwlock"
    entry = {"pid": os.getpid(), "cmd": "dvc repro"}
    listed.write_text(json.dumps({"write": {str(made / "folder"): entry}}), encoding="utf-8")
    refused = _run(made, "-m", "components.last_good", "make")
    assert refused.returncode != 0
    assert "is busy" in refused.stderr
    assert _there(made) == {"killed.txt": "killed"}
    listed.unlink()
    assert _run(made, "-m", "components.last_good", "make").returncode == 0
    assert _there(made) == LAST
