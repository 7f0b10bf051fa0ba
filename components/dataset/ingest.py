"""Stage `ingest`: take the images and labels of every source into one snapshot."""

from __future__ import annotations

import shutil
from typing import Any

from components.dataset.catch_up import forget_listed
from components.dataset.config import DiagnosesParams
from components.dataset.fingerprint import listed_sources
from components.dataset.last_snapshot import find_base
from components.dataset.snapshot import Base, write_snapshot
from components.dataset.sources.catalog import fingerprint_source
from components.dataset.sources.copies import folders_of_copies, remove_paths
from components.dataset.withdrawn import read_withdrawn
from components.errors import SourceError
from components.layout import Layout
from components.params import Params
from components.stage import run_stage

_REMARKS = {
    "listed_but_absent": "images listed but absent",
    "present_but_not_listed": "images present but not listed",
    "seen_twice": "images seen twice, taken once",
    "label_conflicts": "times an image has another diagnosis elsewhere in the sources",
}


def run(params: Params, layout: Layout) -> None:
    """Write `data/raw/`, whole or not at all.

    DVC removes the last snapshot before this runs; when it fails, `run_stage` puts that back.

    Raises
    ------
    SourceError
        A source cannot be used, cannot be reached and is not in the last snapshot, or changed
        after `data/sources.json` was written.
    """
    withdrawn = read_withdrawn(layout.withdrawn)
    forget_listed(layout)
    sources = listed_sources(layout)
    base = _base_for_unreachable(layout, params.diagnoses)
    partial = layout.half_done_snapshot
    shutil.rmtree(partial, ignore_errors=True)
    try:
        manifest = write_snapshot(
            sources,
            params.diagnoses,
            withdrawn,
            partial,
            root=layout.root,
            cache=layout.cache,
            base=base,
        )
        shutil.rmtree(layout.raw, ignore_errors=True)
        partial.rename(layout.raw)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(layout.recalled_snapshots, ignore_errors=True)
    _print_summary(manifest)
    if any(source["num_withdrawn"] for source in manifest["sources"]):
        _remove_copies(layout)


def _base_for_unreachable(layout: Layout, diagnoses: DiagnosesParams) -> Base | None:
    """Look at every source; return the last snapshot where it has to stand for some of them."""
    sources = listed_sources(layout)
    base: Base | None = None
    for number, (source, fingerprint) in enumerate(sources):
        try:
            found = fingerprint_source(source, layout.root, layout.cache)
        except SourceError:
            base = base or find_base(layout, sources, diagnoses)
            if base is None or number >= base.num_sources:
                raise
            continue
        if found != fingerprint:
            raise SourceError(
                f"the source changed after it was looked at: {source.uri}",
                where=str(layout.sources),
                fix="run `lesionflow retrain`; it looks at the sources again",
            )
    return base


def _remove_copies(layout: Layout) -> None:
    """Remove what was downloaded and unpacked: withdrawn images are among it."""
    gone, left = remove_paths(folders_of_copies(layout.cache))
    if gone:
        print(f"ingest: {', '.join(map(str, gone))} removed: withdrawn images were in the sources")
    for folder, why in left.items():
        print(f"ingest: {folder} may hold withdrawn images and cannot be removed ({why})")


def _print_summary(manifest: dict[str, Any]) -> None:
    print(f"ingest: {manifest['num_images']} images, content {manifest['content_id'][:12]}")
    for key, text in _REMARKS.items():
        if manifest[key]:
            print(f"ingest: {len(manifest[key])} {text} (data/raw/manifest.json names them)")
    for column, count in manifest["shared_ids"].items():
        if count:
            print(
                f"ingest: {count} times a {column} occurs in several sources, and is taken for the "
                "same one there; if it is not, give one source the option `group_prefix`"
            )


if __name__ == "__main__":
    run_stage("ingest", run)
