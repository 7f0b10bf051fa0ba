"""The final flow: evaluate, rank, and promote the best model if it passes the gates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow

from components.layout import Layout
from flows.alone import alone
from flows.approval import ask, require_deployment
from flows.hooks import hooks
from flows.pipeline import bring_up_to_date, run_name
from tasks.notifications import tell_champion
from tasks.promotion import decline, promote_best, propose_best, remember


@flow(
    name="promote",
    flow_run_name=run_name,
    persist_result=False,
    **hooks(tell_champion),
)
def promote(workspace: Path, approval: bool = False) -> dict[str, Any]:
    """Evaluate and rank what is trained, and promote it if it passes the gates.

    Args:
        workspace: Folder with dvc.yaml and params.yaml, on the machine that runs this.
        approval: Ask a person before the champion changes; the run waits suspended.

    Returns
    -------
    dict
        `done`: names of the stages that were out of date; `decision`: the promotion's record.

    Raises
    ------
    RunError
        Stages failed.
    ApprovalError
        `approval` is asked for in a run that belongs to no deployment.
    """
    layout = Layout(workspace)
    if not approval:
        return alone(layout, lambda: finish(layout))
    require_deployment()

    def work() -> dict[str, Any]:
        done = bring_all_up_to_date(layout)
        return {"done": sorted(done), "decision": _with_approval(layout)}

    return alone(layout, work)


def finish(layout: Layout, leave: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Bring everything up to date, remember it, hold the best against the gates.

    Parameters
    ----------
    leave
        Called before the champion may move, when nothing that the next run must know changes any
        more: what raises there keeps the champion as it is.

    Returns
    -------
    dict
        As `promote`.
    """
    done = bring_all_up_to_date(layout)
    leave()
    return {"done": sorted(done), "decision": promote_best(layout.root)}


def bring_all_up_to_date(layout: Layout) -> set[str]:
    """Bring every stage up to date and remember it; return those that were out of date."""
    done = bring_up_to_date(layout)
    readers = remember(layout.root)
    if readers:
        bring_up_to_date(layout, kinds=readers)
    return done


def _with_approval(layout: Layout) -> dict[str, Any]:
    proposal = propose_best(layout.root)
    if not proposal["changed"]:
        return promote_best(layout.root)  # nothing to approve: refused, or champion already
    answer = ask(proposal)
    if answer.promote:
        return promote_best(layout.root, proposal)
    return decline(layout.root, proposal, f"declined by {answer.name}: {answer.why}")
