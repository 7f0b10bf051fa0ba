"""The deployments: nightly `ingest`, weekly `retrain` and on new data; by hand `promote`, `tune`.

`lesionflow schedule` serves them from one process; each run works in this workspace, one at a
time, and does only what has changed. `infra/prefect/prefect.yaml` puts the same on a work pool.
Prefect describes a flow's parameters in the UI by the docstring's `Args:`; it reads no other style.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.events.schemas.automations import Posture
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron

from components.errors import ResourceError
from components.layout import Layout
from components.params import load_params
from flows.ingest import ingest
from flows.promote import promote
from flows.retrain import retrain
from flows.serving import serve_until_told_to_end
from flows.tune import tune
from tasks.events import SNAPSHOT, SNAPSHOT_NEW, WORKSPACE_LABEL


def deployments(layout: Layout) -> list[RunnerDeployment]:
    """Return the deployments of the workspace: two by schedule, two by hand."""
    schedule = load_params(layout.params).schedule

    def deployment(
        flow: Flow[..., Any], name: str, cron: str | None, **options: Any
    ) -> RunnerDeployment:
        return RunnerDeployment.from_flow(
            flow,
            name=name,
            schedules=[Cron(cron, timezone=schedule.timezone)] if cron else None,
            parameters={"workspace": str(layout.root)},
            tags=["lesionflow"],
            **options,
        )

    return [
        deployment(retrain, "scheduled", schedule.retrain_cron, triggers=[on_new_snapshot(layout)]),
        deployment(ingest, "scheduled", schedule.ingest_cron),
        deployment(tune, "by-hand", None),
        deployment(promote, "by-hand", None),
    ]


def on_new_snapshot(layout: Layout) -> DeploymentEventTrigger:
    """Return what starts a deployment when `ingest` has found a new snapshot in this workspace."""
    return DeploymentEventTrigger(
        name=f"retrain on a new snapshot in {layout.root}",
        posture=Posture.Reactive,
        expect={SNAPSHOT_NEW},
        match={"prefect.resource.id": f"{SNAPSHOT}.*", WORKSPACE_LABEL: str(layout.root)},
        threshold=1,
    )


def schedule_fields() -> dict[str, str | bool]:
    """Return what prefect.yaml asks about `schedule` of params.yaml: a step of `prefect deploy`.

    A schedule there cannot be absent: one that `params.yaml` sets to null is there, switched off.
    """
    schedule = load_params(Layout.find().params).schedule
    off = "0 0 1 1 *"
    return {
        "retrain_cron": schedule.retrain_cron or off,
        "retrain_active": schedule.retrain_cron is not None,
        "ingest_cron": schedule.ingest_cron or off,
        "ingest_active": schedule.ingest_cron is not None,
        "timezone": schedule.timezone,
    }


def serve_deployments(layout: Layout, *, own_server: bool) -> None:
    """Serve the deployments until told to end; one run at a time, for the workspace is one.

    `own_server`: the Prefect server is the workspace's own, as `take_over` means it.
    """
    served = deployments(layout)
    take_over(served, own_server=own_server)
    names = ", ".join(f"{each.flow_name}/{each.name}" for each in served)
    print(f"served until Ctrl-C, at their times or when started by hand: {names}", flush=True)
    serve_until_told_to_end(served, limit=1)


def take_over(served: Iterable[RunnerDeployment], *, own_server: bool = False) -> None:
    """Remove what `prefect deploy` has put on a work pool under the names of `served`.

    Prefect would keep the pull steps of the earlier deployment, and runs would be prepared in the
    folder, or from the clone, that those name. What the workspace's own server has is the
    workspace's, even if that was moved since.

    Raises
    ------
    ResourceError
        Another workspace's deployments have these names on this server, and are not paused: one of
        the two would no longer be served, without a word.
    """
    with get_client(sync_client=True) as client:
        for each in served:
            try:
                found = client.read_deployment_by_name(f"{each.flow_name}/{each.name}")
            except ObjectNotFound:
                continue
            theirs = found.parameters.get("workspace")
            served_there = not found.paused and not found.pull_steps
            if not own_server and served_there and theirs != each.parameters["workspace"]:
                raise ResourceError(
                    f"{each.flow_name}/{each.name} is served for another workspace",
                    where=f"{theirs}, on the Prefect server of PREFECT_API_URL",
                    fix="unset PREFECT_API_URL for a server of this workspace's own; or end "
                    "`lesionflow schedule` there, or, where it was killed, pause the deployment",
                )
            if found.pull_steps:
                pool = f" from work pool {found.work_pool_name}" if found.work_pool_name else ""
                print(f"{each.flow_name}/{each.name} is taken over{pool}", flush=True)
                client.delete_deployment(found.id)
