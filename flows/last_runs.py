"""The last runs of this workspace, asked of the server that answers, else read from its database.

A temporary server would take seconds to start, only to read a few rows.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.errors import ResourceError, in_one_line
from components.layout import Layout
from flows.server import answers, host, prefect_home, settle_server

FLOWS = ("retrain", "retrain-clone", "ingest", "train", "promote", "tune")
_QUERY = """
select flow_run.name, flow_run.state_name, flow_run.start_time, flow_run.end_time,
       flow_run_state.message, flow_run.parameters
from flow_run join flow on flow.id = flow_run.flow_id
left join flow_run_state on flow_run_state.id = flow_run.state_id
where flow_run.start_time is not null and flow.name in ({})
order by flow_run.start_time desc limit 200
"""


@dataclass(frozen=True)
class LastRun:
    """One flow run; times are UTC, ISO 8601, and `message` is the first line of its state's."""

    name: str
    state: str
    started_at: str
    seconds: float | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready document."""
        return asdict(self)


def read_last_runs(layout: Layout, count: int) -> list[LastRun]:
    """Return the last `count` runs of the workspace, the newest first.

    Raises
    ------
    ResourceError
        The server of `PREFECT_API_URL` does not answer, or the database cannot be read.
    """
    settle_server(layout)
    url = os.environ.get("PREFECT_API_URL")
    found = _from_server(layout, url) if url else _from_database(layout)
    return found[:count]


def _from_server(layout: Layout, url: str) -> list[LastRun]:
    if not answers(url.rstrip("/").removesuffix("/api")):
        raise ResourceError(
            "the Prefect server does not answer",
            where=f"PREFECT_API_URL, {host(url)}",
            fix="start it, or unset PREFECT_API_URL to use this workspace's own",
        )
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
            sort=FlowRunSort.START_TIME_DESC,
            limit=200,
        )
    return [
        _run(
            run.name,
            run.state_name,
            run.start_time,
            run.end_time,
            run.state.message if run.state else None,
        )
        for run in runs
        if run.start_time and _is_here(run.parameters, layout)
    ]


def _from_database(layout: Layout) -> list[LastRun]:
    database = Path(os.environ.get("PREFECT_HOME", prefect_home(layout))) / "prefect.db"
    if not database.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            query = _QUERY.format(", ".join("?" * len(FLOWS)))
            rows = connection.execute(query, FLOWS).fetchall()
    except sqlite3.Error as error:
        raise ResourceError(
            f"Prefect's database cannot be read: {error}",
            where=str(database),
            fix="`lesionflow ui` brings an old one up to date",
        ) from error
    # What lies in the workspace is its own, even if it was moved since.
    own = database.parent == prefect_home(layout)
    return [
        _run(name, state, _time(started), _time(ended), message)
        for name, state, started, ended, message, parameters in rows
        if own or _is_here(json.loads(parameters), layout)
    ]


def _is_here(parameters: dict[str, Any], layout: Layout) -> bool:
    """Runs in clean clones have no workspace: they are everybody's."""
    return str(parameters.get("workspace", layout.root)) == str(layout.root)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None


def _run(
    name: str,
    state: str | None,
    started: datetime | None,
    ended: datetime | None,
    message: str | None,
) -> LastRun:
    assert started is not None
    return LastRun(
        name=name,
        state=state or "unknown",
        started_at=started.astimezone(UTC).isoformat(timespec="seconds"),
        seconds=round((ended - started).total_seconds(), 1) if ended else None,
        message=in_one_line(message or ""),
    )
