"""All checks of a snapshot, in the order in which they need each other.

1. The labels table itself (columns, ids): without it nothing else can be said.
2. Rows, images, files, pictures and pairs: who is quarantined.
3. What is kept: enough groups of every class for the split, and drift from the last snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from components.params import Params
from components.splitting.groups import known_by_bytes
from components.splitting.ledger import Ledger
from components.validation.between import conflicts_suite, pairs_suite, pictures_suite
from components.validation.checks import Outcome, off
from components.validation.drift import drift_suites, snapshot_profile
from components.validation.expectations import Judge
from components.validation.images import (
    files_suite,
    images_suite,
    images_table,
    sources_suite,
)
from components.validation.labels import classes_suite, labels_suite, schema_suite
from components.validation.reference import read_reference
from components.validation.verdict import quarantined

NOTHING_EARLIER = "no earlier snapshot to compare with"


@dataclass(frozen=True)
class Snapshot:
    """What `ingest`, `measure` and `pairs` wrote, and what earlier runs split."""

    labels: pd.DataFrame
    manifest: dict[str, Any]
    quality: pd.DataFrame
    pairs: pd.DataFrame
    ledger: Ledger


@dataclass
class Judgement:
    """What was found.

    Attributes
    ----------
    judge
        The results of Great Expectations.
    num_images
        Rows of the labels table.
    outcomes
        One per check, in the order of the suites.
    left_out
        Quarantined images and why.
    profile
        The snapshot's profile, if there is an image left to describe.
    """

    judge: Judge
    num_images: int
    outcomes: list[Outcome] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    profile: dict[str, Any] | None = None


def judge_snapshot(snapshot: Snapshot, params: Params, reference: Path) -> Judgement:
    """Run all checks that are not off.

    Parameters
    ----------
    snapshot
        The tables.
    params
        `diagnoses`, `split` and `validation` are read.
    reference
        File with the profiles of earlier snapshots.

    Raises
    ------
    TableError
        The tables are not of the same snapshot.
    """
    found = Judgement(Judge(), len(snapshot.labels))
    found.outcomes += found.judge.run(schema_suite(snapshot.labels))
    if not all(outcome.success for outcome in found.outcomes):
        return found
    images = images_table(snapshot.labels, snapshot.quality)
    _judge_rows(found, snapshot, images, params)
    found.left_out = quarantined(found.outcomes)
    if len(found.left_out) < found.num_images:
        _judge_what_is_kept(found, snapshot, images, params, reference)
    return found


def _judge_rows(found: Judgement, snapshot: Snapshot, images: pd.DataFrame, params: Params) -> None:
    rules, manifest = params.validation, snapshot.manifest
    suites = [
        labels_suite(snapshot.labels, params.diagnoses.classes, snapshot.ledger, rules.labels),
        images_suite(images, rules.images),
        files_suite(images, manifest["present_but_not_listed"], rules.images),
        sources_suite(snapshot.labels, manifest["seen_twice"], rules.images),
        pictures_suite(images, snapshot.pairs, rules.between),
        pairs_suite(images, snapshot.pairs, rules.between),
        conflicts_suite(images, snapshot.pairs, manifest["label_conflicts"], rules.between),
    ]
    for suite in suites:
        found.outcomes += found.judge.run(suite)


def _judge_what_is_kept(
    found: Judgement,
    snapshot: Snapshot,
    images: pd.DataFrame,
    params: Params,
    reference: Path,
) -> None:
    rules, classes = params.validation, params.diagnoses.classes
    found.outcomes += found.judge.run(
        classes_suite(
            known_by_bytes(snapshot.labels, snapshot.quality, found.left_out),
            snapshot.pairs,
            found.left_out,
            classes,
            params.split,
            rules.labels,
        )
    )
    kept = images[~images["image_id"].isin(list(found.left_out))]
    found.profile = snapshot_profile(
        kept,
        classes,
        content_id=snapshot.manifest["content_id"],
        synthetic=snapshot.manifest["synthetic"],
    )
    earlier = read_reference(reference, found.profile)
    for suite in drift_suites(earlier or found.profile, found.profile, kept, rules):
        if earlier is not None:
            found.outcomes += found.judge.run(suite)
            continue
        found.outcomes += [
            Outcome(suite.name, check, True, "nothing", rows=suite.rows, note=NOTHING_EARLIER)
            for check in suite.checks
            if not off(check)
        ]
