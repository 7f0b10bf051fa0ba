"""The whole job: from the sources to the champion.

Runs on a schedule or by `lesionflow retrain`. Looks at the sources, brings every stage of
`dvc.yaml` up to date (the trainings side by side on one Ray cluster), writes the split's ledger,
and promotes the best model if it passes the gates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from components.dataset.catch_up import forget_listed
from components.layout import Layout
from flows.alone import alone
from flows.hooks import hooks
from flows.pipeline import run_name, take_in
from flows.promote import finish
from tasks.notifications import tell_champion


@flow(
    name="retrain",
    flow_run_name=run_name,
    persist_result=False,
    **hooks(tell_champion),
)
def retrain(workspace: Path) -> dict[str, Any]:
    """Bring everything up to date in `workspace` and promote the best model.

    Args:
        workspace: Folder with dvc.yaml and params.yaml, on the machine that runs this.

    Returns
    -------
    dict
        `done`: names of the stages that were out of date; `decision`: the promotion's record.

    Raises
    ------
    RunError
        Stages failed; what was done is kept, and the same call goes on from there.
    """
    layout = Layout(workspace)

    def work() -> dict[str, Any]:
        forget_listed(layout)  # here, too: after a pull no stage may have anything to do
        take_in(layout)
        return finish(layout)

    return alone(layout, work)
