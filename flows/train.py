"""All trainings side by side, on one Ray cluster; what they need is brought up to date first."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from components.layout import Layout
from flows.alone import alone
from flows.hooks import hooks
from flows.pipeline import bring_up_to_date, run_name


@flow(name="train", flow_run_name=run_name, persist_result=False, **hooks())
def train(workspace: Path) -> list[str]:
    """Bring every training of `workspace` up to date; return the stages that were not."""
    layout = Layout(workspace)
    return alone(layout, lambda: sorted(bring_up_to_date(layout, kinds=("train",))))
