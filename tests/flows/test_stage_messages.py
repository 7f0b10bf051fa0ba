"""What a user sees when sources contradict each other, or when they cannot be split as asked.

Each stage is run as DVC runs it: a process of its own in a workspace of a few small pictures.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from components.dataset import ingest, measure, pairs
from components.dataset.fingerprint import refresh_sources
from components.layout import Layout
from components.params import load_params
from components.recipes import compose_recipe
from components.stage import read_stage_error
from components.tables import PAIR_COLUMNS, QUARANTINE_COLUMNS, read_table, write_table

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
DIAGNOSES = {f"P{number:02d}": CLASSES[number % 7] for number in range(28)}
_MODULES = {
    "ingest": "components.dataset.ingest",
    "validate": "components.validation.validate",
    "split": "components.splitting.split",
}


def _write_source(folder: Path, diagnoses: Mapping[str, str], pictures: Mapping[str, int]) -> Path:
    """Write a small HAM10000 download: image -> diagnosis, image -> number of its picture."""
    folder.mkdir()
    rows = [
        f"{folder.name}-{image},{image},{diagnosis},histo,50,male,back"
        for image, diagnosis in diagnoses.items()
    ]
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization"
    table = "\n".join([header, *rows]) + "\n"
    (folder / "HAM10000_metadata.csv").write_text(table, encoding="utf-8")
    with zipfile.ZipFile(folder / "HAM10000_images_part_1.zip", "w") as archive:
        for image, number in pictures.items():
            pixels = np.random.default_rng(number).integers(0, 255, (48, 48, 3), np.uint8)
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "JPEG")
            archive.writestr(f"{image}.jpg", out.getvalue())
    return folder


def _run(workspace: Path, stage: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", _MODULES[stage]],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )


def _said(done: subprocess.CompletedProcess[str], workspace: Path, stage: str, code: int) -> str:
    """Return the message of a stage that failed: the one that flow and command line show."""
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr
    left = read_stage_error(Layout(workspace).stage_error(stage))
    assert left is not None
    assert left["exit_code"] == code
    assert done.stderr == f"{stage} failed: {left['message']}\n"
    return str(left["message"])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a source of 28 pictures, four of each diagnosis."""
    pictures = {image: number for number, image in enumerate(DIAGNOSES)}
    return _write_source(tmp_path_factory.mktemp("sources") / "first", DIAGNOSES, pictures)


def _use(workspace: Path, *sources: Path, **options: str) -> None:
    """Put the recipe ham10000 in place with these sources; `options` are the last one's."""
    layout = Layout(workspace)
    text, _ = compose_recipe(layout, "ham10000", sources=[str(source) for source in sources])
    document = YAML().load(text)
    document["sources"][-1]["options"] = options
    with layout.params.open("w", encoding="utf-8") as file:
        YAML().dump(document, file)
    refresh_sources(load_params(layout.params), layout)


def _ran(workspace: Path, *stages: ModuleType) -> Layout:
    """Run stages that are expected to go well, in this process."""
    layout = Layout(workspace)
    for stage in stages:
        stage.run(load_params(layout.params), layout)
    return layout


def test_an_image_id_with_other_bytes_in_two_sources_is_refused_with_both_sources(
    workspace: Path, tmp_path: Path, first: Path
) -> None:
    second = _write_source(
        tmp_path / "second", {"P03": "df", "Q00": "nv"}, {"P03": 103, "Q00": 100}
    )
    _use(workspace, first)
    layout = _ran(workspace, ingest)
    before = layout.labels.read_bytes()
    _use(workspace, first, second)
    said = _said(_run(workspace, "ingest"), workspace, "ingest", 2)
    assert "1 image ids belong to other pictures in an earlier source" in said
    assert "such as P03 (from first)" in said
    assert "where: source second" in said
    assert "to do: give the source an option `prefix: second-` in params.yaml" in said
    assert layout.labels.read_bytes() == before
    # What the message asks for mends it.
    _use(workspace, first, second, prefix="second-")
    _ran(workspace, ingest)
    assert set(read_table(layout.labels)["image_id"]) == {*DIAGNOSES, "second-P03", "second-Q00"}


@pytest.fixture(scope="module")
def _contested_once(
    tmp_path_factory: pytest.TempPathFactory, _blank_workspace: Path, first: Path
) -> Path:
    folder = tmp_path_factory.mktemp("contested")
    second = _write_source(folder / "second", {"Q03": "mel", "Q00": "nv"}, {"Q03": 3, "Q00": 100})
    workspace = Path(shutil.copytree(_blank_workspace, folder / "workspace"))
    _use(workspace, first, second)
    _ran(workspace, ingest, measure, pairs)
    return workspace


@pytest.fixture
def contested(_contested_once: Path, tmp_path: Path) -> Path:
    """Return a workspace in which a second source has P03 (df) as Q03, a melanoma."""
    return Path(shutil.copytree(_contested_once, tmp_path / "workspace"))


def test_two_sources_that_name_two_diagnoses_are_counted_when_they_are_taken(
    contested: Path,
) -> None:
    done = _run(contested, "ingest")
    assert done.returncode == 0, done.stderr
    assert (
        "1 times an image has another diagnosis elsewhere in the sources (data/raw/manifest.json"
        in done.stdout
    )


def test_a_picture_with_two_diagnoses_is_left_out_with_both_and_who_said_so(
    contested: Path,
) -> None:
    done = _run(contested, "validate")
    assert done.returncode == 0, done.stderr
    assert "29 images, 1 quarantined" in done.stdout
    layout = Layout(contested)
    quarantine = read_table(layout.quarantine)
    assert quarantine["image_id"].tolist() == ["P03"]
    assert quarantine["reason"].tolist() == ["df here, but second has it as mel (Q03)"]
    assert "second has it as mel (Q03)" in _data_docs(layout.validation_report)


