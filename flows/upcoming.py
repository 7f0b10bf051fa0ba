"""When the schedules of `params.yaml` start runs next."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from components.params import ScheduleParams


def next_runs(schedule: ScheduleParams, now: datetime | None = None) -> list[dict[str, Any]]:
    """Return the next start of each scheduled flow, the earliest first.

    Each has `flow`, `cron`, `timezone` and `at` (ISO 8601, in that time zone). A schedule of null
    is left out.
    """
    zone = ZoneInfo(schedule.timezone)
    here = (now or datetime.now(UTC)).astimezone(zone)
    crons = {"ingest": schedule.ingest_cron, "retrain": schedule.retrain_cron}
    found = [
        {
            "flow": flow,
            "cron": cron,
            "timezone": schedule.timezone,
            "at": next(CronSim(cron, here)).isoformat(timespec="minutes"),
        }
        for flow, cron in crons.items()
        if cron is not None
    ]
    return sorted(found, key=lambda run: datetime.fromisoformat(run["at"]))
