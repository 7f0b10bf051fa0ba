"""The last snapshot in the place of sources that are not at hand.

A clone that has pulled the data has the snapshot and not its sources. When a source is added
there, or images are withdrawn, the next snapshot is the last one and what changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.dataset.config import DiagnosesParams, SourceParams
from components.dataset.left_out import remembers_left_out
from components.dataset.snapshot import (
    SCHEMA_VERSION,
    Base,
    read_manifest,
    recorded_diagnoses,
)
from components.errors import SourceError
from components.layout import Layout
from components.params import read_yaml


def is_recorded(layout: Layout) -> bool:
    """Return whether there is a last snapshot: in its place, or in what DVC keeps."""
    return layout.manifest.is_file() or recorded_version(layout) is not None


def find_base(
    layout: Layout, sources: Sequence[tuple[SourceParams, str]], diagnoses: DiagnosesParams
) -> Base | None:
    """Return the last snapshot if it is one of the first of `sources` as they are now.

    Where DVC has removed it from its place, it is taken from DVC's cache or remote.

    Raises
    ------
    SourceError
        It would be, but for the form of its files.
    """
    folder = layout.raw if layout.manifest.is_file() else _from_dvc(layout)
    if folder is None:
        return None
    manifest = read_manifest(folder / "manifest.json")
    taken = manifest["sources"]
    wanted = [
        source.model_dump(mode="json") | {"fingerprint": fingerprint}
        for source, fingerprint in sources[: len(taken)]
    ]
    same = [{key: fact[key] for key in want} for fact, want in zip(taken, wanted, strict=False)]
    if same != wanted or len(wanted) < len(taken):
        return None
    if manifest["diagnoses"] != recorded_diagnoses(diagnoses) or not remembers_left_out(manifest):
        return None
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise SourceError(
            "the last snapshot has the form of an earlier version, and cannot stand for sources "
            "that are not at hand",
            where=str(folder),
            fix="run this once where all sources are, and push the snapshot",
        )
    return Base(folder, len(taken))


def recorded_version(layout: Layout) -> str | None:
    """Return DVC's hash of the last snapshot."""
    lock = layout.root / "dvc.lock"
    if not lock.is_file():
        return None
    stages: dict[str, Any] = read_yaml(lock).get("stages", {})
    outputs = stages.get("ingest", {}).get("outs", [])
    path = layout.raw.relative_to(layout.root).as_posix()
    return next((str(out["md5"]) for out in outputs if out["path"] == path), None)


def _from_dvc(layout: Layout) -> Path | None:
    version = recorded_version(layout)
    if version is None:
        return None
    target = layout.recalled_snapshots / version
    if not target.is_dir():
        from dvc.api import DVCFileSystem

        print("ingest: taking the last snapshot from DVC", flush=True)
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        relative = layout.raw.relative_to(layout.root).as_posix()
        try:
            DVCFileSystem(str(layout.root)).get(relative, str(partial), recursive=True)
        except FileNotFoundError:
            shutil.rmtree(partial, ignore_errors=True)
            return None
        partial.replace(target)
    return target
