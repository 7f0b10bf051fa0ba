"""The order of Prefect is that of `dvc.yaml`, and what is stale is what DVC would do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.errors import ParamsError, ResourceError
from tasks.graph import Graph, Stage, read_graph


def test_the_graph_is_the_one_that_dvc_walks(workspace: Path) -> None:
    graph = read_graph(workspace)
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only"],
        cwd=workspace,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    drawn = subprocess.run(
        ["dvc", "dag", "--dot"], cwd=workspace, check=True, capture_output=True, text=True
    ).stdout
    edges = {
        tuple(part.strip().strip('";') for part in line.split("->"))
        for line in drawn.splitlines()
        if "->" in line
    }
    assert set(graph.stages) == set(listed)
    assert {
        (needed, stage.name) for stage in graph.stages.values() for needed in stage.upstream
    } == edges


def test_stages_stand_after_what_they_wait_for(workspace: Path) -> None:
    order = list(read_graph(workspace).stages)
    for stage in read_graph(workspace).stages.values():
        assert all(order.index(name) < order.index(stage.name) for name in stage.upstream)


def test_trainings_wait_for_each_other_nowhere(workspace: Path) -> None:
    graph = read_graph(workspace)
    trainings = {name for name, stage in graph.stages.items() if stage.kind == "train"}
    assert len(trainings) == 3
    assert not any(trainings & set(graph.stages[name].upstream) for name in trainings)


def test_a_stage_that_never_ran_says_so(workspace: Path) -> None:
    assert read_graph(workspace).stages["ingest"].changes == ("has not run yet",)


def test_everything_below_a_change_is_stale_and_nothing_else() -> None:
    graph = Graph(
        {
            "a": Stage("a", (), ()),
            "b": Stage("b", ("a",), ("params.yaml: modified",)),
            "c": Stage("c", ("b",), ()),
            "d": Stage("d", ("a",), ()),
        }
    )
    assert graph.stale == {"b", "c"}
    assert [stage.name for stage in graph.upto(["c"])] == ["a", "b", "c"]


def test_a_change_that_dvc_does_not_know_of_yet_counts_like_those_that_it_knows() -> None:
    graph = Graph(
        {
            "first": Stage("first", (), ()),
            "left": Stage("left", ("first",), ("code: modified",), lost=False),
            "right": Stage("right", ("first",), (), lost=True),
            "last": Stage("last", ("right",), ()),
        }
    )
    changed = graph.also_changed({"left": "code: modified", "right": "seen", "other": "seen"})
    assert changed.stages["left"] == graph.stages["left"]
    assert changed.stages["right"] == Stage("right", ("first",), ("seen",))
    assert changed.stale == {"left", "right", "last"}
    assert graph.stale == {"left"}


def test_a_fresh_workspace_is_stale_as_a_whole(workspace: Path) -> None:
    graph = read_graph(workspace)
    assert graph.stale == set(graph.stages)


def test_a_broken_graph_is_one_clear_error(workspace: Path) -> None:
    (workspace / "dvc.yaml").write_text("stages:\n  a: {cmd: [}\n", encoding="utf-8")
    with pytest.raises(ParamsError, match="DVC cannot read"):
        read_graph(workspace)


# DVC's own lock, as a `dvc push` has it.
HOLD = """
import sys, time
from dvc.repo import Repo
with Repo(sys.argv[1]) as repo, repo.lock:
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def _dvc_at_work(workspace: Path, seconds: float) -> Iterator[None]:
    command = [sys.executable, "-c", HOLD, str(workspace), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield
        finally:
            other.kill()


def test_another_dvc_process_is_waited_for_and_that_is_said_once(workspace: Path) -> None:
    said: list[str] = []
    with _dvc_at_work(workspace, seconds=8):
        graph = read_graph(workspace, said.append)
    assert "pack" in graph.stages
    assert said == ["another DVC process is at work here: waiting for it up to 5 minutes"]


def test_what_is_waited_for_in_vain_is_said(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.graph.WAIT_SECONDS", 3.0)
    with (
        _dvc_at_work(workspace, seconds=60),
        pytest.raises(ResourceError, match="another DVC process is at work"),
    ):
        read_graph(workspace)
