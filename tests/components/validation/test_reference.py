"""Which snapshot is the last one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.errors import TableError
from components.layout import Layout
from components.validation.reference import read_reference, remember_profile


def _profile(content: str, *, synthetic: bool = False, classes: str = "ab") -> dict[str, Any]:
    return {"content_id": content, "synthetic": synthetic, "classes": dict.fromkeys(classes, 1)}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.validation_report.mkdir(parents=True)
    layout.reference_profile.parent.mkdir()
    layout.reference_profile.write_text("{}")
    return layout


def _remember(layout: Layout, profile: dict[str, Any]) -> bool:
    (layout.validation_report / "profile.json").write_text(json.dumps(profile))
    return remember_profile(layout)


def _reference(layout: Layout, profile: dict[str, Any]) -> str | None:
    found = read_reference(layout.reference_profile, profile)
    return found and found["content_id"]


def test_the_first_snapshot_has_no_reference(layout: Layout) -> None:
    assert _reference(layout, _profile("one")) is None


def test_remembering_a_snapshot_changes_nothing_for_it(layout: Layout) -> None:
    for content in ("one", "two", "three"):
        before = _reference(layout, _profile(content))
        assert _remember(layout, _profile(content))
        assert _reference(layout, _profile(content)) == before
        assert not _remember(layout, _profile(content))
    assert _reference(layout, _profile("three")) == "two"
    assert _reference(layout, _profile("four")) == "three"


def test_the_file_does_not_grow(layout: Layout) -> None:
    for number in range(20):
        _remember(layout, _profile(str(number)))
    assert len(json.loads(layout.reference_profile.read_text())["snapshots"]) == 2


def test_only_snapshots_of_one_kind_are_compared(layout: Layout) -> None:
    _remember(layout, _profile("drawn", synthetic=True))
    _remember(layout, _profile("real"))
    _remember(layout, _profile("folders", classes="xy"))
    assert _reference(layout, _profile("new")) == "real"
    assert _reference(layout, _profile("new", synthetic=True)) == "drawn"
    assert _reference(layout, _profile("new", classes="xz")) is None


def test_the_newer_profile_of_the_same_content_replaces_the_older(layout: Layout) -> None:
    _remember(layout, _profile("one"))
    assert _remember(layout, _profile("one") | {"num_images": 3})
    assert len(json.loads(layout.reference_profile.read_text())["snapshots"]) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 9, "snapshots": []}', "{"])
def test_a_damaged_file_is_refused(text: str, layout: Layout) -> None:
    layout.reference_profile.write_text(text)
    with pytest.raises(TableError, match="take the file from Git again"):
        read_reference(layout.reference_profile, _profile("one"))
