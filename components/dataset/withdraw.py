"""`lesionflow withdraw`: images that must go, and where they have been already.

The ids (and the bytes of their images) go onto the list that every snapshot honours, the images
out of the caches. What cannot be undone from here is named: models that were trained on them, and
snapshots of the past that DVC still holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from components.dataset.catch_up import note_forgotten
from components.dataset.exposed import exposed_versions, models_with, runs_with
from components.dataset.forget import forget, forget_trainings
from components.dataset.known_images import concerned, known_images
from components.dataset.past_snapshots import past_snapshots
from components.dataset.snapshot import read_manifest
from components.dataset.withdrawn import ID_COLUMNS, Entry, append_withdrawn, read_withdrawn
from components.errors import SourceError
from components.layout import Layout
from components.params import load_params

_NEXT = (
    "Next: `lesionflow retrain` makes a snapshot without them and trains anew. Then "
    "`dvc gc --workspace --cloud` erases every older snapshot from the cache and the remote."
)


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
        (lines added to `data/withdrawn.csv`), `num_cache_entries` and `cache_folders` (removed),
        `models`, `runs` and `runs_not_looked_into` (run -> why), as `models_with` and `runs_with`
        give them, and `remains`: `snapshots` (of DVC's cache: `version`, `commits`, `images`; None
        without DVC), `snapshots_not_looked_into` (`version`, `commits`), `remotes`, `sources`,
        `storage`, `cache_folders` (folder -> why it could not be removed).

    Raises
    ------
    SourceError
        No id is given, or one is known nowhere; nothing was changed.
    """
    given = {"image_id": set(image_ids), "lesion_id": set(lesion_ids)}
    given["patient_id"] = set(patient_ids)
    params = load_params(layout.params)
    versions = exposed_versions(layout, params.registry.uri)
    known = known_images(layout, [table for entry in versions for table in entry.tables.values()])
    names = _other_names(layout)
    _check_known(given, known, names, layout)
    _widen(given, names)
    images, hashes = concerned(known, given)
    past = past_snapshots(layout, images, hashes)
    entries: set[Entry] = {(column, value) for column in ID_COLUMNS for value in given[column]}
    entries |= {("image_id", value) for value in images}
    entries |= {("sha256", value) for value in hashes}
    num_new = append_withdrawn(layout.withdrawn, entries)
    listed = read_withdrawn(layout.withdrawn)  # all of it: some may have come with a pull
    forgotten = forget(layout, *concerned(known, listed.ids, listed.sha256))
    if not forgotten.left:
        note_forgotten(layout)
    trainings, trainings_left = forget_trainings(params.storage, layout, shared=True)
    runs, runs_not_looked_into = runs_with(params.registry, layout, images, hashes)
    return {
        "withdrawn": {column: sorted(given[column]) for column in ID_COLUMNS},
        "images": sorted(images),
        "num_new": num_new,
        "num_cache_entries": forgotten.num_entries,
        "cache_folders": [*forgotten.folders, *trainings],
        "models": models_with(versions, params.registry, layout, images, hashes),
        "runs": runs,
        "runs_not_looked_into": runs_not_looked_into,
        "remains": {
            "snapshots": past.cached if past else None,
            "snapshots_not_looked_into": past.not_looked_into if past else [],
            "remotes": past.remotes if past else [],
            "sources": [source.uri for source in params.sources if source.kind != "synthetic"],
            "storage": params.storage,
            "cache_folders": forgotten.left | trainings_left,
        },
    }


def withdrawal_text(found: Mapping[str, Any]) -> str:
    """Return what `withdraw` found, for a reader."""
    lines = [
        f"{len(found['images'])} images withdrawn: {', '.join(found['images'])}",
        f"  {found['num_new']} lines added to data/withdrawn.csv (commit it)",
        f"  {found['num_cache_entries']} entries removed from the caches",
    ]
    if found["cache_folders"]:
        lines.append(
            "  removed as a whole, since they may have held the pictures, or models that saw them: "
            f"{', '.join(found['cache_folders'])} (made again when needed)"
        )
    lines.append("Trained or judged on them:")
    seen = [
        f"  {entry['model']} {entry['version']} {entry['alias']}".rstrip() + f": {_uses(entry)}"
        for entry in found["models"]
    ]
    seen += [f"  {entry['run']}: {_uses(entry)}" for entry in found["runs"]]
    lines += seen or ["  no model in the registry, no run in this workspace"]
    lines += [f"  perhaps {run}, {why}" for run, why in found["runs_not_looked_into"].items()]
    return "\n".join([*lines, "They remain in:", *_remains(found["remains"]), _NEXT])


def _uses(entry: Mapping[str, Any]) -> str:
    own, inherited = (_parts(entry[name]) for name in ("images", "inherited"))
    through = f"{inherited} of a model that it started from" if inherited else ""
    return "; ".join(filter(None, (own, through)))


def _parts(images: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{len(ids)} in {part}" for part, ids in images.items())


def _remains(remains: Mapping[str, Any]) -> list[str]:
    lines = [
        f"  {folder}, which could not be removed ({why}): delete it by hand"
        for folder, why in remains["cache_folders"].items()
    ]
    lines.append("  data/, reports/ and evaluations/ here, until the next retrain")
    if remains["snapshots"] is None:
        lines.append("  older snapshots, if you kept any: there is no DVC repository to ask")
    lines += [f"  {_version(entry)}" for entry in remains["snapshots"] or ()]
    lines += _not_looked_into(remains)
    lines += [
        f"  remote {remote}, if these snapshots and reports on them were pushed"
        for remote in remains["remotes"]
    ]
    lines += [f"  the source {uri}" for uri in remains["sources"]]
    lines += [
        f"  packed pixels in {remains['storage']}/content and in other machines' caches, if a "
        "training ran on a cluster",
        "  the caches of other clones, until they have pulled data/withdrawn.csv and run",
        "  data/split_ledger.csv keeps ids and hashes, no picture",
    ]
    return lines


def _not_looked_into(remains: Mapping[str, Any]) -> list[str]:
    """Say which snapshots of the past may hold them too, and how to know."""
    entries = remains["snapshots_not_looked_into"]
    if not entries:
        return []
    fix = (
        "`dvc fetch --all-commits ingest` brings what the remote still has; then run the same "
        "command again"
        if remains["remotes"]
        else "no remote is configured: run the same command in the clone that made them"
    )
    return [
        f"  perhaps {len(entries)} snapshots that were not looked into (DVC's cache here lacks "
        f"them; {fix}):",
        *(f"    {_version(entry)}" for entry in entries),
    ]


def _version(entry: Mapping[str, Any]) -> str:
    return f"snapshot {entry['version'][:12]} (commits: {', '.join(entry['commits']) or 'none'})"


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
                where=f"{layout.labels}, {layout.split_ledger} and the registry",
                fix="check the spelling; nothing was withdrawn. If its images are still to come, "
                f"add the line `{column},{min(unknown)}` to data/withdrawn.csv",
            )


def _widen(given: dict[str, set[str]], names: Sequence[tuple[str, set[str]]]) -> None:
    """Add the other names of what is given, however indirect."""
    size = -1
    while size != (size := sum(map(len, given.values()))):
        for column, same in names:
            if given[column] & same:
                given[column] |= same
