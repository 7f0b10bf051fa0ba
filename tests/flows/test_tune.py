"""`lesionflow tune` as a user runs it, in a workspace in which nothing has run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from components.layout import Layout
from components.params import load_params
from components.tables import read_table

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_the_trials_are_shown_and_the_best_values_are_written_where_retrain_finds_them(
    workspace: Path,
    shrink: Callable[[Path], None],
    lesionflow: Command,
    edit_params: Callable[..., None],
) -> None:
    shrink(workspace)
    # The recipe as it stands diverges, so that the other trial is the best.
    edit_params(
        workspace,
        backbones__mobilenet_v2={"learning_rate": 1e30},
        tune={"num_samples": 2, "grace_period": 1, "space": {"learning_rate": [1e-3]}},
    )
    done = lesionflow(workspace, "tune", "mobilenet_v2", "--apply")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Trials of mobilenet_v2 (judged on validation)" in done.stdout
    assert "backbones.mobilenet_v2.learning_rate: 1e+30 -> 0.001" in done.stdout
    assert "Traceback" not in done.stderr
    layout = Layout(workspace)
    assert load_params(layout.params).training_of("mobilenet_v2").learning_rate == 1e-3
    assert set(read_table(layout.tuning / "mobilenet_v2.csv")["ended"]) == {"failed", "finished"}
