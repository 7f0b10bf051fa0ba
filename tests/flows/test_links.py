"""A run is tagged with what it is about, and links to where it comes from and leads to."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.runtime import flow_run

from components.errors import SourceError
from components.layout import Layout
from tasks.links import described

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow(name="described")
def _described(workspace: Path, fails: bool = False) -> str:
    with described(Layout(workspace)):
        if fails:
            raise SourceError("no such folder", where="sources.0", fix="correct the path")
    return str(flow_run.id)


def _run(run_id: str) -> tuple[list[str], list[Any]]:
    mine = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run_id)]),
        key=ArtifactFilterKey(any_=["links"]),
    )
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run_id)).tags, client.read_artifacts(artifact_filter=mine)


def test_a_finished_workspace_is_linked_from_commit_to_champion(finished_copy: Path) -> None:
    commit = _commit(finished_copy)
    with tags("team"):
        found, (links,) = _run(_described(finished_copy))
    assert {"team", "recipe:quickstart", "model:quickstart-synthetic"} < set(found)
    (snapshot,) = [tag for tag in found if tag.startswith("snapshot:")]
    assert snapshot.removeprefix("snapshot:") in links.data
    assert "/runs/flow-run/" in links.data
    assert f"`{commit}` |" in links.data
    assert (finished_copy / "reports" / "report.html").as_uri() in links.data
    docs = finished_copy / "reports" / "validation" / "docs" / "index.html"
    assert docs.as_uri() in links.data
    assert "quickstart-synthetic v0001, since 20" in links.data
    assert "Ray dashboard" not in links.data  # the private cluster has none


def _commit(workspace: Path) -> str:
    for command in (
        ["add", "params.yaml"],
        ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "-m", "params"],
    ):
        subprocess.run(["git", *command], cwd=workspace, check=True, capture_output=True)
    head = ["git", "rev-parse", "HEAD"]
    return subprocess.run(
        head, cwd=workspace, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_what_is_not_committed_is_said(workspace: Path) -> None:
    commit = _commit(workspace)
    with (workspace / "params.yaml").open("a", encoding="utf-8") as params:
        params.write("# edited\n")
    _, (links,) = _run(_described(workspace))
    assert f"`{commit}`, with changes that are not committed" in links.data


def test_a_new_workspace_has_what_is_known_of_it(workspace: Path) -> None:
    found, (links,) = _run(_described(workspace))
    assert set(found) == {"recipe:quickstart", "model:quickstart-synthetic"}
    assert "report" not in links.data
    assert "champion" not in links.data


def test_a_failed_run_is_linked_too(workspace: Path) -> None:
    state = _described(workspace, fails=True, return_state=True)
    assert state.is_failed()
    assert len(_run(str(state.state_details.flow_run_id))[1]) == 1
