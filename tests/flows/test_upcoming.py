"""The next runs are those of the cron expressions, in their own time zone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prefect.server.schemas.schedules import CronSchedule
from pydantic import ValidationError

from components.params import ScheduleParams
from flows.upcoming import next_runs

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
