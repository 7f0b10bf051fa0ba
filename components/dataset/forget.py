"""What the caches of a workspace hold of withdrawn images, and its removal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from components.dataset.content_cache import ContentCache
from components.dataset.last_search import LAST_SEARCH, SHARED_KEYPOINTS, forget_search
from components.dataset.sources.copies import folders_of_copies, remove_paths
from components.dataset.sources.hashes import HASH_CACHE
from components.layout import Layout
from components.tables import read_table


@dataclass(frozen=True)
class Forgotten:
    """What was removed, and what could not be.

    Attributes
    ----------
    num_entries
        Measurements, keypoints, the search for neighbours and sets of packed images that went.
    folders
        Folders (and files) that went as a whole because they may have held a picture; from the
        workspace.
    left
        Those of them that could not be removed -> why.
    """

    num_entries: int
    folders: list[str]
    left: dict[str, str]


def forget(layout: Layout, images: set[str], hashes: set[str]) -> Forgotten:
    """Remove from the caches what was made of images, by their ids or their files' sha256.

    Folders that may hold a picture go as a whole: nobody knows what is in an archive that was
    downloaded, and all of it can be made again.
    """
    num_entries = (
        _forget_entries(layout.cache, hashes)
        + forget_search(layout.cache / LAST_SEARCH, hashes)
        + _forget_packed(layout.cache, images, hashes)
    )
    gone, left = remove_paths(_may_hold_pictures(layout))
    return Forgotten(
        num_entries,
        [_name(folder, layout) for folder in gone],
        {_name(folder, layout): why for folder, why in left.items()},
    )


def _may_hold_pictures(layout: Layout) -> list[Path]:
    """Return copies of sources, contact sheets, and what killed processes left."""
    return [
        *_left_by_killed(layout.cache),
        *folders_of_copies(layout.cache),
        layout.recalled_snapshots,
        layout.half_done_snapshot,
        layout.failed_validation_report,
        layout.half_done_validation_report,
        layout.trained,
    ]


def _left_by_killed(cache: Path) -> list[Path]:
    """Return what a killed search or writer left in the caches, whoever that was.

    Not only if its process has ended, as the next search does: another one may have its number.
    """
    half_written = (path for path in cache.glob(".*") if path.is_file())
    unnamed = cache.glob("tmp*")  # of searches before they named their folders
    return sorted([*cache.glob(f"{SHARED_KEYPOINTS}*"), *half_written, *unnamed])


def _forget_entries(cache: Path, hashes: set[str]) -> int:
    return sum(
        ContentCache(path, version="").forget(sorted(hashes))
        for path in sorted(cache.rglob("*.sqlite"))
        if hashes and path.name != HASH_CACHE
    )


def _forget_packed(cache: Path, images: set[str], hashes: set[str]) -> int:
    """Remove the sets of packed images that hold one of them, and return how many went."""
    found = list(_packed_with(cache, images, hashes))
    for folder in found:
        shutil.rmtree(folder)
    return len(found)


def _packed_with(cache: Path, images: set[str], hashes: set[str]) -> Iterator[Path]:
    for path in sorted(cache.rglob("index.parquet")):
        index: pd.DataFrame = read_table(path, ("image_id", "sha256"))
        if (index["image_id"].isin(images) | index["sha256"].isin(hashes)).any():
            yield path.parent


def _name(folder: Path, layout: Layout) -> str:
    return folder.relative_to(layout.root).as_posix()
