"""The clock's time zone changes between two runs: nothing is out of date for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .runs import Run, results

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill
ZONES = ("Pacific/Kiritimati", "Pacific/Pago_Pago")  # 25 hours apart


@pytest.mark.slow
def test_another_time_zone_puts_nothing_out_of_date(
    done: Path, expected: dict[str, str], start: StartRun
) -> None:
    for zone in ZONES:
        run = start(done, "lesionflow", "retrain", TZ=zone)
        assert run.wait() == 0, run.said
        assert "nothing had changed" in run.said
    assert results(done) == expected


def test_what_is_trained_in_another_time_zone_is_the_same(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    trained = start(untrained, "lesionflow", "retrain", TZ=ZONES[0])
    assert trained.wait() == 0, trained.said
    assert results(untrained) == expected
    again = start(untrained, "lesionflow", "retrain", TZ=ZONES[1])
    assert again.wait() == 0, again.said
    assert "nothing had changed" in again.said
