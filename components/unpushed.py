"""What a failed run in a clean clone has made, pushed or not: its DVC cache, for the next run here.

One for each repository, and for a week at most.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

_PREFIX = "lesionflow-unpushed-"
_KEPT_SECONDS = 7 * 24 * 3600.0
_CACHE = ".dvc/cache"


def keep(root: Path, repository: str, parent: Path) -> Path | None:
    """Move the DVC cache of the clone at `root` into a folder of its own below `parent`.

    Returns
    -------
    Path or None
        The folder, which only this user may read; None if the clone holds no cache.
    """
    cache = root / _CACHE
    if not cache.is_dir():
        return None
    earlier = _folders(parent, _name(repository))
    kept = Path(tempfile.mkdtemp(prefix=_name(repository), dir=parent))
    shutil.move(cache, kept / "cache")
    for folder in earlier:
        shutil.rmtree(folder, ignore_errors=True)
    return kept


def take_up(root: Path, repository: str, parent: Path) -> bool:
    """Move what was kept of `repository` into the clone at `root`, as its DVC cache.

    Returns
    -------
    bool
        Whether there was anything. Of several runs at once, one gets it.
    """
    for folder in _folders(parent, _name(repository)):
        try:
            (folder / "cache").rename(root / _CACHE)
        except FileNotFoundError:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        return True
    return False


def forget_old(parent: Path) -> None:
    """Remove what no run has taken up for a week, whatever its repository."""
    for folder in _folders(parent, _PREFIX):
        if folder.stat().st_mtime < time.time() - _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _name(repository: str) -> str:
    return f"{_PREFIX}{hashlib.sha256(repository.encode()).hexdigest()[:12]}-"


def _folders(parent: Path, prefix: str) -> list[Path]:
    """Return the folders of that name which are ours: anybody may write where `parent` is."""
    return [
        path for path in sorted(parent.glob(f"{prefix}*")) if path.lstat().st_uid == os.getuid()
    ]
