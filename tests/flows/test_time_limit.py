"""A run of a deployment that hangs is ended, says what hung, and lets go of its workspace."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import ParamsError
from components.params import load_params
from flows.time_limit import TimeLimitError, time_limit

# Both ring the same alarm clock.
pytestmark = pytest.mark.timeout(method="thread")
_SECOND = 1 / 3600


def test_what_hangs_is_ended_with_what_to_do() -> None:
    started = time.monotonic()
    with pytest.raises(TimeLimitError) as caught, time_limit(0.2 * _SECOND):
        time.sleep(60)
    assert time.monotonic() - started < 10
    assert "no stage was at work" in caught.value.what
    assert "schedule.timeout_hours" in caught.value.where
    assert caught.value.exit_code == 2


def test_nothing_that_handles_errors_goes_on_after_it() -> None:
    with pytest.raises(TimeLimitError), time_limit(0.2 * _SECOND):
        try:
            time.sleep(60)
        except Exception:
            pytest.fail("taken for an error of the work")


def test_what_ends_in_time_is_left_alone_also_afterwards() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(0.3 * _SECOND):
        pass
    with pytest.raises(ValueError, match="own"), time_limit(0.3 * _SECOND):
        raise ValueError("own")
    time.sleep(0.5)
    assert signal.getsignal(signal.SIGALRM) is before


def test_no_limit_is_none() -> None:
    with time_limit(None):
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize("hours", [0, -1, "long"])
def test_a_limit_that_is_no_time_is_refused(
    workspace: Path, edit_params: Callable[..., None], hours: object
) -> None:
    edit_params(workspace, schedule={"timeout_hours": hours})
    with pytest.raises(ParamsError, match=r"schedule\.timeout_hours"):
        load_params(workspace / "params.yaml")
