"""A run whose process was killed would be shown as running for ever: the next run corrects that.

A machine that goes down, `kill -9` and a second Ctrl-C leave a run no time to tell the Prefect
server how it ended. Which run is at work therefore stands in `.lesionflow/run.json` while it is.
Only who has the workspace to itself reads and writes it: who stands there then has no process left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from httpx import HTTPStatusError
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound, Pause
from prefect.runtime import flow_run
from prefect.states import Crashed

from components.atomic import write_json
from components.layout import Layout
from tasks.artifacts import shown
from tasks.journal import note_in_run

KILLED = "its process was killed or the machine went down; the next run went on from there"


@dataclass(frozen=True)
class _Attempt:
    """A run that is retried keeps its id: what is alive then is another attempt."""

    run_id: str
    run_count: int


@contextmanager
def named_at_work(layout: Layout) -> Iterator[None]:
    """Name the present flow run in the workspace during the block; settle one that was killed.

    For the holder of the workspace only. The name stays where the run was ended from outside: it
    may be killed before it has said how it ended.
    """
    place = layout.run_at_work
    left = _read(place)
    if left is not None:
        _say_that_it_crashed(left)
    place.unlink(missing_ok=True)
    _name(place)
    try:
        yield
    except (Exception, Pause):
        place.unlink(missing_ok=True)
        raise
    place.unlink(missing_ok=True)


def _read(place: Path) -> _Attempt | None:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return _Attempt(str(UUID(found["run_id"])), int(found["run_count"]))
    except (FileNotFoundError, ValueError, KeyError):  # the power went while it was written
        return None


@shown
def _name(place: Path) -> None:
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
    write_json(place, asdict(_Attempt(str(run.id), run.run_count)))


@shown
def _say_that_it_crashed(attempt: _Attempt) -> None:
    try:
        with get_client(sync_client=True) as client:
            _settle(client, attempt)
    except ObjectNotFound:
        pass  # it is another server's, or the database was removed
    except (HTTPStatusError, OSError) as error:
        get_run_logger().warning("the run %s stays as it is shown: %s", attempt.run_id, error)


def _settle(client: SyncPrefectClient, attempt: _Attempt) -> None:
    run = client.read_flow_run(UUID(attempt.run_id))
    if run.run_count != attempt.run_count:
        return
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    unsettled = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    for task_run in client.read_task_runs(
        flow_run_filter=of_run,
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=unsettled)),
    ):
        client.set_task_run_state(task_run.id, Crashed(message=KILLED), force=True)
    if run.state is not None and run.state.is_final():
        return  # whoever started it has said how it ended
    client.set_flow_run_state(run.id, Crashed(message=KILLED), force=True)
    name = client.read_flow(run.flow_id).name
    note_in_run(run, "run_ended", flow=name, state="Crashed", message=KILLED)
