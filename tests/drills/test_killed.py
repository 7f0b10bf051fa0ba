"""The machine goes down, or somebody presses Ctrl-C: the same command goes on from there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .runs import Run, epochs_stored, half_written, results, states_in_the_ui

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill


def test_everything_killed_while_training_then_the_same_command(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    killed = start(untrained, "lesionflow", "retrain")
    killed.wait_until(lambda: epochs_stored(untrained) >= 2)
    killed.kill_everything()
    assert killed.leaves_no_process()
    again = start(untrained, "lesionflow", "retrain")
    assert again.wait() == 0, again.said
    assert "goes on after epoch" in again.said
    assert results(untrained) == expected
    assert half_written(untrained) == []
    assert states_in_the_ui(untrained)[-2:] == ["CRASHED", "COMPLETED"]
    assert again.leaves_no_process()


def test_interrupted_once_ends_in_order(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    run = start(untrained, "lesionflow", "retrain")
    run.wait_until(lambda: epochs_stored(untrained) >= 1)
    run.interrupt()
    assert run.wait(60) == 130, run.said
    assert run.said.count("interrupted; the same command goes on from here") == 1
    assert "Traceback" not in run.said
    assert run.leaves_no_process(5)
    assert half_written(untrained) == []
    again = start(untrained, "lesionflow", "retrain")
    assert again.wait() == 0, again.said
    assert results(untrained) == expected


def test_interrupted_twice_ends_at_once(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    run = start(untrained, "lesionflow", "retrain")
    run.wait_until(lambda: epochs_stored(untrained) >= 1)
    run.interrupt()
    time.sleep(0.3)
    run.interrupt()
    pressed = time.monotonic()
    assert run.wait(60) != 0
    assert time.monotonic() - pressed < 10
    assert run.leaves_no_process()
    again = start(untrained, "lesionflow", "retrain")
    assert again.wait() == 0, again.said
    assert results(untrained) == expected
    assert states_in_the_ui(untrained)[-2:] == ["CRASHED", "COMPLETED"]
