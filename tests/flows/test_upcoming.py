"""The next runs are those that the server has planned, else those of the cron expressions."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from prefect.states import Scheduled
from pydantic import ValidationError

from components.layout import Layout
from components.params import ScheduleParams
from flows.deployments import deployments
from flows.upcoming import next_runs, planned_runs

SATURDAY = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)


def test_the_earliest_comes_first_at_the_hour_of_its_time_zone() -> None:
    schedule = ScheduleParams(timezone="Europe/Vienna")
    assert [(run["flow"], run["at"]) for run in next_runs(schedule, SATURDAY)] == [
        ("ingest", "2026-11-22T02:00+01:00"),
        ("retrain", "2026-11-22T03:00+01:00"),
    ]


def test_what_is_by_hand_only_is_left_out() -> None:
    schedule = ScheduleParams(retrain_cron=None, ingest_cron=None)
    assert next_runs(schedule, SATURDAY) == []


@pytest.mark.parametrize(
    "cron",
    [
        "0 3 * * 0",
        "*/5 * * * *",
        "0 3 1,15 * MON",
        "30 2 */2 * *",
        "0 3 * JAN-MAR 1-5",
        "0 0 29 2 *",
    ],
)
def test_prefect_runs_when_status_says(cron: str) -> None:
    schedule = ScheduleParams(retrain_cron=cron, ingest_cron=None, timezone="Europe/Vienna")
    start = SATURDAY + timedelta(seconds=1)
    theirs = CronSchedule(cron=cron, timezone="Europe/Vienna")
    (expected,) = asyncio.run(theirs.get_dates(1, start=start))
    (run,) = next_runs(schedule, start)
    assert datetime.fromisoformat(run["at"]) == expected


@pytest.mark.parametrize(
    "cron", ["0 0 3 * * *", "0 3 LW * *", "0 3 * * 5L", "0 3 L * *", "0 3 */2 * 0", "@daily", "x"]
)
def test_what_prefect_would_not_run_or_run_at_other_times_is_refused(cron: str) -> None:
    with pytest.raises(ValidationError, match="is no cron expression"):
        ScheduleParams(retrain_cron=cron)


@pytest.mark.usefixtures("prefect_server")
def test_what_is_served_is_told_as_the_server_has_planned_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    layout = Layout(workspace)
    retrain, ingest, *_ = deployments(layout)
    retrain.name = ingest.name = "served"
    planned = {retrain.apply(): (9, 2), ingest.apply(): (1, 8)}
    with get_client(sync_client=True) as client:
        for deployment, days in planned.items():
            for day in days:
                later = Scheduled(scheduled_time=SATURDAY + timedelta(days=day))
                client.create_flow_run_from_deployment(deployment, state=later)
        assert planned_runs(layout, "UTC") is None  # the server knows them, and nothing waits
        client.get_scheduled_flow_runs_for_deployments(list(planned))  # as what serves them does
        end = time.monotonic() + 30
        while planned_runs(layout, "UTC") is None and time.monotonic() < end:
            time.sleep(0.2)
        assert planned_runs(layout, "Europe/Vienna") == [
            {"flow": "ingest", "timezone": "Europe/Vienna", "at": "2026-11-22T18:00+01:00"},
            {"flow": "retrain", "timezone": "Europe/Vienna", "at": "2026-11-23T18:00+01:00"},
        ]
        assert planned_runs(Layout(workspace.parent), "UTC") is None
        for deployment in planned:
            client.pause_deployment(deployment)
        assert planned_runs(layout, "UTC") is None
