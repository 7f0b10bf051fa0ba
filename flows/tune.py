"""Better hyperparameters for one backbone: a search on the training and validation parts.

Runs by hand (`lesionflow tune BACKBONE`, or the deployment `tune/by-hand`). Brings the packed
images and the split up to date, tries values on one Ray cluster, and writes what it found to
`reports/tune/`. It is no stage of `dvc.yaml`, because what it changes, if it is told to, is
`params.yaml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from pydantic import Field

from components.backbones.config import BACKBONE_NAMES
from components.layout import Layout
from components.params import load_params
from components.tuning.study import check_study
from components.tuning.tune import Outcome, apply_best
from flows.alone import alone
from flows.hooks import hooks
from flows.pipeline import bring_up_to_date, run_name
from tasks.tuning import search

# The form in the UI offers what there is; what is not in params.yaml the study refuses.
BackboneName = Annotated[str, Field(json_schema_extra={"enum": list(BACKBONE_NAMES)})]


@flow(name="tune", flow_run_name=run_name, persist_result=False, **hooks())
def tune(workspace: Path, backbone: BackboneName, apply: bool = False) -> tuple[Outcome, list[str]]:
    """Search for `backbone`; with `apply`, write the best values into `params.yaml`.

    Args:
        workspace: Folder with dvc.yaml and params.yaml, on the machine that runs this.
        backbone: One of the backbones in params.yaml.
        apply: Write the best values into params.yaml there.

    Returns
    -------
    outcome, changes
        What was found, and what was changed in `params.yaml`, one line per key.

    Raises
    ------
    ParamsError
        The backbone or the search space is wrong; nothing has been done then.
    RunError
        What the search needs could not be brought up to date.
    """
    layout = Layout(workspace)
    check_study(load_params(layout.params), backbone)

    def work() -> tuple[Outcome, list[str]]:
        bring_up_to_date(layout, kinds=("pack", "split"))
        outcome = search(workspace, backbone)
        get_run_logger().info("%s", outcome.verdict)
        return outcome, apply_best(layout, backbone, outcome.best) if apply else []

    return alone(layout, work)
