"""Two runs at once in one workspace: the second is told, and the first does not notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .runs import Run, epochs_stored, results

StartRun = Callable[..., Run]

pytestmark = pytest.mark.drill


def test_the_second_is_refused_and_the_first_is_sound(
    untrained: Path, expected: dict[str, str], start: StartRun
) -> None:
    params = (untrained / "params.yaml").read_bytes()
    first = start(untrained, "lesionflow", "retrain")
    first.wait_until(lambda: epochs_stored(untrained) >= 1)
    seconds = [
        start(untrained, "lesionflow", "retrain"),
        start(untrained, "lesionflow", "retrain", "-S", "training.epochs=1"),
        start(untrained, "lesionflow", "use", "ham10000", "--source", "synthetic:"),
    ]
    for second in seconds:
        assert second.wait() == 2, second.said
        assert second.said.count("another run is at work in this workspace") >= 1
        assert (untrained / "params.yaml").read_bytes() == params
    assert first.wait() == 0, first.said
    assert results(untrained) == expected
