"""What the steps around a promotion write down for the next run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from prefect.logging import disable_run_logger

from components.atomic import write_json
from components.errors import RegistryError
from components.evaluation.uses import read_test_uses
from components.layout import Layout
from components.params import load_params
from components.recipes import set_values
from components.registry.versions import open_registry
from components.tables import LABEL_COLUMNS, write_table
from tasks.promotion import recall_test_uses, remember


@pytest.fixture
def layout(tmp_path: Path, repo: Path) -> Layout:
    """A folder with the quickstart recipe, and nothing but that."""
    layout = Layout(tmp_path)
    shutil.copyfile(repo / "params" / "quickstart.yaml", layout.params)
    layout.test_uses.parent.mkdir()
    shutil.copyfile(repo / "data" / "test_uses.json", layout.test_uses)
    return layout


def test_the_stages_that_read_the_ledger_are_named_once_it_has_grown(layout: Layout) -> None:
    """They are brought up to date with what they themselves have led to."""
    row = {"image_id": "a", "sha256": "1", "diagnosis": "nv", "source": "some"}
    write_table(pd.DataFrame([row], columns=list(LABEL_COLUMNS)), layout.labels)
    write_table(pd.DataFrame({"image_id": ["a"], "split": ["train"]}), layout.splits)
    profile = {"content_id": "1", "synthetic": True, "classes": {"nv": 1}}
    write_json(layout.validation_report / "profile.json", profile)
    write_json(layout.reference_profile, {})
    with disable_run_logger():
        assert remember.fn(layout.root) == ("split", "validate")
        assert remember.fn(layout.root) == ()
        write_table(
            pd.DataFrame([row | {"sha256": "2"}], columns=list(LABEL_COLUMNS)), layout.labels
        )
        assert remember.fn(layout.root) == ("split", "validate")  # the ledger alone has grown


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
