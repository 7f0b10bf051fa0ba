"""Look for new data: take them in, check them, split them, pack them. No training.

Runs nightly. A failed check stops here, before anything is trained on bad data.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from components.dataset.fingerprint import refresh_sources
from components.layout import Layout
from components.params import load_params
from flows.pipeline import bring_up_to_date, run_name
from flows.workspace import exclusive


@flow(name="ingest", flow_run_name=run_name, persist_result=False)
def ingest(workspace: Path) -> list[str]:
    """Bring the data stages of `workspace` up to date; return those that were not."""
    layout = Layout(workspace)
    with exclusive(layout):
        refresh_sources(load_params(layout.params), layout)
        return sorted(bring_up_to_date(layout, kinds=("split", "pack")))
