"""Look for new data: take them in, check them, split them, pack them. No training.

Runs nightly. A failed check stops here, before anything is trained on bad data. A snapshot that no
run has succeeded on is announced by the event `lesionflow.snapshot.new`, which starts `retrain`.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from components.dataset.catch_up import forget_listed
from components.layout import Layout
from flows.alone import alone
from flows.hooks import hooks
from flows.pipeline import bring_up_to_date, run_name, take_in
from tasks.events import announce_new_snapshot


@flow(
    name="ingest",
    flow_run_name=run_name,
    persist_result=False,
    **hooks(),
)
def ingest(workspace: Path) -> list[str]:
    """Bring the data stages of `workspace` up to date; return those that were not.

    Args:
        workspace: Folder with dvc.yaml and params.yaml, on the machine that runs this.
    """
    layout = Layout(workspace)

    def work() -> list[str]:
        forget_listed(layout)  # here, too: after a pull no stage may have anything to do
        take_in(layout)
        done = sorted(bring_up_to_date(layout, kinds=("split", "pack")))
        # The retrain that this starts waits until this run lets go of the workspace.
        announce_new_snapshot(layout)
        return done

    return alone(layout, work)
