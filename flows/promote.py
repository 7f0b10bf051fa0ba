"""The final flow: evaluate, rank, and promote the best model if it passes the gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from components.layout import Layout
from flows.pipeline import bring_up_to_date, run_name
from flows.workspace import exclusive
from tasks.promotion import promote_best, remember


@flow(name="promote", flow_run_name=run_name, persist_result=False)
def promote(workspace: Path) -> dict[str, Any]:
    """Evaluate and rank what is trained, and promote; the decision's record is returned."""
    layout = Layout(workspace)
    with exclusive(layout):
        return finish(layout)


def finish(layout: Layout) -> dict[str, Any]:
    """Bring everything up to date, remember it, hold the best against the gates.

    Returns
    -------
    dict
        `done`: names of the stages that were out of date; `decision`: the promotion's record.
    """
    done = bring_up_to_date(layout)
    readers = remember(layout.root)
    if readers:
        bring_up_to_date(layout, kinds=readers)
    return {"done": sorted(done), "decision": promote_best(layout.root)}
