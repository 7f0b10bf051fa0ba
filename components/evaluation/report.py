"""Stage `report`: one HTML file that a reviewer reads, and the plots that it is made of.

The file opens offline (every picture is in it) and holds no clock time: same input, same bytes.
Promotion comes later: the report has the gates that need no registry, `lesionflow models` the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.atomic import atomic_path, write_json, write_text
from components.evaluation import plots, plots_overview
from components.evaluation.board_tables import KINDS, candidate_rows
from components.evaluation.candidate_document import candidate_document
from components.evaluation.ensembles import (
    RunName,
    candidate_predictions,
    read_evaluation,
    uncalibrated_predictions,
)
from components.evaluation.leaking_split import measure_leaking_split
from components.evaluation.prediction_table import Predictions, parse_predictions
from components.evaluation.report_data import (
    data_section,
    num_test_uses,
    provenance_rows,
    read_document,
    weights_origin,
)
from components.evaluation.report_details import details
from components.evaluation.report_gates import gates_section
from components.evaluation.report_pictures import explain_mistakes, to_data_uri
from components.evaluation.report_tables import (
    RUN_TITLES,
    SUBGROUP_METRICS,
    board_interval,
    board_rows,
    gpu_latency_of,
    headline_cells,
    headline_rows,
    latency_of,
    number,
    p_value,
    per_class_table,
    share,
    subgroup_rows,
    tile_rows,
)
from components.layout import Layout
from components.params import Params
from components.progress import Progress
from components.stage import run_stage
from components.tables import read_table, write_table

Document = dict[str, Any]
_TEMPLATES = Path(__file__).parent / "templates"
_NUM_STEPS = 6


def run(params: Params, layout: Layout) -> None:
    """Write `reports/report.html`, `reports/leaking_split.json` and `reports/plots/`."""
    board = read_document(layout.leaderboard)
    with plots.style():
        _step(0, "winner")
        winner = winner_section(params, layout, board)
        _step(1, "leaderboard")
        leaderboard = leaderboard_section(layout, board)
        _step(2, "models")
        models = [model_section(params, layout, row, board["candidate"]) for row in board["rows"]]
        _step(3, "leaking split")
        leaking_split = measure_leaking_split(layout, board["candidate"], params.seed)
        write_json(layout.leaking_split, leaking_split)
        _step(4, "data")
        context = {
            "recipe": params.recipe,
            "winner": winner,
            "leaderboard": leaderboard,
            "models": models,
            "run_titles": RUN_TITLES,
            "data": data_section(layout, params.seed),
            "leaking_split": leaking_split,
            "num_test_uses": num_test_uses(layout),
            "provenance": provenance_rows(params, layout, board["candidate"]),
        }
        _step(5, "page")
        write_text(layout.report, render(context))
    _step(_NUM_STEPS, "done")


def render(context: Document) -> str:
    """Return the page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": share, "number": number, "p_value": p_value}
    return environment.get_template("report.html.jinja").render(context) + "\n"


def winner_section(params: Params, layout: Layout, board: Mapping[str, Any]) -> Document:
    """Return what the report says of the candidate for promotion, on the test part."""
    classes, malignant = params.diagnoses.classes, params.diagnoses.malignant
    candidate = board["candidate"]
    frame = candidate_predictions(layout, candidate, "test")
    table = parse_predictions(frame, classes, malignant, where="the candidate's test predictions")
    document = candidate_document(params, layout, candidate)
    _write_confusion(layout, frame, table)
    first = candidate["members"][0]
    names = [f"{member['backbone']}-{member['seed']}" for member in candidate["members"]]
    return {
        "names": names,
        "kind": KINDS[candidate["kind"]],
        "gates": gates_section(params, board, frame, document),
        "num_images": document["num_images"],
        "num_groups": document["num_groups"],
        "tiles": tile_rows(document),
        "headline": headline_rows(document),
        "per_class": per_class_table(document),
        "absent_classes": document["absent_classes"],
        "small_classes": document["small_classes"],
        "per_lesion": document["per_lesion"],
        "details": details(document, candidate["thresholds"] or []),
        "figures": _save_all(layout, _figures(layout, candidate, document, table)),
        "mistakes": explain_mistakes(
            table, layout.images, layout.run(first["backbone"], first["seed"])
        ),
        "num_mistakes": int((table.predicted != table.truth).sum()),
    }


def _calibration_tables(
    layout: Layout, candidate: Mapping[str, Any], document: Document, table: Predictions
) -> dict[str, Predictions]:
    """Return predictions on test before and after calibration.

    Parameters
    ----------
    candidate
        A run or an ensemble, as the leaderboard describes it.
    document, table
        Its `part_document` and its predictions on test.
    """
    raw = uncalibrated_predictions(layout, candidate, "test")
    before = parse_predictions(raw, table.classes, table.malignant)
    temperature = document["temperature"]
    label = "calibrated" if temperature is None else f"calibrated (temperature {temperature:.2f})"
    return {"as trained": before, label: table}


