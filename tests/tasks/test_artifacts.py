"""What is shown in the UI never decides whether a stage succeeded."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from components.atomic import write_json, write_text
from components.layout import Layout
from components.progress import Progress
from tasks.artifacts import ProgressArtifact, publish, publish_decision, publish_failure, shown
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


def _write_report(folder: Path, num_quarantined: int) -> Path:
    """Write what a report of `validate` has at least; return the first page of its Data Docs."""
    check = {"suite": "images", "expectation": "images.decodable", "title": "every image decodes"}
    found = {"severity": "quarantine", "success": False, "observed": num_quarantined}
    offenders = [f"P{number}" for number in range(num_quarantined)]
    entry = check | found | {"num_offenders": num_quarantined, "offenders": offenders}
    document = {"num_images": 40, "num_quarantined": num_quarantined, "expectations": [entry]}
    write_json(folder / "summary.json", document)
    page = folder / "docs" / "index.html"
    write_text(page, f"Data Docs with {num_quarantined}")
    return page


def _last_validation() -> Any:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["validation"])),
            sort=ArtifactSort.CREATED_DESC,
        )[0]


def _linked(description: str) -> Path:
    """Return the file that the artifact's link opens."""
    address = description.partition("Data Docs: ")[2]
    assert address.startswith("file:///")
    assert " " not in address  # else a terminal or a browser cuts it there
    return Path(url2pathname(address.removeprefix("file://")))


@pytest.mark.usefixtures("prefect_server")
def test_the_validation_artifact_links_the_pages_that_it_sums_up(tmp_path: Path) -> None:
    """A run that was stopped has pages of its own; those of the last good one stay."""
    layout = Layout(tmp_path / "skin lesions")
    good = _write_report(layout.validation_report, num_quarantined=2)
    stopped = _write_report(layout.failed_validation_report, num_quarantined=30)
    publish("validate", layout)
    artifact = _last_validation()
    assert artifact.description.startswith("2 of 40 images quarantined. Data Docs: ")
    assert _linked(artifact.description).read_text() == good.read_text() == "Data Docs with 2"
    assert "images.decodable" in artifact.data
    publish_failure("validate", layout)
    artifact = _last_validation()
    assert artifact.description.startswith("This stopped the run. 30 of 40 images quarantined.")
    assert _linked(artifact.description).read_text() == stopped.read_text() == "Data Docs with 30"
