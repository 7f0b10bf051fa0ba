"""What the steps around a promotion write down for the next run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.errors import RegistryError
from components.evaluation.uses import read_test_uses
from components.layout import Layout
from components.params import load_params
from components.recipes import set_values
from components.registry.versions import open_registry
from tasks.promotion import recall_test_uses


@pytest.fixture
def layout(tmp_path: Path, repo: Path) -> Layout:
    """A folder with the quickstart recipe, and nothing but that."""
    layout = Layout(tmp_path)
    shutil.copyfile(repo / "params" / "quickstart.yaml", layout.params)
    layout.test_uses.parent.mkdir()
    shutil.copyfile(repo / "data" / "test_uses.json", layout.test_uses)
    return layout


def test_a_new_report_is_told_what_the_registry_has_recorded(layout: Layout) -> None:
    recall_test_uses(layout.root)
    assert read_test_uses(layout.test_uses) == {}
    registry = open_registry(load_params(layout.params).registry, layout)
    for candidate in ("one", "two"):
        registry.looks.add("the test set", {"candidate": candidate})
    recall_test_uses(layout.root)
    assert read_test_uses(layout.test_uses) == {"the test set": 2}


def test_without_a_registry_nothing_is_begun(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    set_values(layout, ["registry.uri=s3://some-bucket/registry"])
    with pytest.raises(RegistryError, match="cannot be reached"):
        recall_test_uses(layout.root)
