"""A run whose process was killed would be shown as running for ever: the next run corrects that.

A machine that goes down, `kill -9` and a second Ctrl-C leave a run no time to tell the Prefect
server how it ended. Which run is at work therefore stands in `.lesionflow/run.json` while it is.
Only who has the workspace to itself reads and writes it: who stands there then has no process left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from components.atomic import write_json
from components.layout import Layout
from tasks.artifacts import shown
from tasks.journal import note_in_run

KILLED = "its process was killed or the machine went down; the next run went on from there"


@contextmanager
def named_at_work(layout: Layout) -> Iterator[None]:
    """Name the present flow run in the workspace during the block; settle one that was killed.

    For the holder of the workspace only.
    """
    place = layout.run_at_work
    killed = _read(place)
    if killed is not None:
        _say_that_it_crashed(killed)
    write_json(place, {"run_id": str(flow_run.id)})
    try:
        yield
    finally:
        place.unlink(missing_ok=True)


def _read(place: Path) -> UUID | None:
    try:
        return UUID(json.loads(place.read_text(encoding="utf-8"))["run_id"])
    except (FileNotFoundError, ValueError, KeyError):  # the power went while it was written
        return None


@shown
def _say_that_it_crashed(run_id: UUID) -> None:
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:
            return  # of another server, or its database was removed
        if run.state is None or run.state.is_final():
            return
        _end_tasks(client, run_id)
        client.set_flow_run_state(run_id, Crashed(message=KILLED), force=True)
        name = client.read_flow(run.flow_id).name
    note_in_run(run, "run_ended", flow=name, state="Crashed", message=KILLED)


def _end_tasks(client: SyncPrefectClient, run_id: UUID) -> None:
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    for task_run in client.read_task_runs(flow_run_filter=of_run):
        if task_run.state is None or not task_run.state.is_final():
            client.set_task_run_state(task_run.id, Crashed(message=KILLED), force=True)
