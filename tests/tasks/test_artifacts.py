"""What is shown in the UI never decides whether a stage succeeded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from components.layout import Layout
from components.progress import Progress
from tasks.artifacts import ProgressArtifact, publish_decision
from tasks.links import tag_run


@pytest.fixture
def server_away() -> Iterator[None]:
    """Let nobody answer at the Prefect server's address."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), disable_run_logger():
        yield


@pytest.mark.usefixtures("server_away")
def test_a_server_that_is_away_fails_no_stage() -> None:
    publish_decision([{"gate": "unseen_test", "verdict": "passed"}], "promoted v0001")
    progress = ProgressArtifact("pack")
    progress.update(Progress("pack", 1, 2, "images", ""))
    progress.finish()


@pytest.mark.usefixtures("server_away")
def test_a_server_that_is_away_hides_no_reason_of_a_failure(workspace: Path) -> None:
    tag_run(Layout(workspace))  # as before the failure of a run is passed on
