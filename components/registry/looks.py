"""How often a test set has been used to decide: a list that only grows.

Every candidate that was held against a test set has had its chance to look good on it by luck. The
list is kept with the registry, so that whoever reads a decision knows how many there were. The
same candidate held against the same test set again is the same look.
"""

from __future__ import annotations

import json
from typing import Any

from components.registry.store import Store

KEY = "test_uses.json"


class Looks:
    """The decisions that each test set was used for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def count(self, test_set: str, *, without: str = "") -> int:
        """Return how many candidates other than `without` were held against `test_set`."""
        return sum(use["candidate"] != without for use in self._read()[0].get(test_set, []))

    def counts(self) -> dict[str, int]:
        """Return test set -> how many candidates were held against it."""
        return {test_set: len(uses) for test_set, uses in self._read()[0].items()}

    def add(self, test_set: str, use: dict[str, Any]) -> None:
        """Record a decision; `use` names its `candidate` (content id)."""
        while True:
            document, tag = self._read()
            uses = document.setdefault(test_set, [])
            if any(known["candidate"] == use["candidate"] for known in uses):
                return
            uses.append(use)
            data = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
            if self._store.write(KEY, data, expected=tag):
                return

    def _read(self) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
        found = self._store.read(KEY)
        return (json.loads(found.data), found.tag) if found else ({}, None)
