"""Stage `rank`: the leaderboard of exactly the backbones and seeds in params, and the candidate.

Ranks, ties, ensembles and the choice of the candidate see validation predictions only; test is
measured beside them for the reader and the gates. Folders of runs that params no longer name are
removed, so that a removed backbone leaves the board and the disk.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.atomic import write_json
from components.errors import TableError
from components.evaluation.candidates import Tables, make_candidates
from components.evaluation.ensembles import RunName, temperature_of
from components.evaluation.intervals import one_thread
from components.evaluation.ranking import (
    RESAMPLES_PER_COMPARISON,
    Contender,
    PartNumbers,
    backbone_document,
    backbone_resamples,
    measure_part,
    rank_contenders,
    shown_numbers,
)
from components.layout import Layout
from components.params import Params
from components.progress import Progress
from components.stage import run_stage
from components.tables import read_table, write_table

PARTS = ("validation", "test")


def run(params: Params, layout: Layout) -> None:
    """Write `reports/leaderboard.json` and `.csv`."""
    runs = [RunName(name, seed) for name in sorted(params.backbones) for seed in params.seeds]
    remove_others(layout, runs)
    with one_thread():
        document = leaderboard(params, layout, runs)
    write_json(layout.leaderboard, document)
    write_table(flat(document), layout.leaderboard_csv)


def remove_others(layout: Layout, runs: Sequence[RunName]) -> None:
    """Remove runs, evaluations and profiles that `runs` does not name."""
    kept = {str(name) for name in runs}
    for folder in (layout.runs, layout.evaluations):
        for path in sorted(folder.iterdir()):
            if path.is_dir() and path.name not in kept:
                print(f"rank: removed {folder.name}/{path.name}: params.yaml has no such run")
                shutil.rmtree(path)
    backbones = {name.backbone for name in runs}
    for path in sorted(layout.profiles.glob("*.json")):
        if path.stem not in backbones:
            path.unlink()


def leaderboard(params: Params, layout: Layout, runs: Sequence[RunName]) -> dict[str, Any]:
    """Return the document of `reports/leaderboard.json`."""
    tables = {part: _tables(layout, runs, part) for part in PARTS}
    temperatures = {name: temperature_of(layout, name) for name in runs}
    profiles = {name: _profile(layout, name) for name in params.backbones}
    resamples = max(
        params.evaluation.bootstrap_resamples,
        RESAMPLES_PER_COMPARISON * (len(params.backbones) - 1),
    )
    numbers = _measure(params, tables, resamples)
    contenders = [
        _contender(
            numbers["validation"],
            tuple(name for name in runs if name.backbone == backbone),
            profiles[backbone],
            params.seed,
        )
        for backbone in sorted(params.backbones)
    ]
    ranked, comparisons = rank_contenders(
        contenders, numbers["validation"], params.ranking.significance
    )
    candidate, ensembles = make_candidates(
        params, tables, temperatures, numbers["validation"], ranked[0][1]
    )
    classes = params.diagnoses.classes
    return {
        "schema_version": 1,
        "metric": "balanced_accuracy",
        "part": "validation",
        "classes": list(classes),
        "melanoma_sensitivity_of": shown_numbers(classes)["melanoma_sensitivity"],
        "resamples": resamples,
        "significance": params.ranking.significance,
        "rows": [
            _row(rank, one, numbers, params.seed) | profiles[one.backbone] for rank, one in ranked
        ],
        "comparisons": comparisons,
        "ensembles": ensembles,
        "candidate": candidate,
    }


def _measure(
    params: Params, tables: Mapping[str, Tables], resamples: int
) -> dict[str, PartNumbers]:
    numbers, diagnoses = {}, params.diagnoses
    for step, part in enumerate(PARTS):
        print(Progress("rank", step, len(PARTS), "parts", part), flush=True)
        numbers[part] = measure_part(
            tables[part], diagnoses.classes, diagnoses.malignant, resamples, params.seed
        )
    print(Progress("rank", len(PARTS), len(PARTS), "parts"), flush=True)
    return numbers


def _row(
    rank: int, one: Contender, numbers: Mapping[str, PartNumbers], seed: int
) -> dict[str, Any]:
    parts = {
        part: backbone_document(own, one.runs, backbone_resamples(own, one.runs, seed))
        for part, own in numbers.items()
    }
    seeds = [name.seed for name in one.runs]
    return {"rank": rank, "backbone": one.backbone, "seeds": seeds, **parts}


def _tables(layout: Layout, runs: Sequence[RunName], part: str) -> Tables:
    return {
        name: read_table(layout.evaluation(name.backbone, name.seed) / f"{part}.parquet")
        for name in runs
    }


def _profile(layout: Layout, backbone: str) -> dict[str, Any]:
    path = layout.profile(backbone)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: document[name] for name in ("num_parameters", "macs", "latency_ms", "size_bytes")
        }
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise TableError(
            f"the profile of {backbone} is missing or damaged",
            where=str(path),
            fix=f"run `dvc repro -f -s profile@{backbone}`",
        ) from error


def _contender(
    part: PartNumbers, runs: tuple[RunName, ...], profile: Mapping[str, Any], seed: int
) -> Contender:
    values = [part.values[name] for name in runs]
    return Contender(
        backbone=runs[0].backbone,
        runs=runs,
        balanced_accuracy=float(np.mean([own["balanced_accuracy"] for own in values])),
        melanoma_sensitivity=float(
            np.mean([own.get("melanoma_sensitivity", np.nan) for own in values])
        ),
        macs=profile["macs"],
        resampled=backbone_resamples(part, runs, seed)["balanced_accuracy"],
    )


def flat(document: Mapping[str, Any]) -> pd.DataFrame:
    """Return the leaderboard as a flat table."""
    rows = []
    for row in document["rows"]:
        own = {"rank": row["rank"], "backbone": row["backbone"], "num_seeds": len(row["seeds"])}
        for part in PARTS:
            for name, numbers in row[part].items():
                own |= {f"{part}_{name}": numbers["mean"]}
                if name == document["metric"]:
                    own |= {f"{part}_{name}_{bound}": numbers[bound] for bound in ("low", "high")}
        own |= {name: row[name] for name in ("num_parameters", "macs", "size_bytes")}
        own["cpu_batch1_ms"] = row["latency_ms"]["cpu_batch1"]["median"]
        rows.append(own)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run_stage("rank", run)
