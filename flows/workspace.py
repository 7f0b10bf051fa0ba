"""One run at a time in a workspace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from components.errors import ResourceError
from components.layout import Layout


@contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Hold the workspace; the lock goes with the process, so a killed run leaves none behind.

    Raises
    ------
    ResourceError
        Another run holds it.
    """
    layout.state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(layout.state / "run.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ResourceError(
            "another run is at work in this workspace",
            where=str(layout.root),
            fix="wait until it has ended (`lesionflow status`), or use another clone",
        ) from error
    try:
        yield
    finally:
        lock.release()
