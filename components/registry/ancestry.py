"""What the models have seen that a training started from.

A model that was fine-tuned from an earlier one has been trained on that one's images too,
whatever part they are in now. Both tables of a version are looked for wherever `weights` of
`params.yaml` may have pointed: a version of the registry, a folder or an `s3://` prefix with one,
or a weights file inside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from components.backbones.fetch import fetch
from components.backbones.model_file import MODEL_JSON, read_model
from components.errors import RegistryError
from components.layout import Layout
from components.registry.checksums import parse_checksums, sha256_of
from components.registry.config import RegistryParams
from components.registry.store import MARKER, VERSIONS, version_name
from components.tables import read_table

EXPOSURE, INHERITED = "exposure.parquet", "inherited.parquet"
EXPOSURE_COLUMNS = (
    "image_id",
    "sha256",
    "group_id",
    "lesion_id",
    "patient_id",
    "diagnosis",
    "split",
)
SEEN = ("train", "validation")
"""Parts that a model is trained or selected on."""
REGISTERED = "registry:"
"""How weights are named that come from a version: `registry:v0001`."""


def inherited_exposure(
    starts: Sequence[Mapping[str, Any]], registry: RegistryParams, layout: Layout
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the images that the starting points of some trainings were trained or selected on.

    Parameters
    ----------
    starts
        `provenance.weights` of each training's `model.json`.

    Returns
    -------
    images
        With `EXPOSURE_COLUMNS`.
    unknown
        Why it is not known of a starting point what it has seen; empty: all is known.

    Raises
    ------
    WeightsError
        S3 cannot be reached.
    """
    tables: list[pd.DataFrame] = []
    unknown = []
    different = {(str(start["origin"]), str(start["sha256"])): start for start in starts}
    for (origin, _), start in sorted(different.items()):
        try:
            tables += seen_by_start(start, registry, layout)
        except RegistryError as error:
            unknown.append(f"started from {origin}: {error.what} ({error.where}); {error.fix}")
    everything = pd.concat([pd.DataFrame(columns=list(EXPOSURE_COLUMNS)), *tables])
    seen = everything[everything["split"].isin(SEEN)].drop_duplicates(["image_id", "sha256"])
    ordered = seen[list(EXPOSURE_COLUMNS)].sort_values(["image_id", "sha256"], ignore_index=True)
    return ordered.astype(object).where(ordered.notna(), None), tuple(unknown)


def seen_by_start(
    start: Mapping[str, Any], registry: RegistryParams, layout: Layout
) -> list[pd.DataFrame]:
    """Return the tables of the model that a training started from; none: it was none of ours.

    Parameters
    ----------
    start
        `provenance.weights` of the training's `model.json`: `origin`, `sha256`, `our_model`.

    Raises
    ------
    RegistryError
        It was a model of ours, and its tables are not to be had, or are those of another one.
    WeightsError
        S3 cannot be reached.
    """
    origin, ours = str(start.get("origin", "none")), start.get("our_model")
    if origin.startswith(REGISTERED):
        version = version_name(int(origin.removeprefix(REGISTERED).removeprefix("v")))
        folders = [f"{registry.uri.rstrip('/')}/{registry.model_name}/{VERSIONS}/{version}"]
        ours = True
    else:
        parent, slash, _ = origin.rstrip("/").rpartition("/")
        folders = [origin, parent or slash or "."]
    if ours is False:
        return []
    for folder in folders:
        tables = _tables_in(folder, str(start.get("sha256", "")), layout)
        if tables:
            return tables
    if not ours:  # a training of before this was noted; it may as well be a published file
        return []
    raise RegistryError(
        f"it is a model of ours without {EXPOSURE}: nobody can tell which images it has seen",
        where=folders[0],
        fix=f"start from a version of a registry (registry:v0001, or its folder with {EXPOSURE} "
        f"and {INHERITED}), or put these two beside the weights",
    )


def _tables_in(folder: str, sha256: str, layout: Layout) -> list[pd.DataFrame]:
    """Return the tables of the version in `folder`, verified; empty: there is none.

    `sha256` is that of the weights that were taken (or empty).
    """

    def find(name: str) -> Path | None:
        return fetch(folder, name, layout.cache, layout.root)

    exposure, inherited = find(EXPOSURE), find(INHERITED)
    if exposure is None:
        return []
    model_json, marker = find(MODEL_JSON), find(MARKER)
    if inherited is None:
        raise _unusable(f"{INHERITED} is missing beside {EXPOSURE}", folder)
    if model_json is not None and sha256:
        members = read_model(model_json.parent).members
        if sha256 not in {member.sha256 for member in members}:
            raise _unusable("the model there is another one than the training started from", folder)
    sums = parse_checksums(marker.read_bytes(), where=folder).files if marker else {}
    for name, path in ((EXPOSURE, exposure), (INHERITED, inherited)):
        if name in sums and sha256_of(path) != sums[name].sha256:
            raise _unusable(f"{name} has other bytes than were published", folder)
    return [read_table(path, EXPOSURE_COLUMNS) for path in (exposure, inherited)]


def _unusable(what: str, folder: str) -> RegistryError:
    return RegistryError(
        what, where=folder, fix="put back the version that was there, or train again from another"
    )
