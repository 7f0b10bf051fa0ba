"""What every flow does around its work: one at a time, tagged, and not for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from prefect.context import FlowRunContext
from prefect.states import Completed

from components.layout import Layout
from components.params import load_params
from flows.time_limit import time_limit
from flows.workspace import BusyError, exclusive
from tasks.links import described
from tasks.notifications import SKIPPED

T = TypeVar("T")


def alone(layout: Layout, work: Callable[[], T]) -> T:
    """Do `work`, tagged and linked, while no other run is at work in the workspace.

    A run by hand that finds another one is refused at once: somebody is there to read it. A run
    of a deployment waits for `schedule.wait_minutes`, and then ends in the state `Skipped`, which
    is no failure: the next one does what this one would have done. It may work for
    `schedule.timeout_hours`.

    Raises
    ------
    BusyError
        Another run is at work, and this one was started by hand.
    TimeLimitError
        This run belongs to a deployment and took too long.
    """
    scheduled = of_deployment()
    schedule = load_params(layout.params).schedule
    minutes, hours = (schedule.wait_minutes, schedule.timeout_hours) if scheduled else (0.0, None)
    try:
        with exclusive(layout, 60.0 * minutes), described(layout), time_limit(hours):
            return work()
    except BusyError as busy:
        if not scheduled:
            raise
        # Prefect takes a state that a flow returns for the run's own.
        return cast(T, Completed(name=SKIPPED, message=busy.what))


def of_deployment() -> bool:
    """Whether the present run belongs to a deployment: nobody sits in front of it."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return run is not None and run.deployment_id is not None
