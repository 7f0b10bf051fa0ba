"""One run at a time in a workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from filelock import FileLock, Timeout
from prefect import get_run_logger
from prefect.context import FlowRunContext
from prefect.states import Completed

from components.errors import ResourceError
from components.layout import Layout
from components.params import load_params
from flows.time_limit import time_limit
from tasks.links import described
from tasks.notifications import SKIPPED

T = TypeVar("T")


class BusyError(ResourceError):
    """Another run is at work in the workspace."""


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


@contextmanager
def exclusive(layout: Layout, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the workspace; the lock goes with the process, so a killed run leaves none behind.

    Raises
    ------
    BusyError
        Another run holds it, still after `wait_seconds`.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(layout.state / "run.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _wait(lock, layout, wait_seconds)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: FileLock, layout: Layout, seconds: float) -> None:
    waited = ""
    try:
        if seconds:
            waited = f", still after {seconds / 60:g} minutes"
            get_run_logger().info(
                "another run is at work in this workspace: waiting up to %g minutes", seconds / 60
            )
        lock.acquire(timeout=seconds, poll_interval=1.0)
    except Timeout as error:
        raise BusyError(
            f"another run is at work in this workspace{waited}",
            where=str(layout.root),
            fix="wait until it has ended (`lesionflow status`), or use another clone",
        ) from error
