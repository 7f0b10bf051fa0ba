"""What every flow does around its work: one at a time, tagged, and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.states import Completed

from components.layout import Layout
from components.params import load_params
from flows.terminal import shorten_run_lines
from flows.time_limit import time_limit
from flows.workspace import BusyError, exclusive
from tasks.killed_runs import named_at_work
from tasks.links import described
from tasks.notifications import SKIPPED

T = TypeVar("T")
_COME_AGAIN = ("SCHEDULE", "AUTOMATION")
"""What Prefect calls the creators of runs that no person asked for."""


def alone(layout: Layout, work: Callable[[], T]) -> T:
    """Do `work`, tagged and linked, while no other run is at work in the workspace.

    A run by hand that finds another one is refused at once: somebody is there to read it. A run
    of a deployment waits for `schedule.wait_minutes`. One that a schedule or an event started then
    ends in the state `Skipped`, which is no failure: the next one does what this one would have
    done. One that a person asked for fails: nobody else does it. A run of a deployment may work for
    `schedule.timeout_hours`.

    Raises
    ------
    BusyError
        Another run is at work, and a person asked for this one.
    TimeLimitError
        This run belongs to a deployment and took too long.
    """
    shorten_run_lines()  # a run of a deployment has a process that no command of ours started
    waits = of_deployment()
    schedule = load_params(layout.params).schedule
    minutes, hours = (schedule.wait_minutes, schedule.timeout_hours) if waits else (0.0, None)
    try:
        with (
            exclusive(layout, 60.0 * minutes),
            named_at_work(layout),
            described(layout),
            time_limit(hours),
        ):
            return work()
    except BusyError as busy:
        if not _comes_again():
            raise
        # Prefect takes a state that a flow returns for the run's own.
        return cast(T, Completed(name=SKIPPED, message=busy.what))


def of_deployment() -> bool:
    """Whether the present run belongs to a deployment: nobody sits in front of it."""
    run = _run()
    return run is not None and run.deployment_id is not None


def _comes_again() -> bool:
    """Whether a schedule or an event started the present run, and will start others."""
    run = _run()
    creator = run.created_by if run is not None else None
    return creator is not None and creator.type in _COME_AGAIN


def _run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context is not None else None
