"""The champion and the line of champions before it: one small file, moved by conditional write.

`aliases/champion.json` is the only truth. It names the champion, the line that a rollback walks
back along, and the event that made it so; one conditional write moves all of that at once, so a
crash leaves the old champion or the new one. What follows from it (`aliases/previous.json`, the
event's file in `history/`) is written afterwards, and completed by the next move or by
`lesionflow registry check --repair` where a crash came between.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from components.errors import RegistryError
from components.registry.store import Store
from components.settings import Settings

CHAMPION, CHALLENGER, PREVIOUS = ALIASES = ("champion", "challenger", "previous")


class PromotionConflictError(RegistryError):
    """Somebody else moved the champion in the meantime."""


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

    @property
    def previous(self) -> str | None:
        """Where a rollback leads."""
        return self.line[-1] if self.line else None


class ChampionAlias:
    """Reads and moves the champion of one registry."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Champion | None:
        """Return the champion, or None where there has never been one."""
        return self._read()[0]

    def promote(
        self, version: str, content_id: str, expected: str | None, record: dict[str, Any]
    ) -> Champion:
        """Make `version` champion if `expected` (None: nobody) still is.

        Raises
        ------
        PromotionConflictError
            Somebody else is champion by now; nothing was changed.
        """
        seen, tag = self._read()
        if (seen.version if seen else None) != expected:
            raise self._conflict(version, expected)
        if seen is not None and seen.version == version:
            return seen
        new = Champion(
            version=version,
            content_id=content_id,
            line=(*seen.line, seen.version) if seen else (),
            rolled_back=tuple(n for n in seen.rolled_back if n != version) if seen else (),
            event=self._event("promotion", seen, version, record),
        )
        self._move(seen, tag, new)
        return new

    def roll_back(self, seen: Champion, target: str, content_id: str) -> Champion:
        """Make `target`, of the line of `seen`, champion again if `seen` still is.

        Raises
        ------
        PromotionConflictError
            Somebody else is champion by now; nothing was changed.
        """
        current, tag = self._read()
        if current != seen:
            raise self._conflict(target, seen.version)
        last = len(seen.line) - 1 - seen.line[::-1].index(target)
        new = Champion(
            version=target,
            content_id=content_id,
            line=seen.line[:last],
            rolled_back=(*(n for n in seen.rolled_back if n != target), seen.version),
            event=self._event("rollback", seen, target, {}),
        )
        self._move(seen, tag, new)
        return new

    def _move(self, seen: Champion | None, tag: str | None, new: Champion) -> None:
        if seen is not None:
            self.settle(seen)  # its event must not be lost with its file
        if not self._store.write(_key(CHAMPION), _text(new), expected=tag):
            raise self._conflict(new.version, seen.version if seen else None)
        self.settle(new)

    def _event(
        self,
        kind: Literal["promotion", "rollback"],
        seen: Champion | None,
        new: str,
        record: dict[str, Any],
    ) -> Event:
        if seen is not None:
            last = seen.event.sequence
        else:  # the history is not empty where somebody removed the champion's file
            names = self._store.names("history")
            last = max((int(name.split(".")[0]) for name in names), default=0)
        return Event(
            id=uuid.uuid4().hex,
            sequence=last + 1,
            kind=kind,
            old=seen.version if seen else None,
            new=new,
            at=now(),
            record=record,
        )

    def _conflict(self, version: str, expected: str | None) -> PromotionConflictError:
        current = self.read()
        before, after = expected or "no champion", current.version if current else "no champion"
        return PromotionConflictError(
            f"{version} was not made champion: it was held against {before}, "
            f"but the champion is {after} by now",
            where=self._store.uri,
            fix=f"hold it against {after}: `lesionflow promote {version}`",
        )

    def settle(self, champion: Champion) -> None:
        """Write what follows from the champion's file where it is not there yet."""
        event = champion.event
        self._store.write(history_key(event.sequence), _text(event), expected=None)
        found = self._store.read(_key(PREVIOUS))
        if found is None or json.loads(found.data)["sequence"] < event.sequence:
            document = {"version": champion.previous, "sequence": event.sequence}
            expected = found.tag if found else None
            self._store.write(_key(PREVIOUS), _bytes(document), expected=expected)

    def is_settled(self, champion: Champion) -> bool:
        """Whether no crash kept `settle` from its work."""
        found = self._store.read(_key(PREVIOUS))
        last = json.loads(found.data)["sequence"] if found else 0
        event = champion.event.sequence
        return last >= event and self._store.read(history_key(event)) is not None

    def history(self) -> list[Event]:
        """Return every move there was, oldest first."""
        events = []
        for name in self._store.names("history"):
            found = self._store.read(f"history/{name}")
            if found is not None:
                events.append(Event.model_validate_json(found.data))
        return events

    # --- the challenger: a plain pointer -------------------------------------------------------
    def read_challenger(self) -> str | None:
        """Return the version that passed every gate but could not be told from the champion."""
        found = self._store.read(_key(CHALLENGER))
        return str(json.loads(found.data)["version"]) if found else None

    def set_challenger(self, version: str) -> None:
        """Point the challenger at `version`; the last one who writes wins."""
        while True:
            found = self._store.read(_key(CHALLENGER))
            data = _bytes({"version": version})
            if self._store.write(_key(CHALLENGER), data, expected=found.tag if found else None):
                return

    def _read(self) -> tuple[Champion | None, str | None]:
        found = self._store.read(_key(CHAMPION))
        if found is None:
            return None, None
        try:
            return Champion.model_validate_json(found.data), found.tag
        except ValidationError as error:
            raise RegistryError(
                f"the champion's file is damaged: {error.errors()[0]['msg']}",
                where=f"{self._store.uri}/{_key(CHAMPION)}",
                fix="take it back from a backup; history/ holds every move, the last one counts",
            ) from error


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def history_key(sequence: int) -> str:
    """Return the key of an event's file."""
    return f"history/{sequence:06d}.json"


def _key(alias: str) -> str:
    return f"aliases/{alias}.json"


def _text(document: Settings) -> bytes:
    return _bytes(document.model_dump(mode="json"))


def _bytes(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
