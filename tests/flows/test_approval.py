"""A promotion with approval waits for a person, suspended, and does what the person says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flow_runs import resume_flow_run
from prefect.runner import Runner

from components.layout import Layout
from components.params import load_params
from components.registry.versions import open_registry
from flows.approval import ApprovalError
from flows.deployments import deployments, take_over
from flows.promote import promote
from tasks.promotion import decline, propose_best
from tests.receiver import Receiver

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def unpromoted(without_champion: Path) -> Layout:
    """Return a workspace with everything but a champion."""
    return Layout(without_champion)


@pytest.fixture
def run_by_hand(unpromoted: Layout) -> Iterator[Callable[..., Any]]:
    """Return a function that runs or takes up a flow run of promote/by-hand, as a worker would."""
    served = deployments(unpromoted)
    take_over(served)
    deployment_id = served[-1].apply()

    def run(flow_run_id: UUID | None = None, **parameters: Any) -> Any:
        with get_client(sync_client=True) as client:
            if flow_run_id is None:
                created = client.create_flow_run_from_deployment(
                    deployment_id, parameters=parameters
                )
                flow_run_id = created.id
            asyncio.run(Runner(name="by-hand").execute_flow_run(flow_run_id))
            return client.read_flow_run(flow_run_id)

    yield run
    with get_client(sync_client=True) as client:
        client.pause_deployment(deployment_id)  # as `lesionflow schedule` does at its end


def _champion(layout: Layout) -> str | None:
    return open_registry(load_params(layout.params).registry, layout).alias("champion")


@pytest.mark.slow
def test_it_waits_without_holding_the_workspace_and_promotes_when_approved(
    unpromoted: Layout,
    run_by_hand: Callable[..., Any],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LESIONFLOW_WEBHOOK_URL", receiver.url)
    waiting = run_by_hand(approval=True)
    assert waiting.state_name == "Suspended"
    assert _champion(unpromoted) is None
    (asked,) = receiver.bodies
    assert asked["text"].startswith("approval wanted: Make ")
    resume_flow_run(waiting.id, run_input={"promote": True, "name": "Dr. No", "why": "better"})
    ended = run_by_hand(waiting.id)
    assert ended.state_name == "Completed"
    assert _champion(unpromoted) == "v0001"
    assert "promoted v0001" in receiver.bodies[-1]["text"]


def test_a_run_whose_question_is_declined_says_so_and_promotes_nothing(
    unpromoted: Layout, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESIONFLOW_WEBHOOK_URL", receiver.url)
    by_hand = deployments(unpromoted)[-1]
    by_hand.name = "declined"
    deployment_id = by_hand.apply()
    with get_client(sync_client=True) as client:
        created = client.create_flow_run_from_deployment(
            deployment_id, parameters={"approval": True}
        )

        def take_up() -> Any:
            """Run it as its process would, in this one."""
            return run_flow(promote, client.read_flow_run(created.id), return_type="state")

        with pytest.raises(Pause):  # this process would end here
            take_up()
        assert client.read_flow_run(created.id).state_name == "Suspended"
        (asked,) = receiver.bodies
        assert asked["text"].startswith("approval wanted: Make ")
        assert "champion of quickstart-synthetic, as the first one?" in asked["text"]
        assert f"/runs/flow-run/{created.id}" in asked["text"]
        answer = {"promote": False, "name": "Dr. No", "why": "too few images"}
        resume_flow_run(created.id, run_input=answer)
        state = take_up()
    assert state.name == "Completed"
    decision = state.result()["decision"]
    assert (decision["promoted"], decision["changed"]) == (False, False)
    assert decision["reason"] == "declined by Dr. No: too few images"
    assert _champion(unpromoted) is None
    assert len(receiver.bodies) == 1  # there is no new champion to tell
    lines = map(json.loads, unpromoted.events.read_text(encoding="utf-8").splitlines())
    (decided,) = [
        line
        for line in lines
        if line["event"] == "promotion_decided" and line["run_id"] == str(created.id)
    ]
    assert not decided["promoted"]
    assert decided["reason"] == "declined by Dr. No: too few images"


def test_a_declined_candidate_is_no_champion_and_has_used_the_test_set(unpromoted: Layout) -> None:
    @flow(name="declining")
    def declining() -> dict[str, Any]:
        return decline(unpromoted.root, propose_best(unpromoted.root), "declined by Dr. No")

    assert not declining()["promoted"]
    assert _champion(unpromoted) is None
    (uses,) = json.loads(next(unpromoted.root.rglob("test_uses.json")).read_text()).values()
    assert [use["passed"] for use in uses] == [False]


def test_a_run_without_a_deployment_cannot_wait_and_says_so_before_any_work(
    workspace: Path,
) -> None:
    with pytest.raises(ApprovalError, match="promote/by-hand"):
        promote(workspace, approval=True)
    assert not (workspace / "data" / "raw").exists()
