"""The search for neighbours: names in `layout.cache`, and the last one, kept in one file there.

The cache never shapes a result: a search of another `version` is not seen.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.atomic import atomic_path, half_written
from components.dataset.cells import NUM_PROBES, Cells
from components.errors import ResourceError
from components.left_behind import remove_left_behind

LAST_SEARCH = "neighbours.npz"
SHARED_KEYPOINTS = "pairs-"
"""How the folder begins that a search's processes share, as long as it lasts."""
NUM_NEIGHBOURS = 3
"""Nearest pictures of a keypoint that are looked for."""
_DAMAGED = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Neighbours:
    """What was found for each of n keypoints.

    Attributes
    ----------
    probes
        Shape (n, NUM_PROBES): the cells that it looks in, nearest first; -1 where there are fewer.
    products
        Shape (n, NUM_NEIGHBOURS): products with those near enough, largest first; -inf for none.
    pictures
        Same shape: numbers of the pictures that these belong to; -1 for none.
    """

    probes: npt.NDArray[np.int32]
    products: npt.NDArray[np.float32]
    pictures: npt.NDArray[np.int32]

    @staticmethod
    def none(count: int) -> Neighbours:
        """Return that nothing was found for `count` keypoints."""
        return Neighbours(
            np.full((count, NUM_PROBES), -1, np.int32),
            np.full((count, NUM_NEIGHBOURS), -np.inf, np.float32),
            np.full((count, NUM_NEIGHBOURS), -1, np.int32),
        )


@dataclass(frozen=True)
class Search:
    """A search: sha256 of its pictures, ascending; its cells; what it found."""

    hashes: tuple[str, ...]
    cells: Cells
    neighbours: Neighbours


def remember(path: Path, version: str, search: Search) -> None:
    """Keep `search` instead of the last one.

    Raises
    ------
    ResourceError
        The disk is full.
    """
    cells, found = search.cells, search.neighbours
    remove_left_behind(half_written(path), path.parent)
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            version=np.array(version),
            hashes=np.array(search.hashes, dtype="S64"),
            coarse=cells.coarse.astype(np.uint8),
            fine=np.concatenate(cells.fine).astype(np.uint8),
            fine_sizes=np.array([len(centres) for centres in cells.fine]),
            probes=found.probes,
            products=found.products,
            pictures=found.pictures,
        )


def recall(path: Path, version: str) -> Search | None:
    """Return the last search; None if there is none of this `version`.

    Raises
    ------
    ResourceError
        The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["version"]) != version:
                return None
            fine = np.split(kept["fine"].astype(np.float32), np.cumsum(kept["fine_sizes"])[:-1])
            return Search(
                _hashes(kept["hashes"]),
                Cells(kept["coarse"].astype(np.float32), tuple(fine)),
                Neighbours(kept["probes"], kept["products"], kept["pictures"]),
            )
    except _DAMAGED as error:
        raise ResourceError(
            f"the cache cannot be used: {error}",
            where=str(path),
            fix="delete the file: it is made again",
        ) from error


def forget_search(path: Path, hashes: Iterable[str]) -> bool:
    """Delete the last search if it knows one of `hashes`, or if nobody can tell.

    Returns
    -------
    bool
        Whether it is gone.
    """
    if not path.is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as kept:
            if not set(_hashes(kept["hashes"])).intersection(hashes):
                return False
    except _DAMAGED:
        pass
    path.unlink()
    return True


def _hashes(kept: npt.NDArray[np.bytes_]) -> tuple[str, ...]:
    return tuple(kept.astype(str).tolist())
