"""What arrives later is added: through the stages' own modules, nothing old is moved or redone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from components.dataset import ingest, measure, pack, pairs
from components.dataset.fingerprint import refresh_sources
from components.layout import Layout
from components.params import Params, parse_params, read_yaml
from components.splitting import split
from components.splitting.audit import audit
from components.splitting.ledger import append
from components.tables import read_table
from components.validation import validate
from components.validation.reference import remember_profile

STAGES = (ingest, measure, pairs, validate, split, pack)
Run = Callable[[Params], str]


def _source(lesions: int, seed: int, **options: Any) -> dict[str, Any]:
    drawn = {"lesions": lesions, "image_size": 64, "seed": seed}
    return {"kind": "synthetic", "uri": "synthetic:", "options": drawn | options}


A = _source(60, 0)
B = _source(20, 1, prefix="B-", group_prefix="B-", name="later")


@pytest.fixture(scope="module")
def params_of(repo: Path) -> Callable[..., Params]:
    """Return a function that makes params with these sources, at 16 pixels."""

    def make(*sources: dict[str, Any]) -> Params:
        document = read_yaml(repo / "params" / "quickstart.yaml") | {"sources": list(sources)}
        document["pack"]["image_size"] = 16
        document["pairs"]["min_evidence"] = 20.0  # pictures this small look alike by chance
        document["validation"]["max_quarantined_share"] = 0.2
        return parse_params(document, where="the test's params")

    return make


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.withdrawn.parent.mkdir()
    layout.withdrawn.write_text("column,value\n", encoding="utf-8")
    layout.reference_profile.write_text("{}\n", encoding="utf-8")
    return layout


@pytest.fixture
def run(layout: Layout, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the stages, and what follows a run that succeeded."""

    def run_all(params: Params) -> str:
        refresh_sources(params, layout)
        for stage in STAGES:
            _run(stage, params, layout)
        remember_profile(layout)
        append(layout.split_ledger, read_table(layout.splits), read_table(layout.labels))
        return capsys.readouterr().out

    return run_all


def _run(stage: ModuleType, params: Params, layout: Layout) -> None:
    stage.run(params, layout)


def _parts(layout: Layout) -> pd.DataFrame:
    return read_table(layout.splits).set_index("image_id")[["split", "group_id"]]


def _written(layout: Layout) -> dict[str, bytes]:
    """Return what the stages wrote, and what a run leaves in Git."""
    files = [*layout.raw.parent.rglob("*"), *layout.reports.rglob("*")]
    return {
        str(path.relative_to(layout.root)): path.read_bytes() for path in files if path.is_file()
    }


def _files(layout: Layout) -> set[str]:
    """Return the contents of all files that are no doubles."""
    return set(read_table(layout.labels)["sha256"].dropna())


def _counts(said: str, line: str) -> tuple[int, ...]:
    found = re.search(line.replace("#", r"(\d+)"), said)
    assert found, said
    return tuple(map(int, found.groups()))


def test_a_second_source_is_added_and_nothing_else_changes(
    layout: Layout, run: Run, params_of: Callable[..., Params]
) -> None:
    run(params_of(A))
    before, ledger = _parts(layout), layout.split_ledger.read_bytes()
    old_files = _files(layout)
    old_packed = pack.PackedImages.open(layout.packed)

    said = run(params_of(A, B))
    after = _parts(layout)
    arrived = after.index.difference(before.index)
    assert set(before.index) < set(after.index)
    assert all(name.startswith("B-") for name in arrived)
    pd.testing.assert_frame_equal(after.loc[before.index], before)
    assert set(after.loc[arrived, "split"].dropna()) == {"train", "validation", "test"}
    assert not audit(read_table(layout.splits), read_table(layout.labels))["leaks"]

    grown = layout.split_ledger.read_bytes()
    assert grown.startswith(ledger)
    added = [line.split(",")[0] for line in grown[len(ledger) :].decode().splitlines()]
    assert added == sorted(after.loc[arrived, "split"].dropna().index)

    new = _files(layout) - old_files
    assert _counts(said, "measure: # images listed, # new to measure") == (len(after), len(new))
    packed = pack.PackedImages.open(layout.packed)
    num_packed, num_known = _counts(said, "pack: # images, # rows known")
    assert num_packed == len(packed.image_ids)
    assert num_packed - num_known == len(set(packed.sha256) & new) > 0
    assert _counts(said, "pairs: # pictures, # new") == (num_packed, num_packed - num_known)
    rows = packed.rows(old_packed.image_ids)
    assert (packed.images[rows] == old_packed.images).all()

    written = _written(layout)
    assert {"data/raw/manifest.json", "data/splits.parquet"} <= set(written)
    said = run(params_of(A, B))
    assert _counts(said, "measure: # images listed, # new to measure")[1] == 0
    assert _counts(said, "pack: # images, # rows known") == (num_packed, num_packed)
    again = _written(layout)
    assert [name for name in {*written, *again} if written.get(name) != again.get(name)] == []
