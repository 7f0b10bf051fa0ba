"""Temporary folders and files that a killed process left behind.

Each is named after the process that owns it (`<prefix><pid>-…`), so that the next process can tell
whether anybody still works in it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def owned(prefix: str) -> str:
    """Return how the name of what is this process' own begins."""
    return f"{prefix}{os.getpid()}-"


def owned_folder(prefix: str, parent: Path) -> Path:
    """Make a temporary folder in `parent` that is this process' own."""
    return Path(tempfile.mkdtemp(prefix=owned(prefix), dir=parent))


@contextmanager
def temporary_folder(prefix: str, parent: Path) -> Iterator[Path]:
    """Yield an owned folder that goes with the block, in the place of those left behind."""
    remove_left_behind(prefix, parent)
    folder = owned_folder(prefix, parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_behind(prefix: str, parent: Path) -> None:
    """Remove the folders and files in `parent` whose owners have ended without removing them."""
    for path in parent.glob(f"{prefix}*-*"):
        owner = path.name.removeprefix(prefix).partition("-")[0]
        if not owner.isdigit() or Path(f"/proc/{owner}").exists():
            continue
        if not Path("/proc/self").exists():
            continue  # nobody can tell
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
