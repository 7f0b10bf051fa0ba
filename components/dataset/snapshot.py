"""One snapshot from a list of sources: `images/`, `labels.parquet` and `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from components.atomic import disk_full_as_error, write_json
from components.dataset.config import DiagnosesParams, SourceParams
from components.dataset.left_out import LEFT_OUT, LEFT_OUT_COLUMNS, left_out_of
from components.dataset.merge import ID_COLUMNS, Merger
from components.dataset.sources.catalog import read_source, source_names
from components.dataset.withdrawn import Withdrawn
from components.errors import SourceError
from components.tables import LABEL_COLUMNS, read_table, source_name, write_table

SCHEMA_VERSION = 2
"""1: the files lay in `images/` one by one."""
NO_DIAGNOSIS = ""
"""How `diagnoses.names` spells that a source gives none."""


@dataclass(frozen=True)
class Base:
    """An earlier snapshot of the first `num_sources` sources, for those that are not at hand."""

    folder: Path
    num_sources: int


def write_snapshot(
    sources: Sequence[tuple[SourceParams, str]],
    diagnoses: DiagnosesParams,
    withdrawn: Withdrawn,
    folder: Path,
    *,
    root: Path,
    cache: Path,
    base: Base | None = None,
) -> dict[str, Any]:
    """Write a snapshot of `sources` into `folder`.

    Parameters
    ----------
    sources
        Each with its fingerprint.
    diagnoses
        The recipe's classes, and how sources spell them.
    withdrawn
        What must not be taken.
    folder
        Empty or not there yet.
    root, cache
        Folder of the workspace (relative URIs start there), folder of caches.
    base
        Stands for the first sources.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    SourceError
        A source cannot be read, has an unknown diagnosis, or two sources contradict each other.
    ResourceError
        The disk is full.
    """
    (folder / "images").mkdir(parents=True)
    merger = Merger(folder / "images", withdrawn.sha256)
    facts: list[dict[str, Any]] = []
    not_listed: list[str] = []
    if base is not None:
        manifest = read_manifest(base.folder / "manifest.json")
        labels = read_table(base.folder / "labels.parquet", LABEL_COLUMNS)
        allowed = withdrawn.allows(labels)
        merger.start_from(
            labels[allowed],
            _allowed(left_out_of(manifest), withdrawn),
            base.folder / "images",
            manifest,
        )
        facts += _without(manifest["sources"], labels, merger)
        not_listed += manifest["present_but_not_listed"]
    names = source_names([source for source, _ in sources])
    for name, (source, fingerprint) in list(zip(names, sources, strict=True))[len(facts) :]:
        images = read_source(source, root, cache)
        labels, left_out = known_diagnoses(images.labels, diagnoses, where=source.uri)
        allowed = withdrawn.allows(labels)
        others = _with_another_diagnosis(images.labels, labels)
        num_forbidden = merger.add(name, images, labels[allowed], others[withdrawn.allows(others)])
        not_listed += [f"{name}/{file}" for file in images.present_but_not_listed]
        facts.append(
            {
                "name": name,
                **source.model_dump(mode="json"),
                "fingerprint": fingerprint,
                "licence": images.licence,
                "attribution": images.attribution,
                "synthetic": images.synthetic,
                "left_out": left_out,
                "num_listed": len(images.labels),
                "num_withdrawn": int((~allowed).sum()) + num_forbidden,
            }
        )
    labels = merger.labels()
    _warn_of_other_names(merger, labels)
    manifest = _manifest(labels, merger, facts, not_listed, diagnoses)
    with disk_full_as_error(folder):
        write_table(labels, folder / "labels.parquet")
        write_json(folder / "manifest.json", manifest)
    return manifest


def _warn_of_other_names(merger: Merger, labels: pd.DataFrame) -> None:
    """Name the lesions and patients of which a withdrawn picture came again under another id.

    Whether their other pictures have to go, too, only a person knows.
    """
    for column in ID_COLUMNS:
        taken = set(labels[column].dropna())
        names = sorted({row[column] for row in merger.refused} & taken)
        if names:
            option = column.removesuffix("_id")
            print(
                f"ingest: warning: withdrawn pictures came again under other ids; of the same "
                f"{option} other pictures were taken. If they have to go, too: lesionflow withdraw "
                + " ".join(f"--{option} {name}" for name in names),
                flush=True,
            )


def known_diagnoses(
    labels: pd.DataFrame, diagnoses: DiagnosesParams, *, where: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows with the recipe's diagnoses, and source's spelling -> number left out.

    Capital letters do not matter.

    Raises
    ------
    SourceError
        A diagnosis is neither a class nor mapped by `diagnoses.names`.
    """
    spelled = labels["diagnosis"].fillna(NO_DIAGNOSIS)
    names: dict[str, str | None] = {name.lower(): name for name in diagnoses.classes}
    names |= {name.lower(): known for name, known in diagnoses.names.items()}
    unknown = spelled[~spelled.str.lower().isin(names)]
    if len(unknown):
        counts = ", ".join(
            f"{value!r} ({count} image{'s' if count > 1 else ''}, such as "
            f"{labels['image_id'][unknown.index[unknown == value][0]]})"
            for value, count in sorted(Counter(unknown).items())
        )
        raise SourceError(
            f"diagnosis not known to the recipe: {counts}",
            where=f"source {where}",
            fix="map it under diagnoses.names in params.yaml onto one of "
            f"{', '.join(diagnoses.classes)}, or onto null to leave its images out",
        )
    mapped = spelled.map(lambda value: names[value.lower()])
    left_out = Counter(spelled[mapped.isna()])
    kept = labels.assign(diagnosis=mapped)[mapped.notna()]
    return kept, {str(name): count for name, count in sorted(left_out.items())}


