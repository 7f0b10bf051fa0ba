"""The machine goes down, or somebody presses Ctrl-C: the same command goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .measure import half_written
from .runs import Run, epochs_stored, results, states_in_the_ui, went_on_after

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill


@pytest.mark.slow
def test_everything_killed_while_training_then_the_same_command(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    killed = start(untrained, "lesionflow", "retrain")
    killed.wait_until(lambda: epochs_stored(untrained) >= 2)
    killed.kill_everything()
    stored = epochs_stored(untrained)
    again = start(untrained, "lesionflow", "retrain")
    assert again.wait() == 0, again.said
    assert went_on_after(again, stored), again.said
    assert results(untrained) == expected
    assert states_in_the_ui(untrained)[-2:] == ["CRASHED", "COMPLETED"]


def test_interrupted_once_ends_in_order(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    run = start(untrained, "lesionflow", "retrain")
    run.wait_until(lambda: epochs_stored(untrained) >= 2)
    run.interrupt()
    assert run.wait(60) == 130, run.said
    assert run.said.count("interrupted; the same command goes on from here") == 1
    assert run.leaves_no_process(5)
    assert half_written(untrained) == []
    stored = epochs_stored(untrained)
    again = start(untrained, "lesionflow", "retrain")
    assert again.wait() == 0, again.said
    assert went_on_after(again, stored), again.said
    assert results(untrained) == expected


def test_interrupted_twice_ends_at_once(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    run = start(untrained, "lesionflow", "retrain")
    run.wait_until(lambda: epochs_stored(untrained) >= 2)
    run.interrupt()
    time.sleep(0.3)
    run.interrupt()
    pressed = time.monotonic()
    assert run.wait(60) == 130, run.said
    assert time.monotonic() - pressed < 10
    assert run.said.count("interrupted; the same command goes on from here") == 1
    stored = epochs_stored(untrained)
    again = start(untrained, "lesionflow", "retrain")
    assert again.wait() == 0, again.said
    assert went_on_after(again, stored), again.said
    assert results(untrained) == expected
    assert states_in_the_ui(untrained)[-2:] == ["CRASHED", "COMPLETED"]
