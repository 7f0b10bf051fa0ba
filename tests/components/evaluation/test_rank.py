"""Stage `rank` on evaluations on disk: exactly the runs in params, the same bytes again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from components.atomic import write_json
from components.errors import ParamsError, TableError
from components.evaluation import rank
from components.evaluation.board_tables import leaderboard_rows
from components.evaluation.ensembles import candidate_predictions
from components.evaluation.score import score_table
from components.layout import Layout
from components.params import Params, parse_params
from components.tables import read_table, write_table

MakeTable = Callable[..., pd.DataFrame]
MakeBoard = Callable[..., tuple[Params, Layout]]
NOISE = {"resnet18": 0.1, "vgg11": 0.75, "swin_t": 0.95}


@pytest.fixture
def make_board(tmp_path: Path, repo: Path, make_table: MakeTable) -> MakeBoard:
    """Return a maker of params and a workspace in which everything but `rank` has run."""

    def make(
        backbones: tuple[str, ...] = tuple(NOISE), seeds: tuple[int, ...] = (0, 1), **ranking: Any
    ) -> tuple[Params, Layout]:
        layout = Layout(tmp_path / "-".join((*backbones, *map(str, seeds))))
        document = YAML(typ="safe").load((repo / "params" / "quickstart.yaml").read_text())
        document["backbones"] = {name: {} for name in backbones}
        document["seeds"] = list(seeds)
        document["evaluation"] = {"bootstrap_resamples": 100}
        document["ranking"] = {"candidate": "best_seed", **ranking}
        parts = {"validation": make_table(200, seed=1), "test": make_table(200, seed=2)}
        for name in backbones:
            for seed in seeds:
                folder = layout.evaluation(name, seed)
                for part, frame in parts.items():
                    columns = [c for c in frame.columns if c.startswith("p_")]
                    rng = np.random.default_rng(sum(map(ord, name)) + seed)
                    other = rng.dirichlet(np.ones(len(columns)), len(frame))
                    share = NOISE[name] + 0.02 * seed
                    mixed = (1 - share) * frame[columns].to_numpy() + share * other
                    own = frame.assign(**dict(zip(columns, mixed.T, strict=True)))
                    write_table(own, folder / f"{part}.parquet")
                write_json(folder / "calibration.json", {"temperature": 1.5 + seed})
                write_json(layout.run(name, seed) / "model.json", {})
            profile = {
                "num_parameters": 10,
                "macs": 20 + len(name),
                "size_bytes": 30,
                "latency_ms": {"cpu_batch1": {"median": 4.0, "p95": 5.0}},
                "machine": {"cpu": "of a test"},
            }
            write_json(layout.profile(name), profile)
        return parse_params(document, where="test"), layout

    return make


def _read(layout: Layout) -> dict[str, Any]:
    return dict(json.loads(layout.leaderboard.read_text()))


def test_the_board_is_ranked_on_validation_and_shows_test(make_board: MakeBoard) -> None:
    params, layout = make_board()
    rank.run(params, layout)
    board = _read(layout)
    assert board["rows"][0]["backbone"] == "resnet18" and board["rows"][0]["rank"] == 1
    assert board["rows"][-1]["backbone"] == "swin_t" and board["rows"][-1]["rank"] > 1
    assert board["metric"] == "balanced_accuracy" and board["part"] == "validation"
    for row in board["rows"]:
        assert row["seeds"] == [0, 1]
        for part in ("validation", "test"):
            frames = [
                read_table(layout.evaluation(row["backbone"], seed) / f"{part}.parquet")
                for seed in (0, 1)
            ]
            scores = [score_table(frame, resamples=100)["balanced_accuracy"] for frame in frames]
            found = row[part]["balanced_accuracy"]
            assert found["mean"] == pytest.approx(np.mean(scores), abs=1e-9)
            assert found["low"] < found["mean"] < found["high"]
    flat = pd.read_csv(layout.leaderboard_csv)
    assert flat["backbone"].tolist() == [row["backbone"] for row in board["rows"]]
    assert flat["test_balanced_accuracy_low"].notna().all()


def test_test_numbers_change_neither_ranks_nor_the_candidate(make_board: MakeBoard) -> None:
    params, layout = make_board()
    rank.run(params, layout)
    before = _read(layout)
    for seed in (0, 1):
        path = layout.evaluation("resnet18", seed) / "test.parquet"
        frame = read_table(path)
        columns = [c for c in frame.columns if c.startswith("p_")]
        frame[columns] = frame[columns].to_numpy()[:, ::-1]
        write_table(frame, path)
    rank.run(params, layout)
    after = _read(layout)
    assert after["rows"][0]["test"] != before["rows"][0]["test"]
    for board in (before, after):
        board["rows"] = [{k: v for k, v in row.items() if k != "test"} for row in board["rows"]]
        for one in (board["candidate"], *board["ensembles"]):
            del one["test"]
    assert after == before


def test_the_same_input_gives_the_same_bytes(make_board: MakeBoard) -> None:
    params, layout = make_board()
    rank.run(params, layout)
    before = [path.read_bytes() for path in (layout.leaderboard, layout.leaderboard_csv)]
    rank.run(params, layout)
    assert [path.read_bytes() for path in (layout.leaderboard, layout.leaderboard_csv)] == before


def test_a_removed_backbone_leaves_the_board_and_the_disk(make_board: MakeBoard) -> None:
    params, layout = make_board()
    rank.run(params, layout)
    fewer, fresh = make_board(backbones=("resnet18", "vgg11"), seeds=(0,))
    rank.run(fewer, fresh)
    rank.run(fewer, layout)
    assert layout.leaderboard.read_bytes() == fresh.leaderboard.read_bytes()
    assert layout.leaderboard_csv.read_bytes() == fresh.leaderboard_csv.read_bytes()
    files = {
        one: sorted(
            path.relative_to(one.root)
            for folder in (one.runs, one.evaluations, one.profiles)
            for path in folder.rglob("*")
        )
        for one in (layout, fresh)
    }
    assert files[layout] == files[fresh]


def test_the_candidate_is_the_winners_best_seed(make_board: MakeBoard) -> None:
    params, layout = make_board()
    rank.run(params, layout)
    board = _read(layout)
    candidate = board["candidate"]
    winner = board["rows"][0]
    by_seed = winner["validation"]["balanced_accuracy"]["by_seed"]
    best = int(np.argmax(by_seed))
    assert candidate["kind"] == "best_seed"
    assert candidate["members"] == [
        {"backbone": winner["backbone"], "seed": best, "weight": 1.0, "temperature": 1.5 + best}
    ]
    assert candidate["validation"]["balanced_accuracy"]["value"] == by_seed[best]
    assert candidate["temperature_factor"] == 1.0
    assert {one["kind"] for one in board["ensembles"]} >= {"seed_ensemble"}


def test_the_seed_ensemble_is_a_candidate_like_any(make_board: MakeBoard) -> None:
    params, layout = make_board(candidate="seed_ensemble")
    rank.run(params, layout)
    candidate = _read(layout)["candidate"]
    assert [(m["seed"], m["weight"]) for m in candidate["members"]] == [(0, 1.0), (1, 1.0)]
    factor = candidate["temperature_factor"]
    assert [m["temperature"] for m in candidate["members"]] == pytest.approx(
        [1.5 * factor, 2.5 * factor], abs=1e-5
    )
    for part in ("validation", "test"):
        frame = candidate_predictions(layout, candidate, part)
        document = score_table(frame, resamples=100)
        assert candidate[part]["balanced_accuracy"]["value"] == pytest.approx(
            document["balanced_accuracy"], abs=1e-9
        )
        assert candidate[part]["log_loss"]["value"] == pytest.approx(document["log_loss"], abs=1e-9)


def test_the_greedy_ensemble_picks_over_all_backbones(make_board: MakeBoard) -> None:
    params, layout = make_board(candidate="greedy_ensemble", max_members=3)
    rank.run(params, layout)
    board = _read(layout)
    candidate = board["candidate"]
    assert candidate["kind"] == "greedy_ensemble"
    assert sum(member["weight"] for member in candidate["members"]) <= 3
    singles = [
        value
        for row in board["rows"]
        for value in row["validation"]["balanced_accuracy"]["by_seed"]
    ]
    assert candidate["validation"]["balanced_accuracy"]["value"] >= max(singles)
    assert candidate["thresholds"][0]["score"] == "malignant"


@pytest.mark.parametrize("kind", ["best_seed", "greedy_ensemble"])
def test_of_runs_with_other_validation_images_none_is_picked_as_the_best(
    make_board: MakeBoard, kind: str
) -> None:
    """It would be the run with the easiest images."""
    params, layout = make_board(backbones=("resnet18",), candidate=kind)
    path = layout.evaluation("resnet18", 1) / "validation.parquet"
    frame = read_table(path)
    write_table(frame[frame["group_id"] != frame["group_id"].iloc[0]], path)
    with pytest.raises(ParamsError, match=f"candidate is {kind}") as caught:
        rank.run(params, layout)
    assert "seed_ensemble" in caught.value.fix


def test_with_folds_the_seed_ensemble_has_no_validation_numbers(make_board: MakeBoard) -> None:
    params, layout = make_board(backbones=("resnet18",), candidate="seed_ensemble")
    for seed in (0, 1):
        path = layout.evaluation("resnet18", seed) / "validation.parquet"
        frame = read_table(path)
        number = frame["group_id"].str.extract(r"(\d+)$")[0].astype(int)
        write_table(frame[number % 2 == seed].reset_index(drop=True), path)
    rank.run(params, layout)
    candidate = _read(layout)["candidate"]
    assert candidate["validation"] is None and candidate["thresholds"] is None
    assert candidate["test"]["balanced_accuracy"]["value"] > 0


def test_a_missing_evaluation_or_profile_is_named(make_board: MakeBoard) -> None:
    params, layout = make_board()
    layout.profile("vgg11").unlink()
    with pytest.raises(TableError, match="profile of vgg11"):
        rank.run(params, layout)
    (layout.evaluation("vgg11", 1) / "test.parquet").unlink()
    with pytest.raises(TableError) as caught:
        rank.run(params, layout)
    assert caught.value.where.endswith("evaluations/vgg11-1/test.parquet")


def test_rows_for_people_have_a_mark_at_the_candidate(make_board: MakeBoard) -> None:
    params, layout = make_board()
    rank.run(params, layout)
    rows = leaderboard_rows(_read(layout))
    assert len(rows) == 3 and rows[0]["backbone"] == "resnet18 *"
    assert all(isinstance(value, str | int) for row in rows for value in row.values())


def test_a_recipe_of_benign_and_malignant_is_ranked_by_malignant_sensitivity(
    make_board: MakeBoard, make_table: MakeTable, repo: Path
) -> None:
    _, layout = make_board(backbones=("resnet18",), seeds=(0,))
    document = YAML(typ="safe").load((repo / "params" / "quickstart.yaml").read_text())
    document |= {"backbones": {"resnet18": {}}, "seeds": [0]}
    document["diagnoses"] = {"classes": ["benign", "malignant"], "malignant": ["malignant"]}
    document["evaluation"] = {"bootstrap_resamples": 100}
    for number, part in enumerate(("validation", "test")):
        frame = make_table(100, seed=number, classes=("benign", "malignant"))
        write_table(frame, layout.evaluation("resnet18", 0) / f"{part}.parquet")
    rank.run(parse_params(document, where="test"), layout)
    board = _read(layout)
    assert board["melanoma_sensitivity_of"] == "malignant.sensitivity"
    assert board["rows"][0]["validation"]["melanoma_sensitivity"]["mean"] > 0


def test_a_backbone_that_names_one_class_only_has_no_interval_and_the_board_says_why(
    make_board: MakeBoard,
) -> None:
    params, layout = make_board(backbones=("resnet18", "vgg11"), seeds=(0,))
    path = layout.evaluation("vgg11", 0) / "validation.parquet"
    frame = read_table(path)
    columns = [c for c in frame.columns if c.startswith("p_")]
    frame[columns] = np.eye(len(columns))[-2]
    write_table(frame, path)
    rank.run(params, layout)
    board = _read(layout)
    constant = board["rows"][-1]["validation"]["balanced_accuracy"]
    assert constant["mean"] == pytest.approx(1 / len(columns))
    assert constant["low"] is None and constant["no_interval"] == "no spread"
    first, last = leaderboard_rows(board)
    assert last["95 %"] == "none (no spread)"
    assert first["95 %"].count("–") == 1
    assert board["rows"][0]["validation"]["balanced_accuracy"]["no_interval"] is None
