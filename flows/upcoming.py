"""When runs start next: as the server has planned them, or as `params.yaml` says."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from components.layout import Layout
from components.params import ScheduleParams
from flows.server import settle_server

SCHEDULED = ("ingest", "retrain")


def next_runs(schedule: ScheduleParams, now: datetime | None = None) -> list[dict[str, Any]]:
    """Return the next start of each flow that `schedule` has a time for, the earliest first.

    Each has `flow`, `timezone` and `at` (ISO 8601, in that time zone). A schedule of null is left
    out.
    """
    zone = ZoneInfo(schedule.timezone)
    here = (now or datetime.now(UTC)).astimezone(zone)
    crons = {"ingest": schedule.ingest_cron, "retrain": schedule.retrain_cron}
    return _in_order(
        {flow: next(CronSim(cron, here)) for flow, cron in crons.items() if cron is not None}, zone
    )


def planned_runs(layout: Layout, timezone: str) -> list[dict[str, Any]] | None:
    """Return the next start of each scheduled flow that is served, as `next_runs` does.

    Who serves the deployments of this workspace keeps the times that it started with, whatever
    `params.yaml` says since. The server plans a new schedule within seconds.

    Returns
    -------
    list or None
        None if nothing waits for the deployments.
    """
    settle_server(layout)
    if "PREFECT_API_URL" not in os.environ:
        return None
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        served = {flow: _served(client, flow, layout) for flow in SCHEDULED}
        if not any(served.values()):
            return None
        starts = {flow: _earliest(client, found) for flow, found in served.items() if found}
    return _in_order(
        {flow: start for flow, start in starts.items() if start is not None}, ZoneInfo(timezone)
    )


def _served(client: Any, flow: str, layout: Layout) -> list[Any]:
    """Return the ids of the deployments of `flow` in this workspace that something waits for."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.objects import DeploymentStatus

    return [
        each.id
        for each in client.read_deployments(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow]))
        )
        if each.status == DeploymentStatus.READY
        and not each.paused
        and each.parameters.get("workspace") == str(layout.root)
    ]


def _earliest(client: Any, deployments: list[Any]) -> datetime | None:
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    planned = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=deployments)),
        flow_run_filter=FlowRunFilter(state=planned),
        sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
        limit=1,
    )
    return runs[0].next_scheduled_start_time if runs else None


def _in_order(starts: dict[str, datetime], zone: ZoneInfo) -> list[dict[str, Any]]:
    return [
        {
            "flow": flow,
            "timezone": zone.key,
            "at": start.astimezone(zone).isoformat(timespec="minutes"),
        }
        for flow, start in sorted(starts.items(), key=lambda each: each[1])
    ]
