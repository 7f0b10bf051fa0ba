"""Which models and trainings have used given images, themselves or by way of where they started.

A model that was fine-tuned from an earlier one has been trained on that one's images too:
`exposure.parquet` of a version lists its own images, `inherited.parquet` those of its ancestors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from components.dataset.given_split import given_split
from components.dataset.sources.config import FileOptions
from components.dataset.sources.place import open_files
from components.errors import RegistryError, SourceError, WeightsError
from components.layout import Layout
from components.registry.ancestry import (
    EXPOSURE,
    EXPOSURE_COLUMNS,
    INHERITED,
    SEEN,
    seen_by_start,
)
from components.registry.config import RegistryParams
from components.tables import PARTS, read_table

Parts = dict[str, list[str]]
"""Part -> image ids."""
_TABLES = f"*/versions/*/{EXPOSURE}", f"*/versions/*/{INHERITED}"


@dataclass(frozen=True)
class Exposed:
    """One version in the registry.

    Attributes
    ----------
    model, version
        Its names.
    tables
        `exposure.parquet` and `inherited.parquet`, by these names.
    """

    model: str
    version: str
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def exposed_versions(layout: Layout, uri: str) -> list[Exposed]:
    """Return every version of every model in the registry at `uri`.

    Raises
    ------
    SourceError
        The registry is on S3 and cannot be read.
    """
    try:
        files = open_files(uri, FileOptions(), root=layout.root, cache=layout.cache)
        names = files.names()
    except SourceError:
        if uri.startswith("s3://"):
            raise
        return []  # a registry comes into being with its first version
    found: dict[tuple[str, str], Exposed] = {}
    for name in names:
        if any(PurePosixPath(name).match(table) for table in _TABLES):
            model, _, version, table = name.split("/")[-4:]
            entry = found.setdefault((model, version), Exposed(model, version))
            entry.tables[table] = read_table(files.local_path(name))
    return list(found.values())


def models_with(
    versions: Sequence[Exposed],
    registry: RegistryParams,
    layout: Layout,
    images: set[str],
    hashes: set[str],
) -> list[dict[str, Any]]:
    """Return the versions that used one of the images (or files), with what each used.

    Returns
    -------
    list of dict
        `model`, `version`, `alias` (or empty), `images` (part -> ids) and `inherited` (the same
        for the models that it started from).
    """
    found = []
    for entry in versions:
        own, inherited = (
            _by_part(_rows_of(entry.tables.get(name), images, hashes))
            for name in (EXPOSURE, INHERITED)
        )
        if own or inherited:
            names = {"model": entry.model, "version": entry.version, "alias": ""}
            found.append(names | {"images": own, "inherited": inherited})
    if not found:
        return []
    from components.registry.versions import open_registry

    for alias, version in open_registry(registry, layout).aliases().items():
        for use in found:
            if (use["model"], use["version"]) == (registry.model_name, version):
                use["alias"] = alias
    return found


def runs_with(
    registry: RegistryParams,
    layout: Layout,
    images: set[str],
    hashes: set[str],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the trainings in this workspace that used one of the images, and those that may have.

    Returns
    -------
    found
        `run`, `images` and `inherited` as `models_with`.
    not_looked_into
        Trainings whose split, or the images of the model that they started from, cannot be told:
        name -> why.
    """
    found: list[dict[str, Any]] = []
    not_looked_into: dict[str, list[str]] = {}
    for path in sorted(layout.runs.glob("*/model.json")):
        run = f"runs/{path.parent.name}"
        document = json.loads(path.read_text(encoding="utf-8"))
        start = document.get("provenance", {}).get("weights") or {}
        try:
            tables = seen_by_start(start, registry, layout)
        except (RegistryError, WeightsError) as error:
            tables = []
            why = f"started from {start['origin']}: {error.what}"
            not_looked_into.setdefault(run, []).append(why)
        rows = [_rows_of(table, images, hashes) for table in tables]
        seen = pd.concat([pd.DataFrame(columns=list(EXPOSURE_COLUMNS)), *rows])
        seen = seen[seen["split"].isin(SEEN)].drop_duplicates(["image_id", "split"])
        inherited = _by_part(seen)
        splits = given_split(layout, path.parent.name)
        if splits is None:
            not_looked_into.setdefault(run, []).append("its split is not here any more")
        own = {} if splits is None else _by_part(splits[splits["image_id"].isin(images)])
        if own or inherited:
            found.append({"run": run, "images": own, "inherited": inherited})
    return found, {run: "; ".join(reasons) for run, reasons in not_looked_into.items()}


def _rows_of(table: pd.DataFrame | None, images: set[str], hashes: set[str]) -> pd.DataFrame:
    if table is None:
        return pd.DataFrame(columns=list(EXPOSURE_COLUMNS))
    return table[table["image_id"].isin(images) | table["sha256"].isin(hashes)]


def _by_part(rows: pd.DataFrame) -> Parts:
    return {
        part: sorted(rows.loc[rows["split"] == part, "image_id"])
        for part in PARTS
        if (rows["split"] == part).any()
    }
