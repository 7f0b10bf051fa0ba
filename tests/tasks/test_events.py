"""A snapshot is announced until a run has succeeded on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect import flow

from components.layout import Layout
from components.validation.reference import remember_profile
from tasks.events import announce_new_snapshot

pytestmark = pytest.mark.usefixtures("prefect_server")


def _validated(workspace: Path, content_id: str) -> Layout:
    layout = Layout(workspace)
    layout.validation_report.mkdir(parents=True, exist_ok=True)
    profile = {"content_id": content_id, "synthetic": True, "num_images": 3, "classes": {"nv": 3}}
    (layout.validation_report / "profile.json").write_text(json.dumps(profile), encoding="utf-8")
    return layout


@flow(name="announce")
def _announce(layout: Layout) -> bool:
    return announce_new_snapshot(layout)


def test_it_is_announced_until_a_run_has_succeeded_on_it(workspace: Path) -> None:
    layout = _validated(workspace, "a" * 64)
    assert _announce(layout)
    assert _announce(layout)  # the run that it started may have failed
    remember_profile(layout)
    assert not _announce(layout)
    assert _announce(_validated(workspace, "b" * 64))
