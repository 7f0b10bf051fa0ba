"""The DVC caches of runs in clean clones: what is not pushed yet outlives the clone, and a kill.

A run works in a folder of its own from the beginning and removes it when all is pushed and
recorded. What a failed or killed run leaves, the next run of the same repository, ref and record
on this machine takes up, within a week. Whoever works in a folder holds its lock, which the kernel
releases when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "lesionflow-unpushed-"
_KEPT_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class WorkingCache:
    """A DVC cache that this process holds.

    Attributes
    ----------
    folder
        What to name to people; only this user may read it.
    taken_up
        Whether an earlier run has left something in it.
    """

    folder: Path
    taken_up: bool

    @property
    def cache(self) -> Path:
        """DVC's cache in it."""
        return _cache(self.folder)

    def is_empty(self) -> bool:
        """Tell whether nothing was made or pulled yet."""
        return _is_empty(self.folder)


@contextmanager
def working_cache(
    repository: str, ref: str, record_on: str | None, parent: Path
) -> Iterator[WorkingCache]:
    """Hold a cache below `parent`: the last one that such a run has left here, or a new one.

    It is removed when the block succeeds, or has put nothing into it; else it is kept. What
    another live run holds is not taken.
    """
    name = _name(repository, ref, record_on)
    folder, lock = _take(name, parent)
    try:
        working = WorkingCache(folder, taken_up=not _is_empty(folder))
        working.cache.mkdir(exist_ok=True)
        os.utime(folder)  # the week begins anew
        try:
            yield working
        except BaseException:
            if working.is_empty():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                os.utime(folder)
            raise
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def forget_old(parent: Path) -> None:
    """Remove what no run has taken up for a week, and none holds, whatever its repository."""
    for last_used, folder in _folders(parent, _PREFIX):
        lock = _lock(folder) if last_used < time.time() - _KEPT_SECONDS else None
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _take(name: str, parent: Path) -> tuple[Path, int]:
    """Return a folder of that name, the last used one first, and its lock."""
    for _, folder in _folders(parent, name):
        lock = _lock(folder)
        if lock is not None:
            return folder, lock
    while True:
        folder = Path(tempfile.mkdtemp(prefix=name, dir=parent))
        lock = _lock(folder)
        if lock is not None:  # else another run took it in between
            return folder, lock


def _lock(folder: Path) -> int | None:
    """Return the open, locked `folder`; None if a live process holds it, or it is gone."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held it before may have removed it: then this is the lock of nothing.
        if folder.stat().st_ino == os.fstat(lock).st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _cache(folder: Path) -> Path:
    return folder / "cache"


def _is_empty(folder: Path) -> bool:
    return not any(path.is_file() for path in _cache(folder).rglob("*"))


def _name(repository: str, ref: str, record_on: str | None) -> str:
    of = json.dumps([repository, ref, record_on])
    return f"{_PREFIX}{hashlib.sha256(of.encode()).hexdigest()[:12]}-"


def _folders(parent: Path, prefix: str) -> list[tuple[float, Path]]:
    """Return when each folder of that name was last used, and the folder, the last one first.

    Only ours: anybody may write where `parent` is. Another run may remove one at any moment.
    """
    found = []
    for path in parent.glob(f"{prefix}*"):
        with suppress(FileNotFoundError):
            state = path.lstat()
            if state.st_uid == os.getuid():
                found.append((state.st_mtime, path))
    return sorted(found, reverse=True)
