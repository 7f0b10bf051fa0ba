"""The schedules are those of `params.yaml`, and a wrong one is refused before it is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import ParamsError
from components.layout import Layout
from components.params import load_params
from flows.deployments import deployments


def test_the_deployments_carry_cron_timezone_and_workspace(
    workspace: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(workspace, schedule={"retrain_cron": "*/5 * * * *", "timezone": "Europe/Vienna"})
    found = {f"{each.flow_name}/{each.name}": each for each in deployments(Layout(workspace))}
    assert set(found) == {"retrain/scheduled", "ingest/scheduled", "promote/by-hand"}
    (schedule,) = found["retrain/scheduled"].schedules
    assert schedule.schedule.cron == "*/5 * * * *"
    assert schedule.schedule.timezone == "Europe/Vienna"
    assert not found["promote/by-hand"].schedules
    assert {str(each.parameters["workspace"]) for each in found.values()} == {str(workspace)}


@pytest.mark.parametrize(
    ("schedule", "named"),
    [({"retrain_cron": "every night"}, "retrain_cron"), ({"timezone": "Vienna"}, "timezone")],
)
def test_a_wrong_schedule_is_refused(
    workspace: Path, edit_params: Callable[..., None], schedule: dict[str, str], named: str
) -> None:
    edit_params(workspace, schedule=schedule)
    with pytest.raises(ParamsError, match=named):
        load_params(workspace / "params.yaml")
