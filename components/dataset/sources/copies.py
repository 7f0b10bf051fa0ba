"""Copies of sources in the caches: what was downloaded, and what was unpacked.

They hold original pictures, withdrawn ones too, and can be made again from the source.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

DOWNLOADS = "downloads"
UNPACKED = "unpacked"


def folders_of_copies(cache: Path) -> list[Path]:
    """Return the folders of the caches that hold copies of sources, there or not."""
    return [cache / DOWNLOADS, cache / UNPACKED]


def remove_paths(paths: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Remove what is there of `paths`: folders as a whole, and files.

    Returns
    -------
    list of Path
        Those that are gone.
    dict of Path to str
        Those that could not be removed as a whole, and why.
    """
    gone: list[Path] = []
    left: dict[Path, str] = {}
    for path in paths:
        if not path.exists():
            continue
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            left[path] = error.strerror or str(error)
        else:
            gone.append(path)
    return gone, left
