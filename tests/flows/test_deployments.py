"""The schedules are those of `params.yaml`; new data start `retrain`, and forms are typed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId

from components.errors import ParamsError, ResourceError
from components.layout import Layout
from components.params import load_params
from flows.deployments import deployments, take_over
from tasks.events import announce_new_snapshot


@pytest.fixture
def empty_server(prefect_server: object) -> None:  # noqa: ARG001
    """Leave no deployment of another test on the server that all of them share."""
    with get_client(sync_client=True) as client:
        for each in client.read_deployments():
            client.delete_deployment(each.id)


def test_the_deployments_carry_cron_timezone_and_workspace(
    workspace: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(workspace, schedule={"retrain_cron": "*/5 * * * *", "timezone": "Europe/Vienna"})
    found = {f"{each.flow_name}/{each.name}": each for each in deployments(Layout(workspace))}
    assert set(found) == {
        "retrain/scheduled",
        "ingest/scheduled",
        "tune/by-hand",
        "promote/by-hand",
    }
    (schedule,) = found["retrain/scheduled"].schedules
    assert schedule.schedule.cron == "*/5 * * * *"
    assert schedule.schedule.timezone == "Europe/Vienna"
    assert not found["promote/by-hand"].schedules
    assert {str(each.parameters["workspace"]) for each in found.values()} == {str(workspace)}


@pytest.mark.parametrize(
    ("schedule", "named"),
    [({"retrain_cron": "every night"}, "retrain_cron"), ({"timezone": "Vienna"}, "timezone")],
)
def test_a_wrong_schedule_is_refused(
    workspace: Path, edit_params: Callable[..., None], schedule: dict[str, str], named: str
) -> None:
    edit_params(workspace, schedule=schedule)
    with pytest.raises(ParamsError, match=named):
        load_params(workspace / "params.yaml")


def test_a_schedule_of_null_is_none(workspace: Path, edit_params: Callable[..., None]) -> None:
    edit_params(workspace, schedule={"retrain_cron": None})
    retrain, ingest, *_ = deployments(Layout(workspace))
    assert not retrain.schedules
    assert ingest.schedules


def test_the_parameters_are_typed_and_described_so_that_the_ui_shows_a_form(
    workspace: Path,
) -> None:
    forms = {
        each.flow_name: each._parameter_openapi_schema.model_dump()["properties"]
        for each in deployments(Layout(workspace))
    }
    assert {name: set(form) for name, form in forms.items()} == {
        "retrain": {"workspace"},
        "ingest": {"workspace"},
        "tune": {"workspace", "backbone", "apply"},
        "promote": {"workspace", "approval"},
    }
    assert forms["promote"]["workspace"]["format"] == "path"
    assert forms["promote"]["approval"]["type"] == "boolean"
    assert "resnet18" in forms["tune"]["backbone"]["enum"]
    assert forms["tune"]["apply"]["type"] == "boolean"
    assert all(field["description"] for form in forms.values() for field in form.values())


@pytest.mark.usefixtures("prefect_server")
def test_a_new_snapshot_starts_retrain_in_its_own_workspace_and_in_no_other(
    workspace: Path, tmp_path: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(workspace, schedule={"retrain_cron": None, "ingest_cron": None})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "params.yaml").write_bytes((workspace / "params.yaml").read_bytes())
    mine, other = (deployments(Layout(root))[0] for root in (workspace, elsewhere))
    other.name = "elsewhere"  # one name is one deployment
    mine_id, other_id = mine.apply(), other.apply()

    @flow(name="announce")
    def announce() -> None:
        announce_new_snapshot(_validated(workspace))

    announce()
    end = time.monotonic() + 30
    while not (started := _runs(mine_id)) and time.monotonic() < end:
        time.sleep(0.2)
    assert [run.parameters for run in started] == [{"workspace": str(workspace)}]
    assert not _runs(other_id)


@pytest.mark.usefixtures("empty_server")
def test_what_is_served_for_another_workspace_is_not_taken_over(
    workspace: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "params.yaml").write_bytes((workspace / "params.yaml").read_bytes())
    theirs = deployments(Layout(elsewhere))[1]
    deployment_id = theirs.apply()
    served = deployments(Layout(workspace))
    with pytest.raises(ResourceError, match="served for another workspace") as caught:
        take_over(served)
    assert str(elsewhere) in caught.value.where
    take_over(served, own_server=True)  # there it is this workspace, before it was moved
    with get_client(sync_client=True) as client:
        client.pause_deployment(deployment_id)  # as `lesionflow schedule` does at its end
    take_over(served)


@pytest.mark.usefixtures("empty_server")
def test_what_a_work_pool_ran_under_the_same_name_is_taken_over_without_its_pull_steps(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = deployments(Layout(workspace))
    ingest, tune = served[1], served[2]
    away = [{"prefect.deployments.steps.set_working_directory": {"directory": "/elsewhere"}}]
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name(ingest.flow_name)
        client.create_deployment(flow_id, name=ingest.name, pull_steps=away)
        kept = tune.apply()
        take_over(served)
        found = client.read_deployment(ingest.apply())
        assert not found.pull_steps
        assert client.read_deployment(kept).name == tune.name
    assert "ingest/scheduled is taken over" in capsys.readouterr().out


def _validated(workspace: Path) -> Layout:
    layout = Layout(workspace)
    layout.validation_report.mkdir(parents=True)
    profile = {"content_id": "c" * 64, "synthetic": True, "num_images": 3, "classes": {"nv": 3}}
    (layout.validation_report / "profile.json").write_text(json.dumps(profile), encoding="utf-8")
    return layout


def _runs(deployment: UUID) -> list[Any]:
    wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(flow_run_filter=wanted))
