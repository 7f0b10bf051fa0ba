"""Every event of a run is one whole line of JSON, whoever writes at the same time."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Crashed

from components.errors import SourceError
from components.layout import Layout
from flows.hooks import hooks
from tasks import journal
from tasks.journal import note

pytestmark = pytest.mark.usefixtures("prefect_server")


@flow(name="ingest", flow_run_name="ingest 2026-11-20", **hooks())
def _ingest(workspace: Path, fails: bool = False) -> None:
    note(Layout(workspace), "stage_started", stage="pack", why="has not run yet")
    if fails:
        raise SourceError("no such folder: /x", where="sources.0", fix="correct the path")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_its_start_its_events_and_its_end_in_order(tmp_path: Path) -> None:
    _ingest(tmp_path)
    events = _lines(Layout(tmp_path).events)
    assert [each["event"] for each in events] == ["run_started", "stage_started", "run_ended"]
    assert len({each["run_id"] for each in events}) == 1
    assert {each["run"] for each in events} == {"ingest 2026-11-20"}
    assert all(datetime.fromisoformat(each["time"]).utcoffset() is not None for each in events)
    assert events[-1]["state"] == "Completed"
    assert events[-1]["seconds"] >= 0


def test_a_failed_run_ends_with_why_where_and_what_to_do_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        _ingest(tmp_path, fails=True)
    ended = _lines(Layout(tmp_path).events)[-1]
    assert ended["state"] == "Failed"
    assert ended["message"].endswith(
        "no such folder: /x; where: sources.0; to do: correct the path"
    )


@pytest.mark.parametrize(
    ("when", "state", "written"),
    [("on_cancellation", Cancelling(), "Cancelled"), ("on_crashed", Crashed(), "Crashed")],
)
def test_the_end_of_a_run_is_written_when_its_runner_has_ended_it(
    tmp_path: Path, when: str, state: State[Any], written: str
) -> None:
    run = FlowRun(
        flow_id=uuid4(),
        name="ingest 2026-11-20",
        parameters={"workspace": str(tmp_path)},
        start_time=datetime.now(UTC),
    )
    for hook in hooks()[when]:
        hook(flow=_ingest, flow_run=run, state=state)  # as Prefect's runner calls it
    (ended,) = _lines(Layout(tmp_path).events)
    assert (ended["event"], ended["state"]) == ("run_ended", written)


def test_another_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESIONFLOW_EVENTS", str(tmp_path / "logs" / "all.jsonl"))
    _ingest(tmp_path)
    assert len(_lines(tmp_path / "logs" / "all.jsonl")) == 3
    assert not Layout(tmp_path).events.exists()


def test_lines_stay_whole_and_none_is_lost_when_many_write_and_the_file_is_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MAX_BYTES", 10_000)
    layout = Layout(tmp_path)

    def write(writer: int) -> None:
        for number in range(40):
            note(layout, "stage_ended", writer=writer, number=number)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [layout.events, *layout.state.glob("events.jsonl.[0-9]")]
    assert len(files) > 1
    assert all(path.stat().st_size <= 10_000 for path in files)
    written = [(line["writer"], line["number"]) for path in files for line in _lines(path)]
    assert sorted(written) == [(writer, number) for writer in range(4) for number in range(40)]
