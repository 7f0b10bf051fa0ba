"""A run that was killed is not shown as running once the next one has begun."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Running

from components.layout import Layout
from tasks.killed_runs import KILLED, named_at_work

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


@flow(name="ingest")
def _ingest(workspace: Path) -> str:
    """Return who is at work in `workspace` meanwhile."""
    layout = Layout(workspace)
    with named_at_work(layout):
        assert json.loads(layout.run_at_work.read_text())["run_id"] == str(flow_run.id)
    assert not layout.run_at_work.exists()
    return str(flow_run.id)


@task
def _stage() -> None: ...


@flow(name="retrain")
def _killed(workspace: Path) -> State[None]:  # noqa: ARG001
    return _stage(return_state=True)


def _kill(client: SyncPrefectClient, workspace: Path, state: State, *, retried: int = 0) -> UUID:
    """Leave what a run leaves whose process, and that of its task, were killed in `state`."""
    run_id = _killed(workspace, return_state=True).state_details.flow_run_id
    assert run_id is not None
    client.set_flow_run_state(run_id, state, force=True)
    for each in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    ):
        client.set_task_run_state(each.id, state, force=True)
    layout = Layout(workspace)
    layout.run_at_work.parent.mkdir(parents=True)
    count = client.read_flow_run(run_id).run_count - retried
    layout.run_at_work.write_text(json.dumps({"run_id": str(run_id), "run_count": count}))
    return run_id


def test_who_is_at_work_is_named_while_it_is(tmp_path: Path) -> None:
    _ingest(tmp_path)


def test_a_run_that_was_killed_and_its_tasks_are_shown_as_crashed_by_the_next(
    tmp_path: Path, client: SyncPrefectClient
) -> None:
    killed = _kill(client, tmp_path, Running())
    _ingest(tmp_path)
    run = client.read_flow_run(killed)
    assert run.state is not None and run.state.is_crashed()
    assert run.state.message == KILLED
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[killed]))
    tasks = client.read_task_runs(flow_run_filter=of_run)
    assert [each.state_name for each in tasks] == ["Crashed"]
    lines = map(json.loads, Layout(tmp_path).events.read_text().splitlines())
    assert [(each["flow"], each["state"]) for each in lines if each["run_id"] == str(killed)] == [
        ("retrain", "Crashed")
    ]


def test_how_a_run_ended_that_could_still_say_so_stays(
    tmp_path: Path, client: SyncPrefectClient
) -> None:
    ended = _kill(client, tmp_path, Completed())
    _ingest(tmp_path)
    run = client.read_flow_run(ended)
    assert run.state is not None and run.state.is_completed()


def test_a_run_that_was_retried_since_is_alive(tmp_path: Path, client: SyncPrefectClient) -> None:
    retried = _kill(client, tmp_path, Running(), retried=1)
    _ingest(tmp_path)
    run = client.read_flow_run(retried)
    assert run.state is not None and run.state.is_running()


class _Ended(BaseException):
    """Comes from outside, as Ctrl-C does."""


@pytest.mark.parametrize(("error", "stays"), [(ValueError, False), (_Ended, True)])
def test_a_run_that_is_ended_from_outside_stays_named_until_it_has_said_so(
    tmp_path: Path, error: type[BaseException], stays: bool
) -> None:
    layout = Layout(tmp_path)

    @flow(name="ingest")
    def ends() -> None:
        with named_at_work(layout):
            raise error

    with pytest.raises(error):
        ends()
    assert layout.run_at_work.exists() is stays


@pytest.mark.parametrize(
    "left",
    [
        json.dumps({"run_id": str(UUID(int=1)), "run_count": 1}),
        "",
        "{}",
        '{"run_id": "no id", "run_count": 1}',
    ],
    ids=["unknown", "empty", "without", "no id"],
)
def test_a_run_that_nobody_knows_holds_nobody_up(tmp_path: Path, left: str) -> None:
    layout = Layout(tmp_path)
    layout.run_at_work.parent.mkdir(parents=True)
    layout.run_at_work.write_text(left)
    _ingest(tmp_path)
