"""The stage on image files: what it writes, what it refuses, and that it repeats itself."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.dataset.measures import Measures, measure_bytes
from components.errors import CheckFailedError, TableError
from components.layout import Layout
from components.params import Params
from components.splitting.ledger import append
from components.stage import read_stage_error
from components.tables import QUARANTINE_COLUMNS, read_table, write_table
from components.validation.reference import remember_profile
from components.validation.validate import run
from tests.originals import write_originals

BROKEN = {
    "IMG_00": ("truncated", "cannot be decoded: truncated"),
    "IMG_06": ("empty", "cannot be decoded: empty file"),
    "IMG_08": ("text", "cannot be decoded: not an image"),
    "IMG_12": ("absent", "listed but absent"),
    "IMG_14": ("blank", "contrast 0 is below 0.008"),
    "IMG_20": ("tiny", "shorter_side 16 is below 32"),
}


def _jpeg(number: int, *, size: int = 96, blank: bool = False) -> bytes:
    rng = np.random.default_rng(number)
    coarse = rng.integers(60, 220, (6, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    if blank:
        picture = Image.new("RGB", (size, size), (200, 150, 120))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def _file(number: int, problem: str | None) -> bytes:
    data = _jpeg(number, size=16 if problem == "tiny" else 96, blank=problem == "blank")
    if problem == "truncated":
        return data[: len(data) // 2]
    return {"empty": b"", "text": b"no image\n"}.get(problem or "", data)


def _write_workspace(layout: Layout, tables: Any, broken: dict[str, Any], repo: Path) -> None:
    """Write what the stages before would have written, with files that are really broken."""
    layout.raw.mkdir(parents=True)
    shutil.copy(repo / "dvc.yaml", layout.graph)
    rows = []
    files: dict[str, bytes] = {}
    for number, image_id in enumerate(tables.labels["image_id"]):
        problem = broken.get(image_id, (None,))[0]
        data = _file(number, problem)
        name = None if problem == "absent" else f"{image_id}.jpg"
        if name:
            files[name] = data
            measures = measure_bytes(data)
        else:
            measures = Measures(decodes=False, problem="file is absent")
        sha256 = f"{number:064x}" if name else None
        row = {"image_id": image_id, "file_name": name, "sha256": sha256, "num_bytes": len(data)}
        rows.append(row | measures.as_dict())
    write_originals(layout.images, files)
    tables.labels["sha256"] = [row["sha256"] for row in rows]
    write_table(tables.labels, layout.labels)
    write_table(pd.DataFrame(rows), layout.quality)
    write_table(tables.pairs, layout.pairs)
    layout.manifest.write_text(json.dumps(tables.manifest))
    layout.reference_profile.write_text("{}")


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def params(base_params: Params) -> Params:
    rules = base_params.validation.model_copy(update={"max_quarantined_share": 0.3})
    return base_params.model_copy(update={"validation": rules})


@pytest.fixture
def layout(tmp_path: Path, tables: Any, repo: Path) -> Layout:
    layout = Layout(tmp_path / "workspace")
    tables.pair("IMG_16", "IMG_18", "same spot")
    tables.manifest["present_but_not_listed"] = ["ham/stray.jpg"]
    _write_workspace(layout, tables, BROKEN, repo)
    return layout


def test_broken_files_are_left_out_by_name_and_reason(layout: Layout, params: Params) -> None:
    run(params, layout)
    quarantine = read_table(layout.quarantine, QUARANTINE_COLUMNS)
    assert list(quarantine["image_id"]) == sorted(BROKEN)
    for row in quarantine.itertuples():
        assert BROKEN[str(row.image_id)][1] in str(row.reason)
    summary = json.loads((layout.validation_report / "summary.json").read_text())
    assert (summary["success"], summary["num_images"], summary["num_quarantined"]) == (True, 24, 6)
    found = {entry["expectation"]: entry for entry in summary["expectations"]}
    assert found["images.decodable"]["offenders"] == ["IMG_00", "IMG_06", "IMG_08"]
    assert found["images.listed"]["offenders"] == ["ham/stray.jpg"]
    assert found["between.near_duplicates"]["num_offenders"] == 1
    results = json.loads((layout.validation_report / "results" / "images.json").read_text())
    assert results["meta"]["great_expectations_version"]
    (decodable,) = [
        entry
        for entry in results["results"]
        if entry["expectation_config"]["meta"]["check"] == "images.decodable"
    ]
    assert decodable["result"]["unexpected_index_list"][0]["image_id"] == "IMG_00"


def test_the_same_input_gives_the_same_bytes_anywhere(
    layout: Layout, params: Params, tmp_path: Path
) -> None:
    run(params, layout)
    other = Layout(tmp_path / "elsewhere")
    shutil.copytree(layout.root / "data", other.root / "data")
    run(params, other)
    first, second = _contents(layout.validation_report), _contents(other.validation_report)
    assert first == second
    assert layout.quarantine.read_bytes() == other.quarantine.read_bytes()
    assert not [name for name, data in first.items() if str(tmp_path).encode() in data]
    run(params, layout)  # over the report of before
    assert _contents(layout.validation_report) == first


def test_remembering_the_snapshot_changes_no_byte_of_its_report(
    layout: Layout, params: Params
) -> None:
    run(params, layout)
    before = _contents(layout.validation_report)
    assert remember_profile(layout)
    run(params, layout)
    assert _contents(layout.validation_report) == before
    assert not remember_profile(layout)


def test_recording_the_split_changes_no_byte_of_the_report(layout: Layout, params: Params) -> None:
    labels = read_table(layout.labels)
    old = labels[labels["image_id"] == "IMG_02"].assign(sha256="other bytes", lesion_id=None)
    append(layout.split_ledger, old.assign(split="test")[["image_id", "split"]], old)
    run(params, layout)
    before = _contents(layout.validation_report)
    document = json.loads(before["summary.json"])
    (found,) = [one for one in document["expectations"] if one["expectation"] == "labels.same_file"]
    assert (found["severity"], found["offenders"]) == ("warning", ["IMG_02"])
    assert "another registry.model_name" in found["fix"]
    assert "To do: if it is the same picture saved anew" in before["docs/index.html"].decode()
    assert append(layout.split_ledger, labels.assign(split="train")[["image_id", "split"]], labels)
    run(params, layout)
    assert _contents(layout.validation_report) == before


def test_a_failed_check_keeps_the_last_good_report_and_leaves_its_own_beside(
    layout: Layout, params: Params
) -> None:
    run(params, layout)
    before = _contents(layout.validation_report), layout.quarantine.read_bytes()
    labels = read_table(layout.labels)
    labels.loc[2, "age_years"] = 150.0
    write_table(labels, layout.labels)
    with pytest.raises(CheckFailedError) as failed:
        run(params, layout)
    assert "1 offender: IMG_02" in str(failed.value)
    assert ".lesionflow/validation-failed/docs/index.html" in failed.value.where
    assert (_contents(layout.validation_report), layout.quarantine.read_bytes()) == before
    report = layout.state / "validation-failed"
    assert json.loads((report / "summary.json").read_text())["success"] is False
    assert "Failed: the run stopped here" in (report / "docs" / "index.html").read_text()
    labels.loc[2, "age_years"] = 50.0
    write_table(labels, layout.labels)
    run(params, layout)
    assert not report.exists()


def test_an_empty_snapshot_is_refused(layout: Layout, params: Params) -> None:
    write_table(read_table(layout.labels).iloc[:0], layout.labels)
    write_table(read_table(layout.quality).iloc[:0], layout.quality)
    write_table(read_table(layout.pairs).iloc[:0], layout.pairs)
    with pytest.raises(CheckFailedError, match="there is at least one image"):
        run(params, layout)


def test_a_missing_manifest_is_named(layout: Layout, params: Params) -> None:
    layout.manifest.unlink()
    with pytest.raises(TableError, match="dvc repro ingest"):
        run(params, layout)


def test_from_the_shell_it_ends_with_code_1_and_the_message(layout: Layout, repo: Path) -> None:
    # The classes of the quickstart recipe: four of seven have no image here.
    shutil.copy(repo / "params" / "quickstart.yaml", layout.params)
    done = subprocess.run(
        [sys.executable, "-m", "components.validation.validate"],
        cwd=layout.root,
        env={"PYTHONPATH": str(repo), "PATH": "/usr/bin:/bin", "HOME": str(layout.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    for part in (
        "validate failed: labels.enough_groups failed",
        "4 offenders: akiec (0 groups, 0 images)",
        "6 of 24 images (25.0%) would be left out, at most 5.0% may be: IMG_00, IMG_06",
        "validation.max_quarantined_share",
    ):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    error = read_stage_error(layout.stage_error("validate"))
    assert error is not None
    assert (error["type"], error["exit_code"]) == ("CheckFailedError", 1)
    assert not (layout.root / ".great_expectations").exists()
