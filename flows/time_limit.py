"""How long a run of a deployment may take: one that hangs must not hold its workspace for ever."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from components.errors import ResourceError
from tasks.stage import running_stages


class TimeLimitError(ResourceError):
    """A run took longer than `schedule.timeout_hours`."""


class _TimeIsUp(BaseException):
    """Passes, as Ctrl-C does, through what would handle an error and go on."""

    def __init__(self, at_work: list[str]) -> None:
        super().__init__(at_work)
        self.at_work = at_work


@contextmanager
def time_limit(hours: float | None) -> Iterator[None]:
    """End the block (in the main thread) when `hours` are over; None: never.

    Raises
    ------
    TimeLimitError
        They are over. The stages that were at work have been ended.
    """
    if hours is None:
        yield
        return

    def ring(*_: object) -> None:
        raise _TimeIsUp(running_stages())

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 3600 * hours)
    try:
        yield
    except _TimeIsUp as over:
        raise _error(hours, over.at_work) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _error(hours: float, at_work: list[str]) -> TimeLimitError:
    doing = f"at work: {', '.join(at_work)}" if at_work else "no stage was at work"
    return TimeLimitError(
        f"the run was ended after {hours:g} hours ({doing})",
        where="params.yaml: schedule.timeout_hours",
        fix="look at the end of the run's log for what it waited for (a source, a node); what is "
        "done is kept, and the next run goes on from there. If it was not stuck, write more hours, "
        "or null for no limit",
    )
