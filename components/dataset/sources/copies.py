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


def remove_folders(folders: Iterable[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Remove what is there of `folders`.

    Returns
    -------
    list of Path
        Those that are gone.
    dict of Path to str
        Those that could not be removed as a whole, and why.
    """
    gone: list[Path] = []
    left: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            continue
        try:
            shutil.rmtree(folder)
        except OSError as error:
            left[folder] = error.strerror or str(error)
        else:
            gone.append(folder)
    return gone, left