def test_a_picture_with_two_diagnoses_stops_the_run_where_params_say_so(
    contested: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(contested, validation__between={"label_conflicts": {"severity": "error"}})
    said = _said(_run(contested, "validate"), contested, "validate", 1)
    assert "no source has another diagnosis for a picture that is taken" in said
    assert "P03" in said
    assert "where: data/raw; the report: .lesionflow/validation-failed/docs/index.html" in said
    assert "to do: between.label_conflicts: " in said
    assert "validation.between.label_conflicts" in said
    failed = Layout(contested).failed_validation_report
    assert "second has it as mel (Q03)" in _data_docs(failed)


def _data_docs(report: Path) -> str:
    pages = (report / "docs").rglob("*.html")
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


# --- the split ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _measured_once(
    tmp_path_factory: pytest.TempPathFactory,
    _blank_workspace: Path,
    first: Path,
) -> Path:
    workspace = tmp_path_factory.mktemp("measured") / "workspace"
    shutil.copytree(_blank_workspace, workspace)
    _use(workspace, first)
    layout = _ran(workspace, ingest, measure)
    _write_rows(layout.pairs, PAIR_COLUMNS)
    _write_rows(layout.quarantine, QUARANTINE_COLUMNS)
    return workspace


@pytest.fixture
def layout(_measured_once: Path, tmp_path: Path) -> Layout:
    """Return a workspace of 28 good pictures, four of each diagnosis, that is to be split."""
    return Layout(Path(shutil.copytree(_measured_once, tmp_path / "workspace")))


def _write_rows(
    path: Path, columns: Sequence[str], rows: Sequence[tuple[object, ...]] = ()
) -> None:
    write_table(pd.DataFrame(rows, columns=list(columns)), path)


def _give_test_set(layout: Layout, *image_ids: str) -> None:
    labels = read_table(layout.labels)
    is_test = labels["image_id"].isin(image_ids)
    labels["source"] = labels["source"].where(~is_test, labels["source"] + ":test")
    write_table(labels, layout.labels)


def _record(layout: Layout, part: str) -> None:
    """Write a ledger in which all images are in `part`."""
    labels = read_table(layout.labels)
    rows = labels[["image_id", "sha256", "patient_id", "lesion_id"]].assign(part=part)
    rows.to_csv(layout.split_ledger, index=False)


def _refused(layout: Layout) -> str:
    """Run the split; return why it was refused. Nothing may be written."""
    ledger = layout.split_ledger.read_bytes()
    said = _said(_run(layout.root, "split"), layout.root, "split", 2)
    assert "SplitError" in json.loads(layout.stage_error("split").read_text())["type"]
    assert not layout.splits.exists()
    assert layout.split_ledger.read_bytes() == ledger
    return said


def test_a_given_test_set_that_no_source_has_is_refused(
    layout: Layout, edit_params: Callable[..., None]
) -> None:
    edit_params(layout.root, split__official_test=True)
    said = _refused(layout)
    assert "no source has a test set of its own" in said
    assert "where: split.official_test in params.yaml; sources: first" in said
    assert "to do: turn split.official_test off, or use a source that is marked" in said


def test_a_given_test_set_that_was_trained_on_is_refused(
    layout: Layout, edit_params: Callable[..., None]
) -> None:
    _record(layout, "train")
    _give_test_set(layout, "P01", "P02")
    edit_params(layout.root, split__official_test=True)
    said = _refused(layout)
    assert "2 images of the given test set were trained or selected on before" in said
    assert "such as P01" in said
    assert "where: data/split_ledger.csv and split.official_test in params.yaml" in said
    assert "to do: turn split.official_test off; or start anew with an empty ledger" in said


def test_ties_that_would_leave_out_too_much_are_refused(
    layout: Layout, edit_params: Callable[..., None]
) -> None:
    _give_test_set(layout, "P00")
    edit_params(layout.root, split__official_test=True)
    chain = [(*pair, "same spot", 0.9, 40) for pair in pairwise(list(DIAGNOSES)[:5])]
    _write_rows(layout.pairs, PAIR_COLUMNS, chain)
    said = _refused(layout)
    assert "4 of 28 images would be left out (at most 10%), such as P01: left out: group" in said
    assert "ties it to test, it is not in the given test set" in said
    assert "where: split.max_left_out_share in params.yaml" in said
    assert "to do: look for what ties so many groups together" in said


def test_more_folds_than_a_diagnosis_has_groups_are_refused(
    layout: Layout, edit_params: Callable[..., None]
) -> None:
    """Four groups of each diagnosis, one of them in test."""
    edit_params(layout.root, split__folds=4, ranking__candidate="seed_ensemble")
    said = _refused(layout)
    assert "akiec has 3 groups outside test, fewer than the 4 folds" in said
    assert "where: split.folds in params.yaml" in said
    assert "to do: set split.folds to 3 or less" in said


def test_a_diagnosis_that_is_too_rare_for_three_parts_is_refused(layout: Layout) -> None:
    rare = [(image, "too dark") for image in ("P05", "P12")]  # two of the four nv
    _write_rows(layout.quarantine, QUARANTINE_COLUMNS, rare)
    said = _refused(layout)
    assert "too few groups (lesions or patients) of nv to have some in every part" in said
    assert "where: the split of data/raw/labels.parquet" in said
    assert "to do: a diagnosis needs at least 3 groups: add images, or take the class out" in said
