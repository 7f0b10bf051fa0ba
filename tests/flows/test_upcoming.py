"""The next runs are those of the cron expressions, in their own time zone."""

from __future__ import annotations

from datetime import UTC, datetime

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
