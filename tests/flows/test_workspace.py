"""Two runs at once in one workspace: the second says so, or waits; a killed run leaves no lock."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.runner import Runner
from prefect.states import Scheduled

from components.errors import ResourceError
from components.layout import Layout
from flows.deployments import deployments, take_over
from flows.train import train
from flows.workspace import BusyError, exclusive

HOLD = """
import sys, time
from pathlib import Path
from components.layout import Layout
from flows.workspace import exclusive
with exclusive(Layout(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def _held(workspace: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the workspace."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_the_second_run_is_told_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    refused = pytest.raises(ResourceError, match="another run")
    with _held(tmp_path), refused, exclusive(Layout(tmp_path)):
        pass
    with exclusive(Layout(tmp_path)):
        pass


def test_who_holds_it_may_take_it_again_and_keeps_it_until_the_outermost_end(
    tmp_path: Path,
) -> None:
    take = [sys.executable, "-c", HOLD.replace("600", "0"), str(tmp_path)]
    with exclusive(Layout(tmp_path)):
        with exclusive(Layout(tmp_path)):
            pass
        refused = subprocess.run(take, check=False, capture_output=True, text=True)
        assert "another run is at work" in refused.stderr
    subprocess.run(take, check=True, capture_output=True)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("name", ["work", "data", "models", "operate"])
def test_commands_settle_the_server_before_prefect_is_there_to_start_its_own(name: str) -> None:
    program = (
        f"import flows.commands.{name}, flows.workspace, flows.server, flows.interrupts, sys\n"
        "sys.exit('prefect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_run_by_hand_is_refused_at_once(workspace: Path) -> None:
    with _held(workspace), pytest.raises(BusyError, match="another run is at work"):
        train(workspace)


@contextmanager
def _served(workspace: Path, flow_name: str) -> Iterator[UUID]:
    """Have the server know the workspace's deployment of a flow; pause it, as its end would."""
    served = deployments(Layout(workspace))
    take_over(served)
    (wanted,) = (each for each in served if each.flow_name == flow_name)
    deployment_id = wanted.apply()
    try:
        yield deployment_id
    finally:
        with get_client(sync_client=True) as client:
            client.pause_deployment(deployment_id)


def _run_scheduled(workspace: Path) -> Any:
    """Run `ingest` of the deployment, as `lesionflow schedule` would."""
    with _served(workspace, "ingest") as deployment_id, get_client(sync_client=True) as client:
        path = f"/deployments/{deployment_id}/schedule"
        # What the server's scheduler does, for the next run; which is due at once then.
        client.request("POST", path, json={"max_runs": 1})
        of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
        # Other tests' workspaces have had runs of the deployment of this name.
        found = client.read_flow_runs(deployment_filter=of_deployment)
        (created,) = (run for run in found if not run.state.is_final())
        client.set_flow_run_state(created.id, Scheduled(), force=True)
        asyncio.run(Runner(name="scheduled").execute_flow_run(created.id))
        return client.read_flow_run(created.id)


def _run_by_hand(workspace: Path) -> Any:
    """Run `promote` of the deployment, as somebody would start it in the UI."""
    with _served(workspace, "promote") as deployment_id, get_client(sync_client=True) as client:
        created = client.create_flow_run_from_deployment(deployment_id)
        asyncio.run(Runner(name="by hand").execute_flow_run(created.id))
        return client.read_flow_run(created.id)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_scheduled_run_that_waits_in_vain_is_skipped_and_no_failure(
    workspace: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(workspace, schedule={"wait_minutes": 0.01})
    with exclusive(Layout(workspace)):
        ended = _run_scheduled(workspace)
    assert ended.state_name == "Skipped"
    assert ended.state.is_completed()
    assert "another run is at work" in ended.state.message
    assert not (workspace / "data" / "raw").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_a_person_asked_for_and_that_waits_in_vain_fails(
    workspace: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(workspace, schedule={"wait_minutes": 0.01})
    with exclusive(Layout(workspace)):
        ended = _run_by_hand(workspace)
    assert ended.state.is_failed()
    assert "another run is at work in this workspace, still after 0.01 min" in ended.state.message


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_scheduled_run_that_takes_too_long_fails_and_lets_go_of_the_workspace(
    workspace: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(workspace, schedule={"timeout_hours": 2 / 3600})
    ended = _run_scheduled(workspace)
    assert ended.state.is_failed()
    assert "TimeLimitError" in ended.state.message
    assert "schedule.timeout_hours" in ended.state.message
    assert not (workspace / "data" / "packed").exists()
    with exclusive(Layout(workspace)):
        pass


@pytest.mark.parametrize(
    "command",
    [["retrain", "-S", "training.epochs=1"], ["use", "melanoma-folders", "--source", "."]],
    ids=["retrain", "use"],
)
def test_who_is_refused_has_changed_nothing(
    workspace: Path, lesionflow: Callable[..., Any], command: list[str]
) -> None:
    before = (workspace / "params.yaml").read_bytes()
    with exclusive(Layout(workspace)):
        refused = lesionflow(workspace, *command)
    assert refused.returncode == 2, refused.stderr
    assert "another run is at work in this workspace" in refused.stderr
    assert (workspace / "params.yaml").read_bytes() == before


def test_nobody_changes_the_parameters_between_their_writing_and_the_run(
    workspace: Path, lesionflow: Callable[..., Any]
) -> None:
    layout = Layout(workspace)
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_HOME"}
    with subprocess.Popen(
        ["lesionflow", "retrain", "-S", "training.epochs=1"],
        cwd=workspace,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert "params.yaml: training.epochs" in first.stdout.readline()
        mine = layout.params.read_bytes()
        second = lesionflow(workspace, "retrain", "-S", "training.epochs=7")
        assert second.returncode == 2
        assert "another run is at work in this workspace" in second.stderr
        assert layout.params.read_bytes() == mine
        # The first is not refused by what it holds itself.
        end = time.monotonic() + 180
        while not (layout.events.is_file() and "stage_started" in layout.events.read_text()):
            assert first.poll() is None and time.monotonic() < end, first.stdout.read()
            time.sleep(0.2)
        first.terminate()
        first.stdout.read()
