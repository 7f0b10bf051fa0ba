"""One command, from the sources to the champion, by the real engines, on synthetic pictures."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.artifacts import artifact_key
from tasks.graph import read_graph
from tests.originals import read_originals

Command = Callable[..., subprocess.CompletedProcess[str]]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_ends_with_a_champion_and_a_report(finished: Path) -> None:
    terminal = (finished / "terminal.txt").read_text(encoding="utf-8")
    assert "Leaderboard" in terminal
    assert str(finished / "reports" / "report.html") in terminal
    assert "no medical device" in terminal
    assert "Starting temporary server" not in terminal, "Prefect's own, beside ours"
    alias = _json(finished / "registry" / "quickstart-synthetic" / "aliases" / "champion.json")
    assert alias["version"] == "v0001"


def test_nothing_is_out_of_date_afterwards(finished: Path) -> None:
    assert read_graph(finished).stale == frozenset()


def test_no_lesion_is_in_two_parts(finished: Path, lesionflow: Command) -> None:
    done = lesionflow(
        finished, "audit", "data/splits.parquet", "--labels", "data/raw/labels.parquet", "--json"
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["leaking_lesions"] == []


def test_broken_files_are_left_out_by_name_and_reason(finished: Path) -> None:
    quarantine = pd.read_parquet(finished / "data" / "quarantine.parquet")
    splits = pd.read_parquet(finished / "data" / "splits.parquet").set_index("image_id")
    assert len(quarantine) >= 3
    assert quarantine["reason"].str.len().min() > 0
    assert splits.loc[quarantine["image_id"], "split"].isna().all()


def test_the_trainings_overlap_in_time(finished: Path) -> None:
    times = [_json(path) for path in sorted((finished / ".lesionflow" / "timings").glob("*.json"))]
    assert len(times) == 3
    assert max(run["entered"] for run in times) < min(run["ended"] for run in times)


def test_the_prefect_database_shows_one_task_per_stage_and_its_artifacts(finished: Path) -> None:
    database = finished / ".lesionflow" / "prefect" / "prefect.db"
    with sqlite3.connect(database) as connection:
        tasks = {row[0] for row in connection.execute("select name from task_run")}
        kinds = set(connection.execute("select distinct key, type from artifact"))
    keys = {key for key, _ in kinds}
    stages = set(read_graph(finished).stages)
    assert stages <= tasks
    assert {"validation", "split", "leaderboard", "report", "promotion"} <= keys
    assert any(key.startswith("train-resnet18") for key in keys if key)
    called = {"ingest": "snapshot", "validate": "validation", "rank": "leaderboard"}
    assert {called.get(stage, artifact_key(stage)) for stage in stages} <= keys
    assert {"snapshot", "links"} <= keys
    board = _json(finished / "reports" / "leaderboard.json")
    assert ("ensembles" in keys) == bool(board["ensembles"])
    assert "train-resnet18-0-progress" in keys
    assert len(kinds) == len(keys), "a history of tables has no progress bar in it"


def test_predict_gives_the_row_of_the_prediction_table(
    finished: Path, lesionflow: Command, tmp_path: Path
) -> None:
    model = _json(next((finished / "registry").glob("*/versions/v0001/model.json")))
    backbone = model["members"][0]["backbone"]
    table = pd.read_parquet(finished / "evaluations" / f"{backbone}-0" / "test.parquet")
    row = table.iloc[0]
    image = tmp_path / f"{row['image_id']}.jpg"
    image.write_bytes(read_originals(finished / "data" / "raw" / "images")[image.name])
    done = lesionflow(finished, "predict", str(image), "--json")
    assert done.returncode == 0, done.stderr
    (predicted,) = json.loads(done.stdout)["images"]
    for name in model["classes"]:
        assert predicted["probabilities"][name] == pytest.approx(row[f"p_{name}"], abs=1e-5)
    assert "no medical device" in done.stdout.lower() or "not a medical device" in done.stdout


@pytest.fixture(scope="module")
def again(
    finished: Path, lesionflow: Command, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Return a copy in which `retrain` has run a second time, and what it printed."""
    target = tmp_path_factory.mktemp("again") / "copy"
    subprocess.run(["cp", "-a", str(finished), str(target)], check=True)
    done = lesionflow(target, "retrain")
    assert done.returncode == 0, done.stderr[-3000:]
    return target, done.stdout + done.stderr


