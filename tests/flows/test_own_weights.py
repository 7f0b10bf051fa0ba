"""Own weights that are replaced under their name retrain what starts from them, and only that."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from components.backbones.model_file import read_model
from components.errors import WeightsError
from components.layout import Layout
from components.params import load_params
from components.training.own_weights import refresh_own_weights
from flows.status import read_status
from flows.train import train
from tasks.graph import read_graph

Command = Callable[..., subprocess.CompletedProcess[str]]
BELOW = {"rank", "report"}
OF_RESNET18 = {"train@resnet18-0", "evaluate@resnet18-0", "profile@resnet18"} | BELOW


@pytest.fixture
def recorded(workspace: Path, edit_params: Callable[..., None]) -> Path:
    """Return a workspace whose `dvc.lock` says that all is done; the outputs are made up.

    `resnet18` starts from `own.pth`.
    """
    edit_params(workspace, backbones={"resnet18": {"weights": "own.pth"}, "mobilenet_v2": {}})
    (workspace / "own.pth").write_bytes(b"first")
    refresh_own_weights(load_params(workspace / "params.yaml"), Layout(workspace))
    with Repo(str(workspace)) as repo:
        outs = [Path(out.fs_path) for out in repo.index.outs]
    for out in outs:
        folder = out if not out.suffix else out.parent
        folder.mkdir(parents=True, exist_ok=True)
        if out.suffix:
            out.write_text("{}", encoding="utf-8")
    (workspace / "data" / "raw" / "labels.parquet").write_bytes(b"")
    subprocess.run(["dvc", "commit", "-f", "-q"], cwd=workspace, check=True)
    return workspace


def _refresh(workspace: Path) -> None:
    refresh_own_weights(load_params(workspace / "params.yaml"), Layout(workspace))


def test_only_the_trainings_of_the_backbone_and_what_follows_are_out_of_date(
    recorded: Path,
) -> None:
    _refresh(recorded)
    assert read_graph(recorded).stale == frozenset()
    (recorded / "own.pth").write_bytes(b"other")
    _refresh(recorded)
    assert read_graph(recorded).stale == OF_RESNET18
    # Any other file of the workspace is no concern of theirs.
    (recorded / "own.pth").write_bytes(b"first")
    _refresh(recorded)
    assert read_graph(recorded).stale == frozenset()


def test_the_status_says_what_a_run_will_find_and_writes_nothing(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = Layout(recorded)
    assert read_status(layout)["stale"] == {}
    (recorded / "own.pth").write_bytes(b"other")
    before = layout.own_weights.read_bytes()
    document = read_status(layout)
    assert layout.own_weights.read_bytes() == before
    _refresh(recorded)
    assert read_status(layout)["stale"] == document["stale"]
    assert document["stale"].keys() == OF_RESNET18
    assert document["causes"] == {"train@resnet18-0": ["weights"]}
    (recorded / "own.pth").unlink()
    assert read_status(layout)["stale"] == document["stale"]
    assert "no weights file 'own.pth'" in capsys.readouterr().err


@pytest.mark.usefixtures("prefect_server")
def test_a_file_that_is_gone_stops_a_run_only_if_something_starts_from_it(
    recorded: Path, edit_params: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    (recorded / "own.pth").unlink()
    with caplog.at_level(logging.WARNING):
        assert train(recorded) == []
    assert "resnet18 stays as it was trained before" in caplog.text
    edit_params(recorded, training__epochs=3)
    with pytest.raises(WeightsError, match=r"no weights file 'own\.pth'"):
        train(recorded)
    events = (recorded / ".lesionflow" / "events.jsonl").read_text(encoding="utf-8")
    assert "stage_cached" in events
    assert "stage_started" not in events


def test_dvc_needs_no_look_where_no_own_weights_are_named(
    recorded: Path, edit_params: Callable[..., None]
) -> None:
    """DVC refuses a stage whose parameter is missing, and nobody has heard of vgg19 here."""
    edit_params(recorded, backbones={"vgg19": {}, "mobilenet_v2": {}})
    (recorded / "runs" / "vgg19-0").mkdir()
    command = ["dvc", "commit", "-f", "-q", "train@vgg19-0"]
    done = subprocess.run(command, cwd=recorded, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train@vgg19-0" not in read_graph(recorded).stale


@pytest.mark.slow
def test_a_replaced_file_is_what_the_next_retrain_starts_from(
    finished_copy: Path, lesionflow: Command, edit_params: Callable[..., None]
) -> None:
    def retrained() -> str:
        done = lesionflow(finished_copy, "retrain")
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    run, own = finished_copy / "runs" / "resnet18-0", finished_copy / "own.safetensors"
    edit_params(finished_copy, backbones__resnet18={"weights": "own.safetensors"})
    for _ in range(2):
        shutil.copyfile(run / "model.safetensors", own)
        others = (finished_copy / "runs" / "mobilenet_v2-0" / "model.json").stat().st_mtime_ns
        retrained()
        started = read_model(run).provenance["weights"]
        assert started["sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()
        after = (finished_copy / "runs" / "mobilenet_v2-0" / "model.json").stat().st_mtime_ns
        assert after == others
        assert "nothing had changed" in retrained()
