"""Stages run as DVC would run them; a failure names itself and spares what it need not touch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from components.errors import ParamsError
from components.layout import Layout
from components.params import load_params
from flows.pipeline import (
    RunError,
    longest_trainings_first,
    run_stages,
    trainings_side_by_side,
)
from flows.time_limit import TimeLimitError, time_limit
from flows.train import train
from tasks.graph import Stage, read_graph
from tasks.stage import StageError, end_running_stages

GRAPH = """
stages:
  first:
    cmd: python make.py first
    deps: [make.py]
    outs: [first.txt]
  side:
    matrix:
      item: [left, right]
    cmd: python make.py ${item.item}
    deps: [first.txt]
    outs:
      - ${item.item}.txt
  last:
    cmd: python make.py last
    deps: [left.txt, right.txt]
    outs: [last.txt]
"""
MAKE = """
import json, os, pathlib, sys, time
import json, pathlib, signal, sys, time
name = sys.argv[1]
if pathlib.Path(f"deaf-{name}").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open("log.txt", "a") as log:
    log.write(name + chr(10))
print(f"progress {name}: 1/2 halves | loss 0.5", flush=True)
if pathlib.Path(f"break-{name}").exists():
    folder = pathlib.Path(".lesionflow/errors")
    folder.mkdir(parents=True, exist_ok=True)
    message = {"type": "SourceError", "message": f"{name} is broken", "exit_code": 2}
    (folder / f"side@{name}.json").write_text(json.dumps(message))
    sys.exit(2)
if pathlib.Path(f"hang-{name}").exists():
    time.sleep(600)
if pathlib.Path(f"die-{name}").exists():
    pathlib.Path(f"{name}.txt").write_text("half of it")
    os.kill(os.getpid(), 9)
pathlib.Path(f"{name}.txt").write_text(name)
"""

MEASURED_GRAPH = """
stages:
  train:
    matrix:
      item: [left, right]
    cmd: python make.py train ${item.item}
    deps: [make.py]
    outs: ["train-${item.item}.txt"]
  profile:
    matrix:
      item: [left, right]
    cmd: python make.py profile ${item.item}
    deps: ["train-${item.item}.txt"]
    outs: ["profile-${item.item}.txt"]
  score:
    matrix:
      item: [left, right]
    cmd: python make.py score ${item.item}
    deps: ["train-${item.item}.txt"]
    outs: ["score-${item.item}.txt"]
  last:
    cmd: python make.py last all
    deps: [profile-left.txt, profile-right.txt, score-left.txt, score-right.txt]
    outs: [last-all.txt]
"""
MEASURED_MAKE = """
import pathlib, sys, time
kind, item = sys.argv[1:]
def log(what):
    with open("log.txt", "a") as file:
        file.write(f"{what}:{kind}-{item}" + chr(10))
log("begin")
if (kind, item) == ("train", "right"):  # the long one: the other is scored meanwhile
    end = time.monotonic() + 60
    while not pathlib.Path("score-left.txt").exists() and time.monotonic() < end:
        time.sleep(0.1)
    if pathlib.Path("break").exists():
        sys.exit(1)
time.sleep(1)
pathlib.Path(f"{kind}-{item}.txt").write_text(item)
log("end")
"""

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Return a workspace with four stages that take no time."""
    return _workspace(tmp_path, GRAPH, MAKE)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """Return a workspace with two trainings, of which each is scored and measured."""
    return _workspace(tmp_path, MEASURED_GRAPH, MEASURED_MAKE)


def _workspace(folder: Path, graph: str, make: str) -> Path:
    (folder / "dvc.yaml").write_text(graph, encoding="utf-8")
    (folder / "make.py").write_text(make, encoding="utf-8")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def _run(workspace: Path, order: Sequence[str] = (), side_by_side: int = 3) -> Any:
    graph = read_graph(workspace)

    @flow(name="toy")
    def toy_flow() -> None:
        run_stages(
            [graph.stages[name] for name in order or graph.stages],
            graph.stale,
            workspace=workspace,
            cluster=dict,
            side_by_side=side_by_side,
        )

    return toy_flow()


