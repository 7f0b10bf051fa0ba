"""What `aliases/champion.json` and the files in `history/` say."""

from __future__ import annotations

from typing import Any, Literal

from components.settings import Settings


class Event(Settings):
    """One move of the champion."""

    id: str
    """Different for every move, so that no two of them are the same bytes."""

    sequence: int
    """1 for the first champion, then one more with each move."""
    kind: Literal["promotion", "rollback"]
    old: str | None
    new: str
    at: str
    """UTC, ISO 8601."""
    record: dict[str, Any]
    """The decision: every gate with its value, bound and verdict."""


class Champion(Settings):
    """What `aliases/champion.json` says."""

    schema_version: Literal[1] = 1
    version: str
    content_id: str
    line: tuple[str, ...]
    """The champions before it that a rollback goes back to, oldest first."""
    rolled_back: tuple[str, ...]
    """Versions that were rolled back: only a person promotes them again."""
    event: Event
    removing: tuple[str, ...] = ()
    """Versions that are being removed: nobody promotes them."""
    revision: str = ""
    """Different for every write, so that a state is never taken for an earlier one that said the
    same."""

    @property
    def previous(self) -> str | None:
        """Where a rollback leads."""
        return self.line[-1] if self.line else None

    def needs(self, version: str) -> bool:
        """Whether it is the champion, or a rollback may lead to it."""
        return version in (self.version, *self.line)