def test_a_second_run_does_nothing_and_promotes_nothing_twice(
    finished: Path, again: tuple[Path, str]
) -> None:
    workspace, terminal = again
    assert "nothing had changed" in terminal
    assert (workspace / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()
    versions = list((workspace / "registry" / "quickstart-synthetic" / "versions").iterdir())
    assert [path.name for path in versions if not path.name.startswith(".")] == ["v0001"]


def test_a_learning_rate_touches_only_its_training_and_what_follows(
    finished_copy: Path, edit_params: Callable[..., None]
) -> None:
    edit_params(finished_copy, backbones__resnet18={"learning_rate": 0.0005})
    assert read_graph(finished_copy).stale == {
        "train@resnet18-0",
        "evaluate@resnet18-0",
        "profile@resnet18",
        "rank",
        "report",
    }


def test_an_edit_of_the_registry_retrains_nothing(finished_copy: Path) -> None:
    *others, gates = sorted(
        (finished_copy / "components" / "registry").glob("*.py"),
        key=lambda path: path.stem == "gates",
    )
    for path in others:
        path.write_text(path.read_text(encoding="utf-8") + "\n# touched\n", encoding="utf-8")
    assert read_graph(finished_copy).stale == frozenset()
    gates.write_text(gates.read_text(encoding="utf-8") + "\n# touched\n", encoding="utf-8")
    assert read_graph(finished_copy).stale == {"report"}  # which shows them


@pytest.mark.slow
def test_a_removed_backbone_leaves_the_board_as_if_it_had_never_been(
    finished_copy: Path,
    tmp_path: Path,
    copy_workspace: Callable[[Path], Path],
    lesionflow: Command,
) -> None:
    yaml_text = (finished_copy / "params.yaml").read_text(encoding="utf-8")
    without = "\n".join(line for line in yaml_text.splitlines() if "resnet18: {}" not in line)
    (finished_copy / "params.yaml").write_text(without + "\n", encoding="utf-8")
    assert lesionflow(finished_copy, "retrain").returncode == 0
    fresh = copy_workspace(tmp_path / "fresh")
    (fresh / "params.yaml").write_text(without + "\n", encoding="utf-8")
    assert lesionflow(fresh, "retrain").returncode == 0
    assert not (finished_copy / "runs" / "resnet18-0").exists()
    boards = [
        _without_times(_json(path / "reports" / "leaderboard.json"))
        for path in (finished_copy, fresh)
    ]
    assert boards[0] == boards[1]


def test_dvc_metrics_show_has_the_candidates_numbers(finished: Path) -> None:
    done = _dvc(finished, "metrics", "show", "--json")
    (shown,) = json.loads(done)[""]["data"].values()
    board = _json(finished / "reports" / "leaderboard.json")
    own = board["candidate"]["test"]["balanced_accuracy"]
    assert shown["data"]["candidate"]["test"]["balanced_accuracy"] == own
    assert 0 <= own["value"] <= 1


def test_dvc_plots_show_draws_the_confusion_and_the_learning_curves(
    finished: Path, tmp_path: Path
) -> None:
    _dvc(finished, "plots", "show", "-o", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text(encoding="utf-8")
    assert "Confusion matrix of the candidate on test" in page
    assert "Balanced accuracy on validation" in page
    for path in sorted((finished / "reports" / "plots" / "learning").iterdir()):
        last = pd.read_csv(path)["validation_balanced_accuracy"].iloc[-1]
        assert str(last) in page, path.name
    confusion = pd.read_csv(finished / "reports" / "plots" / "confusion.csv")
    assert len(re.findall(r'"predicted": ?"', page)) >= len(confusion)


def _dvc(workspace: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["dvc", *arguments], cwd=workspace, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.slow
def test_dvc_repro_from_nothing_gives_the_same_split_and_metrics(
    finished: Path,
    tmp_path: Path,
    copy_workspace: Callable[[Path], Path],
) -> None:
    fresh = copy_workspace(tmp_path / "fresh")
    for name in ("params.yaml", "data/sources.json"):
        shutil.copyfile(finished / name, fresh / name)
    done = subprocess.run(
        ["dvc", "repro", "-f", "--no-run-cache"],
        cwd=fresh,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    pd.testing.assert_frame_equal(
        pd.read_parquet(fresh / "data" / "splits.parquet"),
        pd.read_parquet(finished / "data" / "splits.parquet"),
    )
    for path in sorted(finished.glob("evaluations/*/metrics.json")):
        assert _json(fresh / path.relative_to(finished)) == _json(path)
    for path in sorted(finished.glob("runs/*/model.safetensors")):
        assert (fresh / path.relative_to(finished)).read_bytes() == path.read_bytes()
    assert (fresh / "data" / "packed" / "images.npy").read_bytes() == (
        finished / "data" / "packed" / "images.npy"
    ).read_bytes()


def _without_times(board: dict[str, Any]) -> dict[str, Any]:
    """Drop the only measured times, those of the stage `profile`."""
    for row in board["rows"]:
        row.pop("latency_ms")
    return board


def test_the_model_knows_more_than_chance_would(finished: Path) -> None:
    """Two epochs at 32 px are little; the winner must still beat always guessing one class."""
    board = _json(finished / "reports" / "leaderboard.json")
    best = max(row["validation"]["balanced_accuracy"]["mean"] for row in board["rows"])
    assert best > 1 / 7
    assert np.isfinite(best)