def _log(workspace: Path) -> list[str]:
    return (workspace / "log.txt").read_text(encoding="utf-8").split()


def test_every_stage_runs_once_in_the_order_of_the_graph(toy: Path) -> None:
    _run(toy)
    log = _log(toy)
    assert log[0] == "first"
    assert sorted(log[1:3]) == ["left", "right"]
    assert log[3:] == ["last"]
    assert read_graph(toy).stale == frozenset()


def test_what_waits_for_a_place_starts_in_the_order_given(toy: Path) -> None:
    _run(toy, order=["first", "side@right", "side@left", "last"], side_by_side=1)
    assert _log(toy) == ["first", "right", "left", "last"]


def _alone(log: Sequence[str], kind: str) -> list[str]:
    """Return what ran of `kind`, in its order; fail if anything else was at work meanwhile."""
    at_work: set[str] = set()
    measured = []
    for line in log:
        what, _, name = line.partition(":")
        if what == "end":
            at_work.discard(name)
            continue
        assert not any(other.startswith(kind) for other in at_work), f"{name} beside {at_work}"
        if name.startswith(kind):
            assert not at_work, f"{name} beside {at_work}"
            measured.append(name)
        at_work.add(name)
    return measured


def test_time_is_measured_when_nothing_else_runs_and_holds_nothing_up(measured: Path) -> None:
    _run(measured)
    log = _log(measured)
    assert _alone(log, "profile") == ["profile-left", "profile-right"]
    assert log.index("end:score-left") < log.index("end:train-right")
    assert log[-1] == "end:last-all"


def test_a_failed_training_leaves_the_others_measured(measured: Path) -> None:
    (measured / "break").touch()
    with pytest.raises(RunError):
        _run(measured)
    assert (measured / "profile-left.txt").exists()
    assert not (measured / "profile-right.txt").exists()


def test_the_longest_training_starts_first_and_nothing_else_changes_its_place(
    workspace: Path, edit_params: Callable[..., None]
) -> None:
    backbones = {"mobilenet_v2": {}, "resnet18": {"epochs": 1}, "vgg19": {}}
    edit_params(workspace, backbones=backbones, seeds=[0, 1])
    names = [f"{name}-{seed}" for name in backbones for seed in (0, 1)]
    around = ["pack", "split"], ["evaluate@mobilenet_v2-0", "rank"]
    given = [*around[0], *(f"train@{name}" for name in names), *around[1]]
    ordered = longest_trainings_first(
        [Stage(name, (), ()) for name in given], load_params(Layout(workspace).params)
    )
    trainings = [f"train@{name}" for name in (*names[4:], *names[2:4], *names[:2])]
    assert [stage.name for stage in ordered] == [*around[0], *trainings, *around[1]]


NUMBERS = """
import json
import os
from pathlib import Path
from components.cluster import local_cluster
from components.layout import Layout
from components.params import load_params
from flows.pipeline import trainings_side_by_side
params = load_params(Layout(Path.cwd()).params)
with local_cluster(2) as environment:
    os.environ.update(environment)
    print(json.dumps([trainings_side_by_side(params, number) for number in (0, 3, 90)]))
"""


def test_on_a_cluster_as_many_trainings_are_under_way_as_have_room_and_two_that_wait(
    workspace: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NUMBERS], cwd=workspace, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [1, 3, 4 + 2]


