"""Stage `report`: one HTML file that a reviewer reads, and the plots that it is made of.

The file opens offline (every picture is in it) and holds no clock time: same input, same bytes.
Promotion comes later and is no part of it: `lesionflow models` says what was promoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.atomic import atomic_path, write_json, write_text
from components.evaluation import plots, plots_overview
from components.evaluation.calibration import apply_temperature
from components.evaluation.ensembles import candidate_predictions
from components.evaluation.leaking_split import measure_leaking_split
from components.evaluation.prediction_table import Predictions, parse_predictions
from components.evaluation.report_data import (
    data_section,
    image_files,
    num_test_uses,
    provenance_rows,
    read_document,
    weights_origin,
)
from components.evaluation.report_pictures import explain_mistakes, to_data_uri
from components.evaluation.report_tables import (
    RUN_TITLES,
    SUBGROUP_METRICS,
    board_interval,
    board_rows,
    headline_cells,
    headline_rows,
    latency_of,
    number,
    per_class_table,
    share,
    subgroup_rows,
    tile_rows,
)
from components.evaluation.score import score_table
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
    environment.filters |= {"share": share, "number": number}
    return environment.get_template("report.html.jinja").render(context) + "\n"


def winner_section(params: Params, layout: Layout, board: Mapping[str, Any]) -> Document:
    """Return what the report says of the candidate for promotion, on the test part."""
    classes, malignant = params.diagnoses.classes, params.diagnoses.malignant
    candidate = board["candidate"]
    frame = candidate_predictions(layout, candidate, "test")
    table = parse_predictions(frame, classes, malignant, where="the candidate's test predictions")
    document = _document(params, layout, candidate, frame)
    _write_confusion(layout, frame, table)
    first = candidate["members"][0]
    subgroups = subgroup_rows(document)
    metrics = [title for _, title in SUBGROUP_METRICS]
    figures = {
        "confusion": plots.confusion(np.array(document["confusion"]["counts"]), classes),
        "curves": plots.curves(table),
        "reliability": plots.reliability(
            _calibration_tables(layout, first["backbone"], first["seed"], table)
            if len(candidate["members"]) == 1
            else {"calibrated": table}
        ),
    }
    if len(subgroups) > 1:
        figures["subgroups"] = plots_overview.forest(subgroups, metrics)
    names = [f"{member['backbone']}-{member['seed']}" for member in candidate["members"]]
    return {
        "names": names,
        "kind": candidate["kind"],
        "num_images": document["num_images"],
        "num_groups": document["num_groups"],
        "tiles": tile_rows(document),
        "headline": headline_rows(document),
        "per_class": per_class_table(document),
        "absent_classes": document["absent_classes"],
        "small_classes": document["small_classes"],
        "per_lesion": document["per_lesion"],
        "figures": _save_all(layout, figures),
        "mistakes": explain_mistakes(
            table, image_files(layout), layout.run(first["backbone"], first["seed"])
        ),
        "num_mistakes": int((table.predicted != table.truth).sum()),
    }


def _document(
    params: Params, layout: Layout, candidate: Mapping[str, Any], frame: pd.DataFrame
) -> Document:
    """Return the candidate's numbers on test: those of its run, or of the ensemble's table."""
    members = candidate["members"]
    if len(members) == 1:
        return read_document(
            layout.evaluation(members[0]["backbone"], members[0]["seed"]) / "metrics.json"
        )
    return score_table(
        frame,
        params.diagnoses.classes,
        params.diagnoses.malignant,
        resamples=params.evaluation.bootstrap_resamples,
        seed=params.seed,
    )


def _calibration_tables(
    layout: Layout, backbone: str, seed: int, table: Predictions
) -> dict[str, Predictions]:
    """Return a run's predictions before and after calibration."""
    path = layout.evaluation(backbone, seed) / "calibration.json"
    temperature = float(read_document(path)["temperature"])
    raw = apply_temperature(table.probabilities, 1 / temperature)
    before = replace(table, probabilities=raw)
    return {"as trained": before, f"calibrated (temperature {temperature:.2f})": table}


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
        (row["backbone"], latency, board_interval(row["validation"], metric)[0])
        for row in board["rows"]
        if (latency := latency_of(row)) is not None
    ]
    if points:
        figures["quality_latency"] = plots_overview.pareto(points)
    rows = board_rows(board)
    return {
        "rows": rows,
        "num_first": sum(row["rank"] == 1 for row in rows),
        "num_runs": sum(row["seeds"] for row in rows),
        "comparisons": board.get("comparisons", []),
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
    if not is_candidate:
        classes, malignant = params.diagnoses.classes, params.diagnoses.malignant
        where = f"the test predictions of {names[0]}"
        frame = read_table(layout.evaluation(backbone, seeds[0]) / "test.parquet")
        table = parse_predictions(frame, classes, malignant, where=where)
        counts = np.array(documents[0]["confusion"]["counts"])
        figures["curves"] = plots.curves(table)
        figures["confusion"] = plots.confusion(counts, classes)
        figures["reliability"] = plots.reliability(
            _calibration_tables(layout, backbone, seeds[0], table)
        )
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
        "per_class": None if is_candidate else per_class_table(documents[0]),
        "figures": _save_all(layout, figures, f"-{backbone}"),
    }


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
