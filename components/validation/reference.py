"""Which snapshot is the last one: profiles of the snapshots that a run succeeded on, in Git.

A result of `validate` must be a function of its inputs, so the file is one of them, and no stage
writes it: whoever ran the pipeline calls `remember_profile` when everything has succeeded. The
reference of a snapshot is the newest one with *other* content; that the present one is remembered
changes nothing for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.atomic import write_json
from components.errors import TableError
from components.layout import Layout

PROFILE_FILE = "profile.json"
_VERSION = 1
_KEPT = 2


def read_reference(path: Path, profile: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the newest profile in `path` that `profile` can be compared with, or None.

    Comparable is a snapshot of other content with the same classes, synthetic or real alike.

    Raises
    ------
    TableError
        The file is missing, is no JSON, or is of another version.
    """
    comparable = [
        known
        for known in _read(path)
        if _kind(known) == _kind(profile) and known["content_id"] != profile["content_id"]
    ]
    return comparable[-1] if comparable else None


def remember_profile(layout: Layout) -> bool:
    """Put the profile of the validated snapshot at the end of the reference file.

    The last two snapshots of each kind are kept. Returns True if the file changed.
    """
    profile = json.loads((layout.validation_report / PROFILE_FILE).read_text(encoding="utf-8"))
    known = _read(layout.reference_profile)
    others = [entry for entry in known if _kind(entry) != _kind(profile)]
    earlier = [
        entry
        for entry in known
        if _kind(entry) == _kind(profile) and entry["content_id"] != profile["content_id"]
    ]
    snapshots = [*others, *earlier[1 - _KEPT :], profile]
    if snapshots == known:
        return False
    write_json(layout.reference_profile, {"schema_version": _VERSION, "snapshots": snapshots})
    return True


def _kind(profile: Mapping[str, Any]) -> tuple[bool, tuple[str, ...]]:
    return profile["synthetic"], tuple(sorted(profile["classes"]))


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the known profiles, oldest first; an empty object in the file stands for none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document == {}:
            return []
        if document["schema_version"] != _VERSION:
            raise ValueError(f"schema version {document['schema_version']}")
        return list(document["snapshots"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TableError(
            f"the profiles of earlier snapshots cannot be read: {error}",
            where=str(path),
            fix="take the file from Git again, or write {} into it to start anew",
        ) from error
