"""`audit` and `withdraw` as a user types them."""

from __future__ import annotations

import csv
import json
import random
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from components.dataset.withdrawn import read_withdrawn
from components.errors import SourceError
from components.layout import Layout
from components.tables import LABEL_COLUMNS, write_table
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


def test_score_understands_the_names_of_ham10000(tmp_path: Path, lesionflow: Command) -> None:
    rows = [(str(number), "mel" if number % 3 else "nv", 0.25, 0.75) for number in range(30)]
    _write(tmp_path / "predictions.csv", ("image_id", "dx", "p_nv", "p_mel"), rows)
    done = lesionflow(tmp_path, "score", "predictions.csv", "--json", "--resamples", "100")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(20 / 30)


def test_score_of_a_table_without_a_diagnosis_names_the_column(
    tmp_path: Path, lesionflow: Command
) -> None:
    _write(tmp_path / "predictions.csv", ("image_id", "p_nv", "p_mel"), [("1", 0.5, 0.5)])
    done = lesionflow(tmp_path, "score", "predictions.csv")
    assert done.returncode == 2
    assert "diagnosis" in done.stderr
    assert "Traceback" not in done.stderr


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


LABELS = [("a", "L1", "nv"), ("b", "L1", "nv"), ("c", "L2", "mel")]
SPLIT = [("a", "train"), ("b", "train"), ("c", "test")]


@pytest.mark.parametrize(
    ("split", "labels", "said"),
    [
        (
            [("image_id", "split"), *SPLIT[:2], ("c", "holdout")],
            [("image_id", "lesion_id", "dx"), *LABELS],
            ["unknown part 'holdout'", "column split, row 3", "use one of train, training, val"],
        ),
        (
            [("image_id", "part"), *SPLIT],
            [("image_id", "lesion_id", "dx"), *LABELS],
            ["missing column: split", "where: split.csv", "the table has: image_id, part"],
        ),
        (
            [("image_id", "split"), *SPLIT],
            [("isic_id", "lesion", "dx"), *LABELS],
            [
                "missing columns: image_id, lesion_id",
                "where: labels.csv",
                "the table has: isic_id, lesion, dx",
            ],
        ),
        (
            [("image_id", "split"), *((f"{name}.jpg", part) for name, part in SPLIT)],
            [("image_id", "lesion_id", "dx"), *LABELS],
            [
                "no image of the split table (such as 'a.jpg') is in the labels table",
                "where: column image_id of both tables",
                "no file endings",
            ],
        ),
    ],
    ids=["unknown part", "no column split", "no columns of the labels", "no image in common"],
)
def test_an_audit_that_cannot_be_made_says_where_and_what_to_do(
    tmp_path: Path,
    lesionflow: Command,
    split: list[tuple[str, ...]],
    labels: list[tuple[str, ...]],
    said: list[str],
) -> None:
    _write(tmp_path / "split.csv", split[0], split[1:])
    _write(tmp_path / "labels.csv", labels[0], labels[1:])
    done = lesionflow(tmp_path, "audit", "split.csv", "--labels", "labels.csv", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("lesionflow: ")
    assert "Traceback" not in done.stderr
    assert "to do: " in done.stderr
    assert [part for part in said if part not in done.stderr] == []


@pytest.fixture
def taken(workspace: Path) -> Path:
    """Return a workspace whose snapshot has five images of three lesions and two patients."""
    rows = [("A1", "P1", "L1"), ("A2", "P1", "L1"), ("A3", "P1", "L2"), ("A4", "P2", "L3")]
    rows.append(("A5", "P2", "L3"))
    columns = ["image_id", "patient_id", "lesion_id"]
    labels = pd.DataFrame(rows, columns=columns).reindex(columns=list(LABEL_COLUMNS))
    labels["sha256"] = [f"{number:064x}" for number in range(len(rows))]
    write_table(labels.astype("str"), Layout(workspace).labels)
    return workspace


def test_a_misspelled_id_withdraws_nothing(taken: Path, lesionflow: Command) -> None:
    layout = Layout(taken)
    before = layout.withdrawn.read_bytes()
    done = lesionflow(taken, "withdraw", "--image", "A1", "--lesion", "L9", "--json")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "lesionflow: no image has the lesion_id L9\n" in done.stderr
    assert f"where: {layout.labels}, {layout.split_ledger} and the registry" in done.stderr
    assert "to do: check the spelling; nothing was withdrawn" in done.stderr
    assert "Traceback" not in done.stderr
    assert layout.withdrawn.read_bytes() == before


def test_a_withdrawal_without_an_id_asks_for_one(taken: Path, lesionflow: Command) -> None:
    done = lesionflow(taken, "withdraw")
    assert done.returncode == 2
    assert "nothing to withdraw" in done.stderr
    assert "to do: give --image, --lesion or --patient with an id" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "column", "images"),
    [
        (("--image", "A3", "--image", "A5"), "image_id", ["A3", "A5"]),
        (("--lesion", "L1", "--lesion", "L3"), "lesion_id", ["A1", "A2", "A4", "A5"]),
        (("--patient", "P1"), "patient_id", ["A1", "A2", "A3"]),
    ],
    ids=["images", "lesions", "patient"],
)
def test_a_withdrawal_takes_all_images_of_what_is_named_and_says_so_as_one_document(
    taken: Path,
    lesionflow: Command,
    arguments: tuple[str, ...],
    column: str,
    images: list[str],
) -> None:
    done = lesionflow(taken, "withdraw", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == images
    named = {name: [] for name in ("image_id", "lesion_id", "patient_id")}
    assert found["withdrawn"] == named | {column: list(arguments[1::2])}
    assert found["models"] == found["runs"] == []
    listed = read_withdrawn(Layout(taken).withdrawn)
    assert listed.ids[column] >= set(arguments[1::2])
    assert listed.ids["image_id"] == set(images)
    assert len(listed.sha256) == len(images)


def test_a_withdrawal_tells_a_reader_what_is_left_to_do(taken: Path, lesionflow: Command) -> None:
    done = lesionflow(taken, "withdraw", "--patient", "P2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 images withdrawn: A4, A5\n")
    assert "Next: `lesionflow retrain` makes a snapshot without them" in done.stdout


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
