"""A search as a whole, on a cluster of its own: killed, gone on with, written down, applied."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.layout import Layout
from components.params import load_params
from components.tables import read_table
from components.training.ranks import Ranks
from components.tuning.results import Trial
from components.tuning.study import make_study
from components.tuning.tune import apply_best, tune

BACKBONE = "resnet18"
BACKBONES = """
backbones:
  mobilenet_v3_large: {}
  resnet18:
    batch_size: 8  # small steps
"""
# One trial after the other; a learning rate at which nothing is learned, and one that diverges.
TUNE = """
tune:
  num_samples: 3
  max_epochs: 3
  grace_period: 1
  reduction_factor: 2
  space: {learning_rate: [1e-9, 1e+30], unfreeze: [all]}
"""
DRIVER = """
import sys
from pathlib import Path
from components.layout import Layout
from components.params import load_params
from components.tuning.tune import tune
layout = Layout(Path(sys.argv[1]))
tune(load_params(layout.params), layout, sys.argv[2])
"""


@pytest.fixture
def layout(stage: Callable[..., Layout]) -> Layout:
    """Return a workspace with a search of three trials in its `params.yaml`."""
    made = stage()
    text = made.params.read_text().replace("cpus_per_worker: 0.5", "cpus_per_worker: 2.0")
    lines = [line for line in text.splitlines() if not line.startswith("backbones:")]
    made.params.write_text("\n".join(lines) + BACKBONES + TUNE)
    return made


@pytest.mark.slow
def test_a_killed_search_goes_on_and_spares_what_a_diverging_trial_does_not_touch(
    layout: Layout, repo: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    params = load_params(layout.params)
    study = make_study(params, layout, BACKBONE)
    first = Path(study.job_of(0).checkpoints, study.identity)
    command = [sys.executable, "-c", DRIVER, str(layout.root), BACKBONE]
    driver = subprocess.Popen(command, cwd=repo)
    deadline = time.monotonic() + 240
    while driver.poll() is None and not list(first.glob("epoch-00002/state.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    capfd.readouterr()

    outcome = tune(params, layout, BACKBONE)
    said = capfd.readouterr().out
    assert "trial 0: epoch 3/3" in said
    assert "trial 0: epoch 1/3" not in said, "it started anew"
    as_it_is, *others = outcome.trials
    assert as_it_is.ended(3) == "finished"
    assert {trial.values["learning_rate"] for trial in others} == {1e-9, 1e30}
    for trial in others:
        if trial.values["learning_rate"] == 1e30:
            assert trial.ended(3) == "failed"
            assert "no longer a number" in trial.failure
        else:
            assert not trial.failure
    assert outcome.best is as_it_is

    # The trials are the usual training, and an interruption changes nothing.
    from components.training.worker import learn

    alone = replace(study.job_of(0), storage=str(layout.root / "alone"))
    history = learn(alone, Ranks(), lambda _: None, clock={}).history
    assert as_it_is.scores == tuple(each["validation_balanced_accuracy"] for each in history)

    # What was found is written down; what was stored is gone; the same search is not done again.
    rows = read_table(outcome.table)
    assert list(rows["trial"]) == [0, 1, 2]
    assert outcome.picture.read_bytes().startswith(b"\x89PNG")
    assert not [path for path in (layout.root / ".lesionflow").rglob("*") if path.is_file()]
    capfd.readouterr()
    assert tune(params, layout, BACKBONE) == outcome
    assert "nothing has changed" in capfd.readouterr().out


def test_the_best_values_are_written_below_the_backbone_and_comments_are_kept(
    layout: Layout,
) -> None:
    best = Trial(2, {"learning_rate": 1e-5, "unfreeze": "last_block", "batch_size": 32}, (0.9,))
    changes = apply_best(layout, BACKBONE, best)
    assert changes[0] == f"backbones.{BACKBONE}.learning_rate: (default) -> 1e-05"
    assert changes[2] == f"backbones.{BACKBONE}.batch_size: 8 -> 32"
    assert "# small steps" in layout.params.read_text()
    recipe = load_params(layout.params).training_of(BACKBONE)
    assert (recipe.learning_rate, recipe.unfreeze, recipe.batch_size) == (1e-5, "last_block", 32)
    # DVC reads numbers as this does: 1e-05 must be none of its strings.
    document = YAML(typ="safe").load(layout.params.read_text())
    assert document["backbones"][BACKBONE]["learning_rate"] == 1e-5
    assert json.dumps(document["backbones"]["mobilenet_v3_large"]) == "{}"


def test_a_recipe_that_is_best_as_it_is_stays(layout: Layout) -> None:
    before = layout.params.read_bytes()
    assert apply_best(layout, BACKBONE, Trial(0, {"learning_rate": 1e-3}, (0.9,))) == []
    assert layout.params.read_bytes() == before
