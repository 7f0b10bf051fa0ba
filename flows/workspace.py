"""One run at a time in a workspace.

Commands import this before they have settled which Prefect server to use. Prefect reads that when
it is imported, so nothing here imports it from the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from components.errors import ResourceError
from components.layout import Layout


class BusyError(ResourceError):
    """Another run is at work in the workspace."""


@contextmanager
def exclusive(layout: Layout, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the workspace; the lock goes with the process, so a killed run leaves none behind.

    A thread that holds it may take it again: a command holds it from its first change on, and the
    run that it starts takes it, too.

    Raises
    ------
    BusyError
        Another run holds it, still after `wait_seconds`.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    lock = FileLock((layout.state / "run.lock").resolve(), is_singleton=True)
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
            from prefect import get_run_logger

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
