"""What the report says of the data: snapshot, split, near-duplicates, checks, provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from components.dataset.originals import list_originals
from components.evaluation.report_pictures import (
    joined_pairs,
    quarantined_images,
    surest_first,
)
from components.evaluation.uses import id_of_test_set, read_test_uses
from components.layout import Layout
from components.params import Params
from components.splitting.groups import clean_ids, joined_only_by_pairs
from components.splitting.summary import image_level_leak, split_summary
from components.tables import PAIR_COLUMNS, read_table

Document = dict[str, Any]
_PROVENANCE = {"weights": "started from", "training": "training recipe"}


def data_section(layout: Layout, seed: int) -> Document:
    """Return the snapshot, the split, what was joined and what was left out."""
    manifest = read_document(layout.manifest)
    labels, splits = read_table(layout.labels), read_table(layout.splits)
    pairs, quarantine = read_table(layout.pairs), read_table(layout.quarantine)
    joined = joined_only_by_pairs(labels, pairs)
    files = list_originals(layout.images)
    return {
        "synthetic": bool(manifest["synthetic"]),
        "sources": manifest["sources"],
        "content_id": manifest["content_id"],
        "num_images": len(labels),
        "split": split_summary(splits, labels),
        "image_level_leak": image_level_leak(splits, labels, seed),
        "num_pairs": len(pairs),
        "num_joined": len(joined),
        "evidence": pairs["evidence"].value_counts().sort_index().to_dict(),
        "joined": joined_pairs(joined, files),
        "joined_rows": joined_rows(joined, labels),
        "left_out": _left_out(splits),
        "quarantined": quarantined_images(quarantine, files),
        "checks": _checks(layout),
    }


def joined_rows(joined: pd.DataFrame, labels: pd.DataFrame) -> list[Document]:
    """Return every pair that joined what no declared id holds together, and why; surest first."""
    lesions = dict(zip(labels["image_id"], clean_ids(labels["lesion_id"]), strict=True))
    ordered = surest_first(joined)
    return [
        {
            "ids": (str(first), str(second)),
            "lesions": tuple(lesions[name] or "no lesion id" for name in (first, second)),
            "evidence": str(evidence),
            "inliers": int(inliers),
            "similarity": float(similarity),
        }
        for first, second, evidence, similarity, inliers in zip(
            *(ordered[name] for name in PAIR_COLUMNS), strict=True
        )
    ]


def num_test_uses(layout: Layout) -> int:
    """Return how many candidates this test set had been used for when the flow last asked."""
    labels, splits = read_table(layout.labels), read_table(layout.splits)
    test = splits.loc[splits["split"] == "test", "image_id"]
    test_set = id_of_test_set(labels[labels["image_id"].isin(test)])
    return read_test_uses(layout.test_uses).get(test_set, 0)


def _left_out(splits: pd.DataFrame) -> list[Document]:
    """Return each reason with its images, the most frequent first."""
    by_reason = splits.dropna(subset=["reason"]).groupby("reason")["image_id"].agg(sorted)
    rows = [{"reason": str(reason), "image_ids": ids} for reason, ids in by_reason.items()]
    return sorted(rows, key=lambda row: (-len(row["image_ids"]), row["reason"]))


def _checks(layout: Layout) -> Document:
    """Return how many expectations held, and those that did not."""
    summary = read_document(layout.validation_report / "summary.json")
    failed = [entry for entry in summary["expectations"] if not entry["success"]]
    return {
        "total": len(summary["expectations"]),
        "failed": [
            {
                "name": entry.get("title") or entry["expectation"],
                "severity": entry["severity"],
                "observed": entry.get("observed"),
                "num_offenders": entry.get("num_offenders", 0),
                "offenders": entry.get("offenders", [])[:8],
            }
            for entry in failed
        ],
    }


def provenance_rows(
    params: Params, layout: Layout, candidate: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Return what a reader needs to find the same data, split and model again."""
    rows = [
        ("recipe", params.recipe),
        ("seed of the split and the bootstrap", str(params.seed)),
        ("seeds of the trainings", ", ".join(map(str, params.seeds))),
        ("labels", _sha256(layout.labels)),
        ("near-duplicates", _sha256(layout.pairs)),
        ("quarantine", _sha256(layout.quarantine)),
        ("splits", _sha256(layout.splits)),
    ]
    for member in candidate["members"]:
        folder = layout.run(member["backbone"], member["seed"])
        document = read_document(folder / "model.json")
        name = f"{member['backbone']}-{member['seed']}"
        rows += [(f"{name}: trained weights", own["sha256"]) for own in document["members"]]
        rows += [
            (f"{name}: {_PROVENANCE.get(key, key.replace('_', ' '))}", _plain(value))
            for key, value in sorted(document.get("provenance", {}).items())
            if key not in ("backbone", "seed")
        ]
    return rows


def weights_origin(run_folder: Path) -> str | None:
    """Return where a run's weights started from, as its training recorded it."""
    provenance = read_document(run_folder / "model.json").get("provenance", {})
    origin = (provenance.get("weights") or {}).get("origin")
    return None if origin is None else str(origin)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_document(path: Path) -> Document:
    """Return a JSON file."""
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document
