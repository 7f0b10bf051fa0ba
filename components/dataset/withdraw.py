"""`lesionflow withdraw`: images that must go, and where they have been already.

The ids (and the bytes of their images) go onto the list that every snapshot honours, the images
out of the caches. What cannot be undone from here is named: models that were trained on them, and
snapshots of the past that DVC still holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from components.dataset.content_cache import ContentCache
from components.dataset.past_snapshots import past_snapshots
from components.dataset.snapshot import read_manifest
from components.dataset.sources.config import FileOptions
from components.dataset.sources.hashes import HASH_CACHE
from components.dataset.sources.place import open_files
from components.dataset.withdrawn import ID_COLUMNS, Entry, append_withdrawn, read_withdrawn
from components.errors import SourceError
from components.layout import Layout
from components.params import load_params
from components.registry.config import RegistryParams
from components.tables import PARTS, read_table

_EMPTY_FILE = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_EXPOSURE = "*/versions/*/exposure.parquet"


def withdraw(
    layout: Layout,
    image_ids: Sequence[str],
    lesion_ids: Sequence[str],
    patient_ids: Sequence[str],
) -> dict[str, Any]:
    """Withdraw images by their own ids, or all images of lesions or patients, also future ones.

    Returns
    -------
    dict
        `withdrawn` (column -> ids), `images` (ids of the images that this concerns), `num_new`
        (lines added to `data/withdrawn.csv`), `num_cache_entries` (removed), `models` (`model`,
        `version`, `alias`, `images`: part -> ids), `runs` (the same for what lies in `runs/`), and
        `remains`: `snapshots` (of DVC's cache: `version`, `commits`, `images`; None without DVC),
        `remotes`, `sources`, `storage`.

    Raises
    ------
    SourceError
        No id is given, or one is known nowhere; nothing was changed.
    """
    given = {"image_id": set(image_ids), "lesion_id": set(lesion_ids)}
    given["patient_id"] = set(patient_ids)
    params = load_params(layout.params)
    exposures = list(_exposures(layout, params.registry.uri))
    known = _known_images(layout, [table for _, _, table in exposures])
    names = _other_names(layout)
    _check_known(given, known, names, layout)
    _widen(given, names)
    rows = known[_matches(known, given)]
    hashes = set(rows["sha256"].dropna()) - {_EMPTY_FILE}
    rows = known[_matches(known, given) | known["sha256"].isin(hashes)]
    images = set(rows["image_id"]) | given["image_id"]
    past = past_snapshots(layout, images)
    entries: set[Entry] = {(column, value) for column in ID_COLUMNS for value in given[column]}
    entries |= {("image_id", value) for value in images}
    entries |= {("sha256", value) for value in hashes}
    return {
        "withdrawn": {column: sorted(given[column]) for column in ID_COLUMNS},
        "images": sorted(images),
        "num_new": append_withdrawn(layout.withdrawn, entries),
        "num_cache_entries": _forget(layout.cache, hashes),
        "models": _models(layout, params.registry, exposures, images, hashes),
        "runs": _runs(layout, images),
        "remains": {
            "snapshots": past.cached if past else None,
            "remotes": past.remotes if past else [],
            "sources": [source.uri for source in params.sources if source.kind != "synthetic"],
            "storage": params.storage,
        },
    }


def withdrawal_text(found: dict[str, Any]) -> str:
    """Return what `withdraw` found, for a reader."""
    lines = [
        f"{len(found['images'])} images withdrawn: {', '.join(found['images'])}",
        f"  {found['num_new']} lines added to data/withdrawn.csv (commit it); "
        f"{found['num_cache_entries']} entries removed from the caches",
        "Trained or judged on them:",
    ]
    seen = [
        f"  {entry['model']} {entry['version']} {entry['alias']}".rstrip() + f": {_parts(entry)}"
        for entry in found["models"]
    ]
    seen += [f"  {entry['run']}: {_parts(entry)}" for entry in found["runs"]]
    lines += seen or ["  no model in the registry, no run in this workspace"]
    remains = found["remains"]
    lines.append("They remain in:")
    if remains["snapshots"] is None:
        lines.append("  older snapshots, if you kept any: there is no DVC repository to ask")
    lines += [
        f"  snapshot {entry['version'][:12]} (commits: {', '.join(entry['commits']) or 'none'})"
        for entry in remains["snapshots"] or ()
    ]
    lines += [f"  remote {remote}, if these snapshots were pushed" for remote in remains["remotes"]]
    lines += [f"  the source {uri}" for uri in remains["sources"]]
    lines += [
        f"  packed pixels in {remains['storage']}/content and in other machines' caches, if a "
        "training ran on a cluster",
        "  data/split_ledger.csv keeps ids and hashes, no picture",
        "Next: `lesionflow retrain` makes a snapshot without them and trains anew. Then "
        "`dvc gc --workspace --cloud` erases every older snapshot from the cache and the remote.",
    ]
    return "\n".join(lines)


def _parts(entry: dict[str, Any]) -> str:
    return ", ".join(f"{len(ids)} in {part}" for part, ids in entry["images"].items())


def _exposures(layout: Layout, uri: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield model name, version and exposure table of every version in the registry."""
    try:
        files = open_files(uri, FileOptions(), root=layout.root, cache=layout.cache)
        names = files.names()
    except SourceError:
        if uri.startswith("s3://"):
            raise
        return  # a registry comes into being with its first version
    for name in names:
        if PurePosixPath(name).match(_EXPOSURE):
            model, _, version, _ = name.split("/")[-4:]
            yield model, version, read_table(files.local_path(name))


def _known_images(layout: Layout, exposures: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return ids and hashes of every image that this workspace or a model has seen."""
    columns = [*ID_COLUMNS, "sha256"]
    tables = [table.reindex(columns=columns) for table in exposures]
    if layout.labels.is_file():
        tables.append(read_table(layout.labels, columns)[columns])
    if not tables:
        return pd.DataFrame(columns=columns, dtype="str")
    return pd.concat(tables, ignore_index=True).drop_duplicates(ignore_index=True)


def _other_names(layout: Layout) -> list[tuple[str, set[str]]]:
    """Return column and ids that mean one thing in the last snapshot."""
    if not layout.manifest.is_file():
        return []
    manifest = read_manifest(layout.manifest)
    found = [(note["column"], {note["kept"], note["joined"]}) for note in manifest["joined_ids"]]
    found += [("image_id", {note["image_id"], note["same_as"]}) for note in manifest["seen_twice"]]
    return found


def _check_known(
    given: dict[str, set[str]],
    known: pd.DataFrame,
    names: Sequence[tuple[str, set[str]]],
    layout: Layout,
) -> None:
    if not any(given.values()):
        raise SourceError(
            "nothing to withdraw",
            where="lesionflow withdraw",
            fix="give --image, --lesion or --patient with an id",
        )
    listed = read_withdrawn(layout.withdrawn)
    if not layout.labels.is_file():
        return  # a clone without the data: the list must work all the same
    for column, values in given.items():
        unknown = values - set(known[column].dropna()) - listed.ids[column]
        unknown -= {value for other, same in names if other == column for value in same}
        if unknown:
            raise SourceError(
                f"no image has the {column} {', '.join(sorted(unknown))}",
                where=f"{layout.labels} and the registry",
                fix="check the spelling; nothing was withdrawn",
            )


def _widen(given: dict[str, set[str]], names: Sequence[tuple[str, set[str]]]) -> None:
    """Add the other names of what is given, however indirect."""
    size = -1
    while size != (size := sum(map(len, given.values()))):
        for column, same in names:
            if given[column] & same:
                given[column] |= same


def _matches(known: pd.DataFrame, given: dict[str, set[str]]) -> pd.Series:
    found = pd.Series(False, index=known.index)
    for column, values in given.items():
        found |= known[column].isin(values)
    return found


def _forget(cache: Path, hashes: set[str]) -> int:
    """Remove what the caches hold of files with these sha256; return how many entries went.

    Sets that hold one of them (packed images) go as a whole: they can be made again.
    """
    count = 0
    for path in sorted(cache.rglob("*.sqlite")) if hashes else ():
        if path.name != HASH_CACHE:
            count += ContentCache(path, version="").forget(sorted(hashes))
    for index in sorted(cache.rglob("index.parquet")):
        if hashes & set(read_table(index, ("sha256",))["sha256"]):
            shutil.rmtree(index.parent)
            count += 1
    return count


def _models(
    layout: Layout,
    registry: RegistryParams,
    exposures: Sequence[tuple[str, str, pd.DataFrame]],
    images: set[str],
    hashes: set[str],
) -> list[dict[str, Any]]:
    found = []
    for model, version, table in exposures:
        rows = table[table["image_id"].isin(images) | table["sha256"].isin(hashes)]
        parts = _by_part(rows)
        if parts:
            found.append({"model": model, "version": version, "alias": "", "images": parts})
    if not found:
        return []
    from components.registry.versions import open_registry

    for alias, version in open_registry(registry, layout).aliases().items():
        for entry in found:
            if (entry["model"], entry["version"]) == (registry.model_name, version):
                entry["alias"] = alias
    return found


def _runs(layout: Layout, images: set[str]) -> list[dict[str, Any]]:
    """Return the trainings in this workspace, by the split that lies there."""
    if not layout.splits.is_file():
        return []
    splits = read_table(layout.splits, ("image_id", "split"))
    parts = _by_part(splits[splits["image_id"].isin(images)])
    runs = sorted(path.parent for path in layout.runs.glob("*/model.json"))
    return [{"run": f"runs/{run.name}", "images": parts} for run in runs if parts]


def _by_part(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Return part -> image ids."""
    return {
        part: sorted(rows.loc[rows["split"] == part, "image_id"])
        for part in PARTS
        if (rows["split"] == part).any()
    }
