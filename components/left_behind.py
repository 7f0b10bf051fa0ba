"""Temporary folders that a killed process left behind.

A folder is named after the process that owns it (`<prefix><pid>-…`), so that the next process can
tell whether anybody still works in it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def owned_folder(prefix: str, parent: Path) -> Path:
    """Make a temporary folder in `parent` that is this process' own."""
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))


def remove_left_behind(prefix: str, parent: Path) -> None:
    """Remove the folders in `parent` whose owners have ended without removing them."""
    for folder in parent.glob(f"{prefix}*-*"):
        owner = folder.name.removeprefix(prefix).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
