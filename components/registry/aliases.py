"""The champion and the line of champions before it: one small file, moved by conditional write.

`aliases/champion.json` is the only truth. It names the champion, the line that a rollback walks
back along, and the event that made it so; one conditional write moves all of that at once, so a
crash leaves the old champion or the new one. What follows from it (`aliases/previous.json`, the
event's file in `history/`) is written afterwards, and completed by the next move or by
`lesionflow registry check --repair` where a crash came between.

The same file names the versions that are being removed. A promotion and a removal of one version
thus compete for one conditional write: whoever comes second sees the other and gives way.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from components.errors import RegistryError
from components.registry.champion import Champion, Event
from components.registry.store import Store, Tagged
from components.settings import Settings

CHAMPION, CHALLENGER, PREVIOUS = ALIASES = ("champion", "challenger", "previous")


class PromotionConflictError(RegistryError):
    """Somebody else moved the champion in the meantime."""


class ChampionAlias:
    """Reads and moves the champion of one registry."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Champion | None:
        """Return the champion, or None where there has never been one."""
        return self._read()[0]

    def promote(
        self,
        version: str,
        content_id_of: Callable[[str], str],
        expected: str | None,
        record: dict[str, Any],
    ) -> Champion:
        """Make `version` champion if `expected` (None: nobody) still is.

        Parameters
        ----------
        content_id_of
            Returns the content id of a complete version; raises `RegistryError` where it is not
            there. Asked after the champion's file was read: what was removed by then is not
            promoted, and what is removed later makes the write fail.

        Raises
        ------
        PromotionConflictError
            Somebody else is champion by now; nothing was changed.
        RegistryError
            The version is not there any more, or is being removed; nothing was changed.
        """
        while True:
            seen, tag = self._read()
            if (seen.version if seen else None) != expected:
                raise self._conflict(version, expected)
            content_id = content_id_of(version)
            if seen is not None and version in seen.removing:
                raise self._being_removed(version)
            if seen is not None and seen.version == version:
                return seen
            new = Champion(
                version=version,
                content_id=content_id,
                line=(*seen.line, seen.version) if seen else (),
                rolled_back=tuple(n for n in seen.rolled_back if n != version) if seen else (),
                event=self._event("promotion", seen, version, record),
                removing=seen.removing if seen else (),
                revision=_new_id(),
            )
            if self._move(seen, tag, new):
                return new

    def roll_back(self, seen: Champion, target: str, content_id: str) -> Champion:
        """Make `target`, of the line of `seen`, champion again if `seen` still is.

        Raises
        ------
        PromotionConflictError
            Somebody else is champion by now; nothing was changed.
        """
        last = len(seen.line) - 1 - seen.line[::-1].index(target)
        while True:
            current, tag = self._read()
            if current is None or current.event != seen.event:
                raise self._conflict(target, seen.version)
            new = Champion(
                version=target,
                content_id=content_id,
                line=seen.line[:last],
                rolled_back=(*(n for n in seen.rolled_back if n != target), seen.version),
                event=self._event("rollback", seen, target, {}),
                removing=current.removing,
                revision=_new_id(),
            )
            if self._move(seen, tag, new):
                return new

    def _move(self, seen: Champion | None, tag: str | None, new: Champion) -> bool:
        """Write the new state if `tag` is still that of the file."""
        if seen is not None:
            self.settle(seen)  # its event must not be lost with its file
        if not self._store.write(_key(CHAMPION), _text(new), expected=tag):
            # An answer may have been lost, and the file written again since, for a removal.
            found = self.read()
            if found is None or found.event.id != new.event.id:
                return False
        self.settle(new)
        return True

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
            id=_new_id(),
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

    def _being_removed(self, version: str) -> RegistryError:
        return RegistryError(
            f"{version} is being removed",
            where=self._store.uri,
            fix="choose another version (`lesionflow models`); where no `registry prune` is at "
            "work, `lesionflow registry check --repair` ends one that was interrupted",
        )

    # --- removals --------------------------------------------------------------------------------
    def announce_removal(self, version: str) -> bool:
        """Say that `version` is being removed, unless something needs it or somebody removes it.

        From then on nobody promotes it, until `end_removal`.

        Returns
        -------
        bool
            Whether this call said so.
        """
        while True:
            seen, tag = self._read()
            if seen is None or seen.needs(version) or version in seen.removing:
                return False
            if self.read_challenger() == version:
                return False
            if self._mark(seen, tag, (*seen.removing, version)):
                return True

    def end_removal(self, version: str) -> None:
        """Take back that `version` is being removed: it is gone, or it stays."""
        while True:
            seen, tag = self._read()
            if seen is None or version not in seen.removing:
                return
            if self._mark(seen, tag, tuple(name for name in seen.removing if name != version)):
                return

    def _mark(self, seen: Champion, tag: str | None, removing: tuple[str, ...]) -> bool:
        new = seen.model_copy(update={"removing": removing, "revision": _new_id()})
        return self._store.write(_key(CHAMPION), _text(new), expected=tag)

    # --- what follows from the champion's file -------------------------------------------------
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
        return _version_in(self._store.read(_key(CHALLENGER)))

    def set_challenger(self, version: str) -> None:
        """Point the challenger at `version`; the last one who writes wins.

        Raises
        ------
        RegistryError
            `version` is being removed; the challenger is the one before.
        """
        before = self._point_challenger(version)
        champion = self.read()
        # A removal looks at the challenger after it was announced: one of the two sees the other.
        if champion is not None and version in champion.removing:
            self._point_challenger(before)
            raise self._being_removed(version)

    def _point_challenger(self, version: str | None) -> str | None:
        """Write the challenger; return the one before."""
        while True:
            found = self._store.read(_key(CHALLENGER))
            data = _bytes({"version": version})
            if self._store.write(_key(CHALLENGER), data, expected=found.tag if found else None):
                return _version_in(found)

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


def _new_id() -> str:
    return uuid.uuid4().hex


def history_key(sequence: int) -> str:
    """Return the key of an event's file."""
    return f"history/{sequence:06d}.json"


def _key(alias: str) -> str:
    return f"aliases/{alias}.json"


def _version_in(alias: Tagged | None) -> str | None:
    version = json.loads(alias.data)["version"] if alias else None
    return None if version is None else str(version)


def _text(document: Settings) -> bytes:
    return _bytes(document.model_dump(mode="json"))


def _bytes(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
