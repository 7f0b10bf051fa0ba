"""The last runs come from the server that answers, else from the workspace's database."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL

from components.errors import ResourceError
from components.layout import Layout
from flows.last_runs import read_last_runs
from flows.server import answers


@flow(name="ingest", flow_run_name="ingest of {workspace.name}")
def _ingest(workspace: Path, fails: bool = False) -> None:
    if fails:
        raise ValueError(f"no such folder\nlooked in {workspace}")


@pytest.mark.usefixtures("prefect_server")
def test_a_server_is_asked_for_the_runs_of_this_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    _ingest(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        _ingest(tmp_path, fails=True)
    _ingest(tmp_path / "elsewhere")
    found = read_last_runs(Layout(tmp_path), 200)
    assert "ingest of elsewhere" not in [run.name for run in found]
    # Those of clean clones are everybody's, and other tests may have had some.
    last, before = [run for run in found if run.name == f"ingest of {tmp_path.name}"]
    assert (last.state, before.state) == ("Failed", "Completed")
    assert last.message.endswith("no such folder")
    assert before.seconds is not None


def test_a_server_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with pytest.raises(ResourceError, match="does not answer") as caught:
        read_last_runs(Layout(tmp_path), 5)
    assert "127.0.0.1:1" in caught.value.where


@pytest.mark.parametrize("place", ["127.0.0.1:1", "127.0.0.1", "127.0.0.1:port"])
def test_the_password_of_a_server_is_not_repeated(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:hunter2@{place}/api")
    with pytest.raises(ResourceError, match="does not answer") as caught:
        read_last_runs(Layout(tmp_path), 5)
    assert "hunter2" not in str(caught.value)
    assert caught.value.where.endswith(place)


@pytest.mark.usefixtures("prefect_server")
def test_a_server_answers_to_an_address_with_a_password() -> None:
    url = str(PREFECT_API_URL.value()).removesuffix("/api").replace("://", "://me:hunter2@")
    assert answers(url)


def test_without_a_server_the_database_is_read(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(finished / ".lesionflow" / "prefect"))
    runs = read_last_runs(Layout(finished), 5)
    assert [run.state for run in runs] == ["Completed"]
    assert runs[0].name.startswith("retrain ")
    assert runs[0].seconds is not None
    assert runs[0].seconds > 1


def test_where_nothing_has_run_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert read_last_runs(Layout(tmp_path), 5) == []
