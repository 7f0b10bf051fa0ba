"""A cache of what was computed from an image's bytes, keyed by their sha256.

One SQLite file below `layout.cache`, outside every stage's outputs: DVC deletes outputs before a
stage runs, and what was computed once shall not be computed again because a threshold changed or
an image was added. The cache never shapes a result: an entry of another `version` is not seen.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from components.errors import ResourceError

_BATCH = 500
_WORD = re.compile(r"\w+")


class ContentCache:
    """Bytes by content key.

    Parameters
    ----------
    path
        The SQLite file; made when it is not there.
    version
        Everything besides the key that the values depend on (formulas, library versions).
    """

    def __init__(self, path: Path, version: str) -> None:
        self._path = path
        self._version = version
        self._cleared = False

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those `keys` that are known."""
        return dict(self._select("value", keys))

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Return how many bytes the values of those `keys` have that are known."""
        return dict(self._select("length(value)", keys))

    def _select(self, what: str, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
        wanted = sorted(set(keys))
        with self._open() as database:
            for start in range(0, len(wanted), _BATCH):
                part = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(part))
                yield from database.execute(
                    f"SELECT key, {what} FROM entry WHERE version = ? AND key IN ({marks})",
                    (self._version, *part),
                )

    def put(self, values: Mapping[str, bytes]) -> None:
        """Remember `values`, and forget what other versions of the program remembered."""
        with self._open() as database:
            if not self._cleared:  # as two ranges: the index knows where they are
                database.execute(
                    "DELETE FROM entry WHERE version < ? OR version > ?", (self._version,) * 2
                )
                self._cleared = True
            database.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?)",
                [(self._version, key, value) for key, value in sorted(values.items())],
            )

    def forget(self, parts: Iterable[str]) -> int:
        """Delete every entry, of any version, one of whose key's words is one of `parts`.

        Returns
        -------
        int
            How many entries went.
        """
        wanted = set(parts)
        with self._open() as database:
            database.execute("PRAGMA secure_delete = ON")
            # The index has all that this reads: no value is looked at.
            entries = database.execute("SELECT version, key FROM entry").fetchall()
            gone = [entry for entry in entries if wanted & set(_WORD.findall(entry[1]))]
            database.executemany("DELETE FROM entry WHERE version = ? AND key = ?", gone)
            return len(gone)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self._path, timeout=60)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS entry (version TEXT, key TEXT, value BLOB,"
                    " PRIMARY KEY (version, key))"
                )
                yield database
        except sqlite3.Error as error:
            raise ResourceError(
                f"the cache cannot be used: {error}",
                where=str(self._path),
                fix="free some disk space, or delete the file: it is made again",
            ) from error
