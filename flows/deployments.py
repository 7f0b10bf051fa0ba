"""The schedules, as Prefect deployments: nightly `ingest`, weekly `retrain`.

`lesionflow schedule` serves them from one process; each run works in this workspace, one at a
time, and does only what has changed.
"""

from __future__ import annotations

from typing import Any

from prefect import Flow, serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron

from components.layout import Layout
from components.params import load_params
from flows.ingest import ingest
from flows.promote import promote
from flows.retrain import retrain


def deployments(layout: Layout) -> list[RunnerDeployment]:
    """Return the deployments of the workspace: two by schedule, `promote` by hand."""
    schedule = load_params(layout.params).schedule

    def deployment(flow: Flow[..., Any], name: str, cron: str | None) -> RunnerDeployment:
        return RunnerDeployment.from_flow(
            flow,
            name=name,
            schedules=[Cron(cron, timezone=schedule.timezone)] if cron else None,
            parameters={"workspace": str(layout.root)},
            tags=["lesionflow"],
        )

    return [
        deployment(retrain, "scheduled", schedule.retrain_cron),
        deployment(ingest, "scheduled", schedule.ingest_cron),
        deployment(promote, "by-hand", None),
    ]


def serve_deployments(layout: Layout) -> None:
    """Serve the deployments until interrupted; one run at a time, for the workspace is one."""
    serve(*deployments(layout), limit=1)
