"""A run in a clean clone is killed while it trains: the next clone goes on from there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from .runs import Run, epochs_stored, went_on_after

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill

RETRAIN = "import sys; from flows.retrain_clone import retrain_clone as run; "
RETRAIN += "run(sys.argv[1], record_on='record')"
BEFORE_TRAINING = ("ingest", "measure", "pairs", "validate", "split")


@pytest.fixture
def origin(fresh: Path, tmp_path: Path, edit_params: Callable[..., None]) -> Path:
    """Return a bare repository in which nothing has run; data, models and checkpoints go beside."""
    edit_params(fresh, registry__uri=str(tmp_path / "registry"), storage=str(tmp_path / "storage"))
    bare = tmp_path / "origin.git"
    for command in (
        ["dvc", "remote", "add", "-q", "-d", "store", str(tmp_path / "remote")],
        ["git", "add", "-A", "-f"],
        ["git", "-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "-m", "all"],
        ["git", "init", "-q", "--bare", "-b", "main", str(bare)],
        ["git", "push", "-q", str(bare), "HEAD:main"],
    ):
        subprocess.run(command, cwd=fresh, check=True, capture_output=True)
    return bare


def _hashes(lock: str) -> dict[str, str]:
    """Return the hash of every output that must be the same again, by its path."""
    stages: dict[str, Any] = YAML(typ="safe").load(lock)["stages"]
    measured = ("profile", "rank", "report")  # with times in them, or the registry's counts
    return {
        out["path"]: out["md5"]
        for name, stage in stages.items()
        if name.partition("@")[0] not in measured
        for out in stage["outs"]
    }


def test_the_next_clone_goes_on_and_leaves_what_an_undisturbed_run_would(
    origin: Path, undisturbed: Path, tmp_path: Path, start: StartRun, short_folder: Path
) -> None:
    def retrain() -> Run:
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        environment = {"TMPDIR": str(short_folder), "PREFECT_HOME": str(tmp_path / "home")}
        return start(here, sys.executable, "-c", RETRAIN, str(origin), **environment)

    killed = retrain()
    killed.wait_until(lambda: epochs_stored(tmp_path, "storage") >= 2)
    killed.kill_everything()
    stored = epochs_stored(tmp_path, "storage")
    assert not list(tmp_path.glob("registry/*/aliases/*"))
    assert "record" not in _git(origin, "branch", "--list")

    again = retrain()
    assert again.wait() == 0, again.said
    assert "goes on with what an earlier run has left here" in again.said
    assert went_on_after(again, stored), again.said
    worked, found = _work(killed), _work(again)
    for stage in BEFORE_TRAINING:
        assert stage in worked, killed.said
        assert stage not in found, again.said
    recorded = _git(origin, "show", "record:dvc.lock")
    assert _hashes(recorded) == _hashes((undisturbed / "dvc.lock").read_text(encoding="utf-8"))
    assert list(tmp_path.glob("registry/*/aliases/champion.json"))
    subprocess.run(
        ["git", "clone", "-q", "-b", "record", str(origin), "clone"], cwd=tmp_path, check=True
    )
    subprocess.run(["dvc", "pull", "-q"], cwd=tmp_path / "clone", check=True)
    assert not list(short_folder.glob("lesionflow-*"))


def _work(run: Run) -> set[str]:
    """Return the stages that did something before the training, as their lines of progress say."""
    before = run.said.partition("goes on after epoch")[0]
    return set(re.findall(r"Task run '(\w+)' - \1: ", before))


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=repository, check=True, capture_output=True, text=True
    ).stdout
