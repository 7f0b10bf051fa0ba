"""A search for hyperparameters as one Prefect task: its lines, its table and its picture."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from components.layout import Layout
from components.params import load_params
from components.tuning.tune import Outcome, tune
from tasks.artifacts import publish_search


@task(
    task_run_name="search {backbone}", cache_policy=NO_CACHE, persist_result=False, log_prints=True
)
def search(workspace: Path, backbone: str) -> Outcome:
    """Run the trials for `backbone`, or those that an interruption left; show what they found."""
    layout = Layout(workspace)
    outcome = tune(load_params(layout.params), layout, backbone)
    publish_search(backbone, outcome.rows(), outcome.verdict, outcome.picture)
    return outcome
