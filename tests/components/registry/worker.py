"""A process that works on a registry beside others.

Usage: python worker.py URI FOLDER NUMBER ROLE [VERSION...]

Says in FOLDER that it is ready, waits for `start` there, plays its role and prints what came of it
as one JSON document. Roles: `promote` asks to make each version champion; `prune` keeps the newest
version, from the first promotion on (one prune before it would leave nothing to promote) until
`done` lies in FOLDER; `fetch` fetches each version into the cache in FOLDER.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from components.errors import RegistryError
from components.registry.store import open_store
from components.registry.versions import Registry


def main(uri: str, folder: Path, number: str, role: str, versions: Sequence[str]) -> None:
    """Play a role."""
    registry = Registry(open_store(uri, folder), "tiny", folder / "cache")
    registry.aliases()
    (folder / f"ready.{number}").touch()
    while not (folder / "start").exists():
        time.sleep(0.002)
    if role == "promote":
        print(json.dumps({version: _promote(registry, version) for version in versions}))
    elif role == "prune":
        print(json.dumps(_prune(registry, folder / "done")))
    else:
        fetched = [registry.fetch(version) for version in versions]
        print(json.dumps([(path / "model.json").read_text() for path in fetched]))


def _promote(registry: Registry, version: str) -> str:
    try:
        registry.promote(version, registry.alias("champion"), {})
    except RegistryError as error:
        return error.what
    return "promoted"


def _prune(registry: Registry, done: Path) -> list[str]:
    removed: list[str] = []
    while len(registry.champion.history()) < 2 and not done.exists():
        time.sleep(0.002)
    while True:
        is_last = done.exists()
        removed += registry.prune(1)
        if is_last:
            return removed


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:])