def leaderboard_section(layout: Layout, board: Mapping[str, Any]) -> Document:
    """Return the ranking, its plots and the comparisons behind shared ranks."""
    metric = "balanced_accuracy"
    bars = [
        (
            f"{row['rank']}. {row['backbone']}",
            board_interval(row["validation"], metric),
            board_interval(row.get("test"), metric),
        )
        for row in board["rows"]
    ]
    figures = {"leaderboard": plots_overview.leaderboard(bars)}
    points = [
        (row["backbone"], latency_of(row), board_interval(row["validation"], metric)[0])
        for row in board["rows"]
    ]
    figures["quality_latency"] = plots_overview.pareto(points)
    rows = board_rows(board)
    return {
        "rows": rows,
        "has_gpu": any(gpu_latency_of(row) is not None for row in board["rows"]),
        "candidates": candidate_rows(board),
        "num_first": sum(row["rank"] == 1 for row in rows),
        "num_runs": sum(row["seeds"] for row in rows),
        "comparisons": board["comparisons"],
        "figures": _save_all(layout, figures),
    }


def model_section(
    params: Params, layout: Layout, row: Mapping[str, Any], candidate: Mapping[str, Any]
) -> Document:
    """Return one backbone: every run's numbers, and the plots of its first seed.

    The plots of a run that is the candidate stand in the candidate's own section.
    """
    backbone, seeds = str(row["backbone"]), list(row["seeds"])
    names = [f"{backbone}-{seed}" for seed in seeds]
    histories = {
        name: read_table(layout.run(backbone, seed) / "history.csv")
        for name, seed in zip(names, seeds, strict=True)
    }
    for name, history in histories.items():
        write_table(history, layout.plots / "learning" / f"{name}.csv")
    documents = [
        read_document(layout.evaluation(backbone, seed) / "metrics.json") for seed in seeds
    ]
    figures = {"learning": plots.learning(histories)}
    is_candidate = [(m["backbone"], m["seed"]) for m in candidate["members"]] == [
        (backbone, seeds[0])
    ]
    tables: Document = {"per_class": None, "details": None}
    if not is_candidate:
        run = RunName(backbone, seeds[0])
        figures |= _test_figures(params, layout, run, documents[0])
        chosen = read_evaluation(layout, run, "calibration.json")["thresholds"]
        tables["per_class"] = per_class_table(documents[0])
        tables["details"] = details(documents[0], chosen)
    return {
        "backbone": backbone,
        "rank": row["rank"],
        "first": names[0],
        "is_candidate": is_candidate,
        "weights": weights_origin(layout.run(backbone, seeds[0])),
        "runs": [
            {"name": name, "cells": headline_cells(document)}
            for name, document in zip(names, documents, strict=True)
        ],
        **tables,
        "figures": _save_all(layout, figures, f"-{backbone}"),
    }


def _test_figures(
    params: Params, layout: Layout, run: RunName, document: Document
) -> dict[str, Any]:
    """Return the plots of a run's predictions on test."""
    classes, malignant = params.diagnoses.classes, params.diagnoses.malignant
    alone = {"members": [{"backbone": run.backbone, "seed": run.seed, "weight": 1.0}]}
    frame = read_table(layout.evaluation(run.backbone, run.seed) / "test.parquet")
    table = parse_predictions(frame, classes, malignant, where=f"the test predictions of {run}")
    return _figures(layout, alone, document, table)


def _figures(
    layout: Layout, candidate: Mapping[str, Any], document: Document, table: Predictions
) -> dict[str, Any]:
    """Return the plots of a run or an ensemble; parameters as `_calibration_tables`."""
    figures = {
        "confusion": plots.confusion(np.array(document["confusion"]["counts"]), table.classes),
        "curves": plots.curves(table),
        "reliability": plots.reliability(_calibration_tables(layout, candidate, document, table)),
    }
    subgroups = subgroup_rows(document)
    if len(subgroups) > 1:
        metrics = [title for _, title in SUBGROUP_METRICS]
        figures["subgroups"] = plots_overview.forest(subgroups, metrics)
    return figures


def _write_confusion(layout: Layout, frame: pd.DataFrame, table: Predictions) -> None:
    """Write diagnosis and prediction per image, for `dvc plots`."""
    names = [table.classes[number] for number in table.predicted]
    rows = pd.DataFrame({"diagnosis": frame["diagnosis"].astype(str), "predicted": names})
    write_table(rows, layout.plots / "confusion.csv")


def _save_all(layout: Layout, figures: Mapping[str, Any], suffix: str = "") -> dict[str, str]:
    """Write figures below `reports/plots/` and return them as data URIs."""
    addresses = {}
    for name, figure in figures.items():
        data = plots.to_png(figure)
        with atomic_path(layout.plots / f"{name}{suffix}.png") as temporary:
            temporary.write_bytes(data)
        addresses[name] = to_data_uri(data)
    return addresses


def _step(done: int, what: str) -> None:
    print(Progress("report", done, _NUM_STEPS, "parts", what), flush=True)


if __name__ == "__main__":
    run_stage("report", run)