def _with_another_diagnosis(listed: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that were left out; a row without a diagnosis contradicts nothing."""
    others = listed.drop(index=kept.index)
    return others[others["diagnosis"].fillna(NO_DIAGNOSIS) != NO_DIAGNOSIS]


def _allowed(left_out: list[dict[str, Any]], withdrawn: Withdrawn) -> list[dict[str, Any]]:
    allowed = withdrawn.allows(pd.DataFrame(left_out, columns=LEFT_OUT_COLUMNS))
    return [row for row, may_stay in zip(left_out, allowed, strict=True) if may_stay]


def content_id(labels: pd.DataFrame) -> str:
    """Return a sha256 over the rows, which hold each file's sha256; independent of their order."""
    digest = hashlib.sha256()
    rows = labels.sort_values("image_id").astype(object).where(labels.notna(), None)
    for row in rows[list(LABEL_COLUMNS)].itertuples(index=False, name=None):
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a snapshot's manifest."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def recorded_diagnoses(diagnoses: DiagnosesParams) -> dict[str, Any]:
    """Return what of the recipe's diagnoses shapes a snapshot."""
    return {"classes": list(diagnoses.classes), "names": dict(diagnoses.names)}


def _without(
    facts: list[dict[str, Any]], labels: pd.DataFrame, merger: Merger
) -> list[dict[str, Any]]:
    """Return an earlier snapshot's facts, with what was withdrawn since then counted."""
    gone = labels[~labels["image_id"].isin(merger.rows)]
    withdrawn = Counter(source_name(str(source)) for source in gone["source"])
    return [
        fact | {"num_withdrawn": fact["num_withdrawn"] + withdrawn[fact["name"]]} for fact in facts
    ]


def _manifest(
    labels: pd.DataFrame,
    merger: Merger,
    facts: list[dict[str, Any]],
    not_listed: list[str],
    diagnoses: DiagnosesParams,
) -> dict[str, Any]:
    counts = labels["diagnosis"].value_counts()
    absent = labels["sha256"].isna()
    taken = Counter(source_name(row["source"]) for row in merger.rows.values())
    return {
        "schema_version": SCHEMA_VERSION,
        "content_id": content_id(labels),
        "synthetic": any(fact["synthetic"] for fact in facts),
        "diagnoses": recorded_diagnoses(diagnoses),
        "num_images": len(labels),
        "num_absent": int(absent.sum()),
        "counts": {name: int(counts.get(name, 0)) for name in diagnoses.classes},
        "sources": [fact | {"num_images": taken[fact["name"]]} for fact in facts],
        "listed_but_absent": list(labels["image_id"][absent]),
        "present_but_not_listed": sorted(not_listed),
        "seen_twice": merger.seen_twice,
        "label_conflicts": merger.label_conflicts(),
        LEFT_OUT: merger.left_out,
        "joined_ids": merger.joined,
        "shared_ids": {column: _shared_ids(labels, column) for column in ID_COLUMNS},
    }


def _shared_ids(labels: pd.DataFrame, column: str) -> int:
    """Return how many ids several sources use: they are taken for the same lesion or patient."""
    sources = labels["source"].map(source_name).groupby(labels[column]).nunique()
    return int((sources > 1).sum())
