"""What is shown in the UI never decides whether a stage succeeded."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from components.layout import Layout
from components.progress import Progress
from tasks.artifacts import ProgressArtifact, publish_decision, shown
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


@pytest.fixture
def shows() -> tuple[Callable[[], None], list[str]]:
    """Return a function that shows something, and what it has shown."""
    calls: list[str] = []

    @shown
    def show() -> None:
        calls.append("shown")

    return show, calls


@pytest.mark.usefixtures("server_away")
def test_a_server_that_is_away_is_not_called(shows: tuple[Callable[[], None], list[str]]) -> None:
    """Prefect's client would try for a minute, at every line of progress."""
    show, calls = shows
    show()
    assert calls == []


def test_a_server_that_is_there_is_called(shows: tuple[Callable[[], None], list[str]]) -> None:
    show, calls = shows
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: address}):
            show()
    assert calls == ["shown"]


def test_a_server_behind_a_proxy_is_called(
    shows: tuple[Callable[[], None], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its name means only the proxy knows."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    show, calls = shows
    with temporary_settings({PREFECT_API_URL: "http://prefect.invalid/api"}):
        show()
    assert calls == ["shown"]
