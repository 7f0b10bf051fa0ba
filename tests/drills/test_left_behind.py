"""What kills leave lying about does not stand in the way of the next run."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .runs import Run, results

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill


@pytest.fixture
def dead_cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Leave the folder of a private cluster whose processes are gone, and Ray's note of another."""
    gone = max(psutil.pids()) + 1_000
    folder = Path(tempfile.mkdtemp(prefix=f"lesionflow-ray-{gone}-", dir="/tmp"))
    (folder / "token").write_text("0" * 64, encoding="utf-8")
    session = tmp_path / "ray"
    session.mkdir()
    (session / "ray_current_cluster").write_text("127.0.0.1:9", encoding="utf-8")
    yield {"RAY_TMPDIR": str(session), "folder": str(folder)}
    shutil.rmtree(folder, ignore_errors=True)


def _leave_locks(workspace: Path) -> None:
    """Leave what a machine that went down leaves: locks by ids that others have now."""
    folder = workspace / ".dvc" / "tmp"
    entry = {"pid": os.getpid(), "cmd": "/usr/bin/dvc --wait-for-lock repro -q -s rank"}
    listed = {
        "write": {str(workspace / "reports" / "leaderboard.json"): entry},
        "read": {str(workspace / "runs"): [entry]},
    }
    (folder / "rwlock").write_text(json.dumps(listed), encoding="utf-8")
    for name in ("lock", "rwlock.lock"):
        (folder / name).write_text(f" {os.getpid()}\n", encoding="utf-8")
    (workspace / ".lesionflow" / "run.lock").write_text(f"{os.getpid()}\n", encoding="utf-8")


def _leave_halves(workspace: Path) -> None:
    """Leave files that were being written, under the names that they have until they are whole."""
    for name in (
        "data/.splits.parquet.x1y2z3.parquet",
        "reports/.leaderboard.json.x1y2z3.json",
        "dvc.lock.tmp",
        "registry/quickstart-synthetic/aliases/.champion.json.x1y2z3.json",
        "registry/quickstart-synthetic/versions/.new-0123/model.safetensors",
        ".lesionflow/training/mobilenet_v2-0/model.safetensors",
        ".lesionflow/errors/rank.json",
    ):
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"half', encoding="utf-8")


@pytest.mark.slow
def test_locks_and_halves_put_nothing_out_of_date(
    done: Path, expected: dict[str, str], start: StartRun
) -> None:
    _leave_locks(done)
    _leave_halves(done)
    run = start(done, "lesionflow", "retrain")
    assert run.wait() == 0, run.said
    assert "nothing had changed" in run.said
    assert results(done) == expected
    check = start(done, "lesionflow", "registry", "check", "--repair")
    check.wait()
    assert "unfinished" in check.said
    again = start(done, "lesionflow", "registry", "check")
    assert again.wait() == 0, again.said


def test_a_training_starts_over_locks_halves_and_a_dead_cluster(
    untrained: Path, expected: dict[str, str], start: StartRun, dead_cluster: dict[str, str]
) -> None:
    _leave_locks(untrained)
    _leave_halves(untrained)
    shutil.rmtree(untrained / "registry")
    run = start(untrained, "lesionflow", "retrain", RAY_TMPDIR=dead_cluster["RAY_TMPDIR"])
    assert run.wait() == 0, run.said
    assert results(untrained) == expected
    assert not Path(dead_cluster["folder"]).exists()


@pytest.mark.slow
def test_an_address_of_a_cluster_that_is_gone_is_one_clear_message(
    untrained: Path, start: StartRun
) -> None:
    run = start(untrained, "lesionflow", "retrain", RAY_ADDRESS="127.0.0.1:9")
    assert run.wait() == 2, run.said
    assert "nobody answers there" in run.said
    assert "unset RAY_ADDRESS for a local one" in run.said
