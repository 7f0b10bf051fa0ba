"""One line of JSON for each event of a run, for whoever collects logs (`docs/watching.md`).

The file is `.lesionflow/events.jsonl` of the workspace, or the one that `LESIONFLOW_EVENTS` names.
No line holds an address of a notification or a parameter's value.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from filelock import FileLock
from prefect import Flow, runtime
from prefect.client.schemas.objects import FlowRun, State

from components.errors import in_one_line
from components.layout import Layout

EVENTS = "LESIONFLOW_EVENTS"
MAX_BYTES = 4 << 20
"""When the file has grown to this, it becomes `events.jsonl.1`; three such files are kept."""
_KEPT = 3


def note(layout: Layout, event: str, **facts: object) -> None:
    """Write down `event` of the present flow run."""
    run = {"run_id": runtime.flow_run.id, "run": runtime.flow_run.name}
    _append(_place(layout.root), event, run | facts)


def note_start(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001
    """Write down that a run has started (a hook for running)."""
    _note_run("run_started", flow, flow_run)


def note_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Write down how a run has ended (a hook for all ends).

    Of a cancelled run, and of one that was killed, Prefect's runner calls it from outside, by the
    names of the parameters, and of a cancelled one before its last state.
    """
    started = flow_run.start_time
    seconds = (state.timestamp - started).total_seconds() if started else 0.0
    _note_run(
        "run_ended",
        flow,
        flow_run,
        state="Cancelled" if state.is_cancelling() else state.name,
        seconds=round(max(seconds, 0.0), 3),
        message=in_one_line(state.message or ""),
    )


def note_in_run(run: FlowRun, event: str, **facts: object) -> None:
    """Write down `event` of `run`, where no run is at work: in a hook.

    A run in a clean clone has no folder that lasts: it is written down only where
    `LESIONFLOW_EVENTS` says so.
    """
    workspace = run.parameters.get("workspace")
    if workspace is not None or EVENTS in os.environ:
        identity = {"run_id": str(run.id), "run": run.name}
        _append(_place(Path(str(workspace))), event, identity | facts)


def _note_run(event: str, flow: Flow[..., Any], run: FlowRun, **facts: object) -> None:
    note_in_run(run, event, flow=flow.name, **facts)


def _place(workspace: Path) -> Path:
    return Path(os.environ.get(EVENTS) or Layout(workspace).events)


def _append(path: Path, event: str, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = logging.makeLogRecord({"msg": event, "facts": facts})
    # Several threads and processes write here, and any of them may be the one that rotates.
    with FileLock(path.with_name(f"{path.name}.lock")):
        handler = RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=_KEPT, encoding="utf-8")
        with closing(handler):
            handler.setFormatter(_JsonLine())
            handler.emit(record)


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts: dict[str, Any] = record.__dict__["facts"]
        return json.dumps({"time": time, "event": record.msg, **facts}, ensure_ascii=False)
