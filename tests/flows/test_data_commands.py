"""`audit` and `withdraw` as a user types them."""

from __future__ import annotations

import csv
import json
import random
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from components.dataset.withdrawn import read_withdrawn
from components.errors import SourceError
from components.layout import Layout
from flows.ingest import ingest
from flows.retrain import retrain
from flows.workspace import exclusive

Command = Callable[..., subprocess.CompletedProcess[str]]
NUM_IMAGES = 10_015


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def lesion_of(tmp_path: Path) -> dict[str, str]:
    """Write `labels.csv` with the lesions of as many images as HAM10000 has; return them.

    The ids are the kind that a program takes for something else: 00012 and 12, 1e5, NA.
    """
    lesions = {}
    for number in range(NUM_IMAGES):
        lesion = number * 7919 % 7470  # about as many as HAM10000 has
        name = {0: "NA", 1: "1e5", 2: "100000"}.get(lesion, str(lesion // 2))
        lesions[f"{number:07d}"] = f"000{name}" if lesion > 2 and lesion % 2 else name
    rows = [(image, lesion, "nv") for image, lesion in lesions.items()]
    _write(tmp_path / "labels.csv", ("image_id", "lesion_id", "dx"), rows)
    return lesions


def test_an_audit_of_10015_images_names_every_lesion_in_two_parts_and_no_other(
    tmp_path: Path, lesionflow: Command, lesion_of: dict[str, str]
) -> None:
    parts = random.Random(0).choices(("train", "val", "test"), (8, 1, 1), k=NUM_IMAGES)
    split_of = dict(zip(lesion_of, parts, strict=True))
    _write(tmp_path / "split.csv", ("image_id", "split"), split_of.items())
    parts_of: dict[str, set[str]] = {}  # lesion -> its parts
    for image, part in split_of.items():
        parts_of.setdefault(lesion_of[image], set()).add(part)
    done = lesionflow(tmp_path, "audit", "split.csv", "--labels", "labels.csv", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["num_images"] == NUM_IMAGES
    assert found["num_groups"] == len(parts_of)
    assert found["leaking_lesions"] == sorted(
        name for name, own in parts_of.items() if len(own) > 1
    )
    assert found["leaking_images"]["test"] == [
        image
        for image, part in split_of.items()
        if part == "test" and "train" in parts_of[lesion_of[image]]
    ]
    assert found["unknown_images"] == found["missing_images"] == []


def test_an_audit_of_10015_images_finds_no_leak_where_there_is_none(
    tmp_path: Path, lesionflow: Command, lesion_of: dict[str, str]
) -> None:
    lesions = {lesion: number for number, lesion in enumerate(sorted(set(lesion_of.values())))}
    split = {image: ("train", "test")[lesions[name] % 2] for image, name in lesion_of.items()}
    _write(tmp_path / "split.csv", ("image_id", "split"), split.items())
    done = lesionflow(tmp_path, "audit", "split.csv", "--labels", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert "no leak: every lesion and patient is in one part only" in done.stdout
    _write(tmp_path / "more.csv", ("image_id", "split"), [*split.items(), ("ghost", "test")])
    done = lesionflow(tmp_path, "audit", "more.csv", "--labels", "labels.csv")
    assert done.returncode == 0, done.stderr
    assert f"no leak among {NUM_IMAGES} audited images; 1 could not be audited" in done.stdout


def test_a_withdrawal_is_refused_while_a_run_is_at_work(
    workspace: Path, lesionflow: Command
) -> None:
    layout = Layout(workspace)
    before = layout.withdrawn.read_bytes()
    with exclusive(layout):
        refused = lesionflow(workspace, "withdraw", "--image", "A1")
    assert refused.returncode == 2
    assert "another run is at work in this workspace" in refused.stderr
    assert layout.withdrawn.read_bytes() == before


def test_withdrawals_at_once_lose_nothing_that_was_said_to_be_withdrawn(workspace: Path) -> None:
    commands = [["lesionflow", "withdraw", "--image", name] for name in ("A1", "A2")]
    running = [
        subprocess.Popen(
            command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    ended = [(process, *process.communicate(timeout=300)) for process in running]
    listed = read_withdrawn(Layout(workspace).withdrawn).ids["image_id"]
    assert any(process.returncode == 0 for process, _, _ in ended)
    for (process, _, stderr), name in zip(ended, ("A1", "A2"), strict=True):
        assert process.returncode in (0, 2), stderr
        assert (name in listed) == (process.returncode == 0)
        assert process.returncode == 0 or "another run is at work" in stderr


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("flow", [retrain, ingest], ids=["retrain", "ingest"])
def test_a_run_first_forgets_what_was_withdrawn_in_another_clone(
    workspace: Path, flow: Callable[[Path], object]
) -> None:
    layout = Layout(workspace)
    copies = layout.cache / "downloads"
    copies.mkdir(parents=True)
    layout.withdrawn.write_text("column,value\nimage_id,A1\n")
    layout.sources.write_text("no list")  # what comes next fails
    with pytest.raises(SourceError):
        flow(workspace)
    assert not copies.exists()
