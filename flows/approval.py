"""A person's word before a promotion: the run is suspended and takes no place while it waits.

In the UI the run asks with a form. When it is answered, the run is scheduled again and starts from
the top; all is up to date then, so it comes back here at once, with the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger
from prefect.context import get_run_context
from prefect.exceptions import Pause
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from components.errors import LesionflowError
from components.registry.decision import gate_rows
from tasks.notifications import tell


class ApprovalError(LesionflowError):
    """A promotion cannot wait for a person here."""


class Approval(RunInput):
    """The answer of the person who was asked. A gate that is not passed cannot be overruled."""

    promote: bool = Field(description="Make it champion?")
    name: str = Field(min_length=1, description="Who decides.")
    why: str = Field(default="", description="Kept with the run.")


def require_deployment() -> None:
    """Check that this run can be taken up again after it was suspended.

    Raises
    ------
    ApprovalError
        It belongs to no deployment.
    """
    run = _flow_run()
    if run.deployment_id is None:
        raise ApprovalError(
            "a promotion with approval must be able to start again when it is answered",
            where=f"flow run {run.name}",
            fix="start it from the deployment promote/by-hand (`lesionflow schedule`, or a work "
            "pool), in the UI or with `prefect deployment run`; or set approval to false",
        )


def ask(decision: Mapping[str, Any]) -> Approval:
    """Suspend the run until a person has said what to do about `decision`.

    An answer counts for this candidate against this champion; another pair is asked about anew.
    """
    question = _question(decision)
    champion = decision["champion_before"] or "none"
    try:
        answer = suspend_flow_run(
            wait_for_input=Approval.with_initial_data(description=question, promote=False),
            key=f"{decision['candidate']['content_id'][:16]}-{champion}",
        )
    except Pause:
        tell(_flow_run(), f"approval wanted: {question}")
        raise
    assert isinstance(answer, Approval)
    get_run_logger().info(
        "%s by %s: %s", "approved" if answer.promote else "declined", answer.name, answer.why
    )
    return answer


def _question(decision: Mapping[str, Any]) -> str:
    gates = ", ".join(f"{row['gate']} {row['verdict']}" for row in gate_rows(decision))
    champion = decision["champion_before"]
    against = f"instead of {champion}" if champion else "as the first one"
    return (
        f"Make {decision['candidate']['label']} champion of {decision['model_name']}, {against}? "
        f"Gates: {gates}. The artifacts of this run have the numbers and the report."
    )


def _flow_run() -> Any:
    return get_run_context().flow_run  # type: ignore[union-attr]