def test_the_number_of_trainings_under_way_can_be_set(
    workspace: Path, edit_params: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_params(workspace, cluster__side_by_side=7)
    params = load_params(Layout(workspace).params)
    assert [trainings_side_by_side(params, number) for number in (0, 3, 90)] == [1, 3, 7]
    # What grows tells a job server nothing of it: nobody is asked.
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert trainings_side_by_side(params, 90) == 7


def test_a_storage_that_the_cluster_would_not_see_stops_the_run_before_its_first_stage(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    with pytest.raises(ParamsError, match="which the cluster does not see"):
        train(workspace)
    assert not (workspace / "data" / "raw").exists()


def test_a_second_run_starts_no_subprocess_and_shows_cached(toy: Path) -> None:
    _run(toy)
    _run(toy)
    assert len(_log(toy)) == 4
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(limit=4)
    assert {run.state_name for run in runs} == {"Cached"}
    assert {run.name for run in runs} == {"first", "side@left", "side@right", "last"}


def test_a_failure_names_the_stage_brings_its_code_and_spares_the_others(toy: Path) -> None:
    (toy / "break-left").touch()
    with pytest.raises(RunError) as caught:
        _run(toy)
    assert "side@left" in str(caught.value)
    assert "left is broken" in str(caught.value)
    assert caught.value.code == 2
    assert (toy / "right.txt").exists()
    assert "last" not in _log(toy)


def test_the_run_after_a_failure_goes_on_from_there(toy: Path) -> None:
    (toy / "break-left").touch()
    with pytest.raises(RunError):
        _run(toy)
    (toy / "break-left").unlink()
    (toy / "log.txt").unlink()
    _run(toy)
    assert _log(toy) == ["left", "last"]


def test_what_a_stage_last_wrote_is_there_after_its_process_was_killed(toy: Path) -> None:
    subprocess.run(["dvc", "repro", "-q", "first"], cwd=toy, check=True)
    with (toy / "make.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    (toy / "die-first").touch()
    with pytest.raises(RunError) as caught:
        _run(toy, order=["first"])
    assert "stage first failed: its process was killed" in str(caught.value)
    assert caught.value.code == 2
    assert (toy / "first.txt").read_text(encoding="utf-8") == "first"
    assert "first" in read_graph(toy).stale


def test_ending_the_running_stages_ends_what_they_started(toy: Path) -> None:
    (toy / "hang-first").touch()
    ended = threading.Event()

    def run() -> None:
        with pytest.raises(RunError, match="first failed: ended with the run"):
            _run(toy)
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    while not (toy / "log.txt").exists():
        time.sleep(0.1)
    end_running_stages()
    thread.join(timeout=30)
    assert ended.is_set()
    assert _left_running() == b""


def test_ctrl_c_ends_the_stage_that_runs_and_starts_no_other(toy: Path) -> None:
    (toy / "hang-first").touch()

    def press() -> None:
        while not (toy / "log.txt").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background: ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            _run(toy, side_by_side=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert _log(toy) == ["first"]
    assert _left_running() == b""


@pytest.mark.timeout(method="thread")  # the other method rings the same alarm clock
def test_a_stage_that_hangs_is_named_and_ended_when_the_time_is_up(toy: Path) -> None:
    (toy / "hang-left").touch()
    (toy / "deaf-left").touch()  # and does not listen when it is asked to end
    with pytest.raises(TimeLimitError, match="at work: side@left"), time_limit(25 / 3600):
        _run(toy)
    assert (toy / "right.txt").exists()
    assert "last" not in _log(toy)
    assert _left_running("left") == b""


def _left_running(item: str = "first") -> bytes:
    command = ["pgrep", "-f", f"{Path(sys.executable).name} make.py {item}"]
    return subprocess.run(command, check=False, capture_output=True).stdout


def test_what_several_stages_failed_for_is_told_once() -> None:
    lost = "the Ray cluster was lost"
    error = RunError(
        [
            StageError("train@vgg11-0", lost, 2),
            StageError("rank", "no disk", 2),
            StageError("train@vgg19-0", lost, 2),
        ]
    )
    assert error.what.splitlines() == [
        f"stages train@vgg11-0, train@vgg19-0 failed: {lost}",
        "stage rank failed: no disk",
    ]
