"""The status reads well at 80 columns, and tells whether params, code or data have changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flows.status import causes, status_text

NOW = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)


def _document(**changes: Any) -> dict[str, Any]:
    return {
        "recipe": "quickstart",
        "model_name": "quickstart-synthetic",
        "champion": "v0001",
        "champion_promoted_at": "2026-11-18T16:00:00+00:00",
        "num_stages": 17,
        "stale": {},
        "next_runs": [
            {
                "flow": "ingest",
                "timezone": "Europe/Vienna",
                "at": "2026-11-22T02:00+01:00",
                "does": "looks for new data; else nothing",
            }
        ],
        "served": True,
        "last_runs": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (["params.yaml: backbones.resnet18 modified"], ["params"]),
        (["components/training/loop.py: modified", "data/raw: modified"], ["code", "data"]),
        (["changed command"], ["code"]),
        (["data/sources.json: modified"], ["data"]),
        (["data/weights.json: backbones.resnet18 modified"], ["weights"]),
        (["has not run yet"], ["first run"]),
    ],
)
def test_a_change_is_one_of_params_code_weights_or_data(
    changes: list[str], found: list[str]
) -> None:
    assert causes(changes) == found


def test_the_champions_age_and_the_next_run_are_told() -> None:
    text = status_text(_document(), NOW)
    assert "quickstart-synthetic v0001, promoted 3 days ago" in text
    assert "ingest   Sun 2026-11-22 02:00 Europe/Vienna, in 8 h: looks for new data" in text
    assert "nobody waits" not in text
    assert "nobody waits for them" in status_text(_document(served=False), NOW)


def test_stages_that_changed_for_one_reason_stand_together_and_what_is_below_comes_last() -> None:
    code = ["components/training/loop.py: modified"]
    stale = {f"train@{name}-0": code for name in ("resnet18", "resnet50", "vgg11", "vgg19")}
    text = status_text(_document(stale={**stale, "rank": [], "report": []}), NOW)
    assert "6 of 17 out of date" in text
    assert "  code  train@resnet18-0 and 3 more: components/training/loop.py: modified" in text
    assert "  below these: rank, report" in text


def test_a_failed_run_tells_why_in_few_lines_and_no_line_is_wider_than_the_terminal() -> None:
    failed = {
        "name": "retrain 2026-11-21 quickstart@3f2a",
        "state": "Failed",
        "started_at": "2026-11-21T15:00:00+00:00",
        "seconds": 73.0,
        "message": "RunError: stage train@resnet18-0 failed: " + "a long story " * 40,
    }
    text = status_text(_document(last_runs=[failed]), NOW)
    assert "  Failed     retrain 2026-11-21 quickstart@3f2a, 2 h ago, took 1 min" in text
    assert "stage train@resnet18-0 failed" in text
    assert max(map(len, text.splitlines())) < 80
    assert len(text.splitlines()) < 12


def test_a_server_that_does_not_answer_is_said_and_the_rest_is_told() -> None:
    unknown = _document(last_runs=None, last_runs_error="the server is silent", served=None)
    text = status_text(unknown, NOW)
    assert "last runs  unknown: the server is silent" in text
    assert "all 17 up to date" in text
