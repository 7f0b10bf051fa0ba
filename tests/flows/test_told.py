"""The flows themselves tell of their ends, write them down, and are named, tagged and linked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)

from components.layout import Layout
from flows.ingest import ingest
from flows.promote import promote
from flows.retrain import retrain
from flows.train import train
from flows.tune import tune
from tests.receiver import Receiver

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(autouse=True)
def _webhook(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESIONFLOW_WEBHOOK_URL", receiver.url)


def _events(workspace: Path, run_id: UUID) -> dict[str, dict[str, Any]]:
    """Return what the run has written down: event -> its line."""
    lines = Layout(workspace).events.read_text(encoding="utf-8").splitlines()
    mine = [line for line in map(json.loads, lines) if line["run_id"] == str(run_id)]
    return {line["event"]: line for line in mine}


def _run(state: Any) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


def _links(run: Any) -> str:
    mine = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=["links"])
    )
    with get_client(sync_client=True) as client:
        (links,) = client.read_artifacts(artifact_filter=mine)
    return str(links.data)


@pytest.mark.parametrize("flow", [retrain, ingest])
def test_a_run_that_finds_no_data_is_told_and_tagged(
    flow: Any, workspace: Path, receiver: Receiver, edit_params: Callable[..., None]
) -> None:
    edit_params(workspace, sources=[{"kind": "ham10000", "uri": "/nowhere/at/all"}])
    state = flow(workspace, return_state=True)
    run = _run(state)
    assert state.is_failed()
    (body,) = receiver.bodies
    assert body["text"].startswith(f"{run.name} failed: ")
    assert "/nowhere/at/all" in body["text"]
    assert re.fullmatch(rf"{flow.name} \d{{4}}-\d\d-\d\d quickstart@[0-9a-f]{{4}}", run.name)
    assert {"recipe:quickstart", "model:quickstart-synthetic"} <= set(run.tags)
    assert "/runs/flow-run/" in _links(run)
    written = _events(workspace, run.id)
    assert set(written) == {"run_started", "run_ended", "notification_sent"}
    assert written["run_ended"]["state"] == "Failed"
    assert written["notification_sent"]["by"] == "LESIONFLOW_WEBHOOK_URL"


@pytest.mark.parametrize("flow", [train, promote, tune])
def test_a_run_whose_graph_cannot_be_read_is_told(
    flow: Any, workspace: Path, receiver: Receiver
) -> None:
    (workspace / "dvc.yaml").write_text("stages: [", encoding="utf-8")
    parameters = {"backbone": "resnet18"} if flow is tune else {}
    receiver.status = 500
    state = flow(workspace, **parameters, return_state=True)
    (body,) = receiver.bodies
    assert body["text"].startswith(f"{_run(state).name} failed: ")
    written = _events(workspace, state.state_details.flow_run_id)
    assert written["run_ended"]["state"] == "Failed"
    assert written["notification_failed"]["by"] == "LESIONFLOW_WEBHOOK_URL"
    assert "notification_sent" not in written


@pytest.mark.parametrize("flow", [retrain, promote])
def test_a_run_that_makes_a_champion_tells_it_and_the_next_one_has_nothing_to_tell(
    flow: Any, without_champion: Path, receiver: Receiver
) -> None:
    first = _run(flow(without_champion, return_state=True))
    (body,) = receiver.bodies
    assert body["text"].startswith(f"{first.name}: quickstart-synthetic: promoted v0001")
    assert re.fullmatch(rf"{flow.name} \d{{4}}-\d\d-\d\d quickstart@[0-9a-f]{{4}}", first.name)
    (snapshot,) = [tag for tag in first.tags if tag.startswith("snapshot:")]
    assert {"recipe:quickstart", "model:quickstart-synthetic"} <= set(first.tags)
    links = _links(first)
    assert snapshot.removeprefix("snapshot:") in links
    assert "v0001, **promoted by this run**" in links
    written = _events(without_champion, first.id)
    assert written["promotion_decided"]["changed"]
    assert written["notification_sent"]["by"] == "LESIONFLOW_WEBHOOK_URL"

    second = _run(flow(without_champion, return_state=True))
    assert second.state_name == "Completed"
    assert len(receiver.bodies) == 1
    written = _events(without_champion, second.id)
    assert not written["promotion_decided"]["changed"]
    assert not {"notification_sent", "notification_failed"} & set(written)
