"""The leaderboard for people: what is marked, added up, or left out."""

from __future__ import annotations

from typing import Any

from components.evaluation.board_tables import KINDS, candidate_rows, leaderboard_rows


def _numbers(value: float) -> dict[str, Any]:
    found = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"balanced_accuracy": found, "melanoma_sensitivity": {**found, "low": None}}


def _candidate(kind: str, value: float, **members: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "members": [
            {"backbone": name, "seed": 0, "weight": weight} for name, weight in members.items()
        ],
        "validation": _numbers(value),
        "test": _numbers(value - 0.05),
    }


def _row(backbone: str, cpu: float, gpu: float | None = None) -> dict[str, Any]:
    latency = {"cpu_batch1": {"median": cpu}} | ({"cuda_batch1": {"median": gpu}} if gpu else {})
    mean = {"mean": 0.7, "low": 0.6, "high": 0.8, "no_interval": None}
    part = {"balanced_accuracy": mean, "melanoma_sensitivity": mean}
    return {
        **{"rank": 1, "backbone": backbone, "seeds": [0], "validation": part, "test": part},
        **{"num_parameters": 1e6, "macs": 2e6, "size_bytes": 3e6, "latency_ms": latency},
    }


def _board(*ensembles: dict[str, Any], gpu: float | None = None) -> dict[str, Any]:
    return {
        "rows": [_row("resnet18", 4.0, gpu), _row("vgg11", 9.5)],
        "candidate": _candidate("best_seed", 0.7, resnet18=1.0),
        "ensembles": list(ensembles),
    }


def test_ensembles_stand_beside_the_candidate_with_what_they_cost() -> None:
    greedy = _candidate("greedy_ensemble", 0.75, resnet18=2.0, vgg11=1.0)
    first, second = candidate_rows(_board(greedy))
    assert first["candidate"] == f"{KINDS['best_seed']} *" and first["members"] == "resnet18-0"
    assert second["candidate"] == KINDS["greedy_ensemble"]
    assert second["members"] == "resnet18-0 ×2 + vgg11-0"
    assert second["balanced accuracy"] == "0.750" and second["95 %"] == "0.650–0.850"
    assert second["melanoma sens."] == "0.750" and second["on test"] == "0.700"
    assert (first["CPU"], second["CPU"]) == ("4.0 ms", "13.5 ms")


def test_an_ensemble_that_is_the_candidate_is_listed_once() -> None:
    greedy = _candidate("greedy_ensemble", 0.75, resnet18=1.0, vgg11=1.0)
    rows = candidate_rows(_board(greedy) | {"candidate": greedy})
    assert [row["candidate"] for row in rows] == [f"{KINDS['greedy_ensemble']} *"]


def test_without_an_ensemble_there_is_nothing_to_choose_from() -> None:
    assert candidate_rows(_board()) == []


def test_with_folds_an_ensemble_has_no_validation_numbers() -> None:
    seeds = _candidate("seed_ensemble", 0.75, resnet18=1.0, vgg11=1.0) | {"validation": None}
    row = candidate_rows(_board(seeds))[1]
    assert (row["balanced accuracy"], row["95 %"], row["melanoma sens."]) == ("-", "-", "-")
    assert row["on test"] == "0.700"


def test_the_gpu_is_shown_where_one_was_measured() -> None:
    assert all("GPU" not in row for row in leaderboard_rows(_board()))
    assert [row["GPU"] for row in leaderboard_rows(_board(gpu=1.25))] == ["1.2 ms", "-"]
