"""Look for new data: take them in, check them, split them, pack them. No training.

Runs nightly. A failed check stops here, before anything is trained on bad data. A snapshot that no
run has succeeded on is announced by the event `lesionflow.snapshot.new`, which starts `retrain`.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from components.dataset.fingerprint import refresh_sources
from components.layout import Layout
from components.params import load_params
from flows.pipeline import bring_up_to_date, run_name
from flows.workspace import exclusive
from tasks.events import announce_new_snapshot
from tasks.notifications import tell_failure


@flow(
    name="ingest",
    flow_run_name=run_name,
    persist_result=False,
    on_failure=[tell_failure],
    on_crashed=[tell_failure],
)
def ingest(workspace: Path) -> list[str]:
    """Bring the data stages of `workspace` up to date; return those that were not.

    Args:
        workspace: Folder with dvc.yaml and params.yaml, on the machine that runs this.
    """
    layout = Layout(workspace)
    with exclusive(layout):
        refresh_sources(load_params(layout.params), layout)
        done = bring_up_to_date(layout, kinds=("split", "pack"))
    # After the workspace was let go of: a retrain that waits for this starts at once.
    announce_new_snapshot(layout)
    return sorted(done)
