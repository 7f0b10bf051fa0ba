"""What is shown in the UI never decides whether a stage succeeded."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from components.atomic import write_json, write_text
from components.layout import Layout
from components.progress import Progress
from tasks.artifacts import ProgressArtifact, publish_decision, shown
from tasks.graph import Stage
from tasks.links import tag_run
from tasks.stage import run_stage
from tasks.stage_artifacts import publish, publish_failure

GRAPH = """
stages:
  make:
    cmd: python make.py
    outs: [out.txt]
"""
MAKE = """
import time
from pathlib import Path

for done in (1, 3):
    while not Path(f"seen-{done}").exists():
        print(f"progress make: {done}/4 images | {done} of them", flush=True)
        time.sleep(0.2)
Path("out.txt").write_text("made")
"""


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


@pytest.fixture
def at_work(tmp_path: Path) -> Path:
    """Return a workspace whose stage says how far it is, and goes on when somebody has seen it."""
    (tmp_path / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    (tmp_path / "make.py").write_text(MAKE, encoding="utf-8")
    for start in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(start, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@flow(name="watched")
def _watched(workspace: Path) -> list[str]:
    """Run the stage; return what the server said of its progress meanwhile, and at the end."""
    stage = Stage("make", (), ("has not run yet",))
    work = run_stage.submit(stage, stale=True, workspace=workspace, cluster=dict)
    seen = []
    try:
        for done, share in ((1, 25.0), (3, 75.0)):
            seen.append(_until(lambda shown, share=share: shown.data == share).description)
            (workspace / f"seen-{done}").touch()
    finally:  # the flow waits for its stage
        for done in (1, 3):
            (workspace / f"seen-{done}").touch()
    work.wait()
    return [*seen, _until(lambda shown: shown.data == 100.0).description]


def _until(is_there: Callable[[Any], bool]) -> Any:
    """Wait until the progress that the server has is the one wanted; return it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = _versions("make-progress")
        if found and is_there(found[0]):
            assert len(found) == 1, "one bar that moves, not one for each step"
            return found[0]
        time.sleep(0.1)
    pytest.fail(f"the server has {_versions('make-progress')}")


@pytest.mark.usefixtures("prefect_server")
def test_the_progress_of_a_stage_moves_on_the_server_while_it_works(at_work: Path) -> None:
    assert _watched(at_work) == [
        "make: 1/4 images 1 of them",
        "make: 3/4 images 3 of them",
        "make: done",
    ]


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


def _versions(key: str) -> list[Any]:
    """Return what the server has under a key, the latest first."""
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
            sort=ArtifactSort.CREATED_DESC,
        )


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
    artifact = _versions("validation")[0]
    assert artifact.description.startswith("2 of 40 images quarantined. Data Docs: ")
    assert _linked(artifact.description).read_text() == good.read_text() == "Data Docs with 2"
    assert "images.decodable" in artifact.data
    publish_failure("validate", layout)
    artifact = _versions("validation")[0]
    assert artifact.description.startswith("This stopped the run. 30 of 40 images quarantined.")
    assert _linked(artifact.description).read_text() == stopped.read_text() == "Data Docs with 30"
