"""`ingest` announces data that no run has succeeded on, and that starts `retrain`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.events import ResourceSpecification

from components.atomic import write_text
from components.layout import Layout
from flows.deployments import deployments
from flows.ingest import ingest
from tasks.events import SNAPSHOT_NEW, WORKSPACE_LABEL

pytestmark = pytest.mark.usefixtures("prefect_server")


def _other_pictures(layout: Layout, edit_params: Callable[..., None]) -> None:
    edit_params(layout.root, sources__0__options__lesions=152)


def _as_if_retrain_had_failed(layout: Layout, _: Callable[..., None]) -> None:
    write_text(layout.reference_profile, "{}\n")


@pytest.mark.parametrize(
    "make_new", [_as_if_retrain_had_failed, pytest.param(_other_pictures, marks=pytest.mark.slow)]
)
def test_only_data_that_no_run_has_succeeded_on_are_announced_and_start_retrain(
    make_new: Callable[..., None], finished_copy: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(finished_copy, schedule={"retrain_cron": None, "ingest_cron": None})
    layout = Layout(finished_copy)
    retrain = deployments(layout)[0]
    retrain.name = finished_copy.parent.name  # no other test's
    deployment_id = retrain.apply()
    assert ingest(finished_copy) == []  # announces nothing: there is one event in the end
    make_new(layout, edit_params)
    assert "validate" in ingest(finished_copy)
    new = _content_id(layout)

    (event,) = _eventually(lambda: _announced(finished_copy))
    assert event.payload["content_id"] == new
    assert event.resource.id == f"lesionflow.snapshot.{new[:12]}"
    (started,) = _eventually(lambda: _runs(deployment_id))
    assert started.created_by.type == "AUTOMATION"
    assert started.parameters == {"workspace": str(finished_copy)}


def _content_id(layout: Layout) -> str:
    return str(json.loads(layout.manifest.read_text(encoding="utf-8"))["content_id"])


def _announced(workspace: Path) -> list[Any]:
    here = ResourceSpecification({WORKSPACE_LABEL: str(workspace)})
    wanted = EventFilter(
        event=EventNameFilter(name=[SNAPSHOT_NEW]), resource=EventResourceFilter(labels=here)
    )
    with get_client(sync_client=True) as client:
        return list(client.read_events(wanted, limit=10).events)


def _runs(deployment: UUID) -> list[Any]:
    wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(flow_run_filter=wanted))


def _eventually(look: Callable[[], list[Any]]) -> list[Any]:
    end = time.monotonic() + 30
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.2)
    return found
