"""sha256 of files, remembered: a file that looks unchanged is not read again."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from components.dataset.workers import ProgressPrinter
from components.errors import ResourceError

HASH_CACHE = "file_hashes.sqlite"
_CHUNK_BYTES = 1 << 20
_SETTLED_NS = 2_000_000_000
"""A file changed this recently may change again within its clock's tick: not remembered yet."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def hash_files(folder: Path, names: Sequence[str], cache: Path) -> dict[str, str]:
    """Return name -> sha256 of the files `names` in `folder`.

    Parameters
    ----------
    folder
        An absolute folder.
    names
        Paths relative to it.
    cache
        Folder of caches. An entry is used when path, size, time of change and inode are the same.
    """
    stats = {name: (folder / name).stat() for name in names}
    looks = {name: (s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats.items()}
    known = _recall(cache / HASH_CACHE, folder)
    found = {
        name: entry[3]
        for name, look in looks.items()
        if (entry := known.get(name)) and entry[:3] == look
    }
    new = [name for name in names if name not in found]
    if not new:
        return found
    now = time.time_ns()
    progress = ProgressPrinter("fingerprint", len(new), "files")
    fresh: dict[str, str] = {}
    with ThreadPoolExecutor(4) as pool:
        for name, digest in zip(new, pool.map(lambda n: file_sha256(folder / n), new), strict=True):
            fresh[name] = digest
            progress.add()
    settled = [n for n in new if looks[n][1] < now - _SETTLED_NS]
    _remember(cache / HASH_CACHE, folder, {n: (*looks[n], fresh[n]) for n in settled})
    return found | fresh


Entry = tuple[int, int, int, str]


def _recall(path: Path, folder: Path) -> dict[str, Entry]:
    if not path.exists():
        return {}
    with _database(path) as database:
        rows = database.execute(
            "SELECT name, a, b, c, sha256 FROM file WHERE folder = ?", (str(folder),)
        )
        return {name: (size, changed, inode, digest) for name, size, changed, inode, digest in rows}


def _remember(path: Path, folder: Path, entries: dict[str, Entry]) -> None:
    with _database(path) as database:
        database.executemany(
            "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?)",
            [(str(folder), name, *entry) for name, entry in entries.items()],
        )


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the cache, and commit what is done with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, timeout=60)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS file (folder TEXT, name TEXT, a INTEGER, b INTEGER,"
                " c INTEGER, sha256 TEXT, PRIMARY KEY (folder, name)) WITHOUT ROWID"
            )
            yield database
    except sqlite3.Error as error:
        raise ResourceError(
            f"the cache cannot be used: {error}",
            where=str(path),
            fix="free some disk space, or delete the file: it is made again",
        ) from error
