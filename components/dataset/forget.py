"""What the caches of a workspace hold of withdrawn images, and its removal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.dataset.content_cache import ContentCache
from components.dataset.last_search import LAST_SEARCH, SHARED_KEYPOINTS, forget_search
from components.dataset.pack import INDEX
from components.dataset.sources.copies import folders_of_copies, remove_paths
from components.dataset.sources.hashes import HASH_CACHE
from components.errors import LesionflowError, ResourceError
from components.layout import Layout
from components.tables import read_table
from components.training.checkpoint import absolute
from components.training.finished import forget_all


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

    What may hold a picture goes as a whole: nobody knows what is in an archive that was downloaded,
    or in a damaged cache, and all of it can be made again.
    """
    num_entries, damaged = _forget_entries(layout.cache, hashes)
    num_entries += forget_search(layout.cache / LAST_SEARCH, hashes)
    shelves = _shelves_with(layout.packed_shelves, images, hashes)
    packed, packed_left = remove_paths(shelves)
    gone, left = remove_paths([*damaged, *_may_hold_pictures(layout)])
    return Forgotten(
        num_entries + len(packed),
        [_name(path, layout) for path in gone],
        {_name(path, layout): why for path, why in (packed_left | left).items()},
    )


def forget_trainings(
    storage: str, layout: Layout, *, shared: bool
) -> tuple[list[str], dict[str, str]]:
    """Remove checkpoints and finished models: which images they saw is not noted beside them.

    Parameters
    ----------
    storage
        The parameter.
    layout
        Of the workspace.
    shared
        Also those in a storage outside the workspace.

    Returns
    -------
    list of str
        The folder, if it is gone.
    dict of str to str
        The folder, if it could not be removed, and why.
    """
    place = absolute(storage, layout.root)
    if not (shared or Path(place).is_relative_to(layout.root.resolve())):
        return [], {}
    folder = f"{storage.rstrip('/')}/runs"
    try:
        found = forget_all(place)
    except OSError as error:
        return [], {folder: str(error).splitlines()[0]}
    return [folder] if found else [], {}


def _may_hold_pictures(layout: Layout) -> list[Path]:
    """Return copies of sources, contact sheets, and what killed processes left."""
    return [
        *_left_by_killed(layout.cache),
        *_half_made_shelves(layout.packed_shelves),
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


def _forget_entries(cache: Path, hashes: set[str]) -> tuple[int, list[Path]]:
    """Return how many entries went, and the files of caches that are too damaged to tell."""
    num_entries, damaged = 0, []
    for path in sorted(cache.rglob("*.sqlite")) if hashes else ():
        if path.name == HASH_CACHE:
            continue
        try:
            num_entries += ContentCache(path, version="").forget(sorted(hashes))
        except ResourceError:
            damaged += [path, *path.parent.glob(f"{path.name}-*")]  # and its journal
    return num_entries, damaged


def _shelves_with(shelves: Path, images: set[str], hashes: set[str]) -> list[Path]:
    """Return the sets of packed images that hold one of them."""
    return [shelf for shelf, index in _indexes(shelves).items() if index & (images | hashes)]


def _half_made_shelves(shelves: Path) -> list[Path]:
    """Return the packed sets of which nobody can tell what they hold, and half-written files."""
    indexes = _indexes(shelves)
    unknown = (path for path in shelves.glob("*") if path not in indexes)
    return sorted([*unknown, *(path for shelf in indexes for path in shelf.glob(".*"))])


def _indexes(shelves: Path) -> dict[Path, set[str]]:
    """Return the packed sets with a readable index -> ids and hashes of their images."""
    found = {}
    for shelf in sorted(shelves.glob("*")):
        try:
            index = read_table(shelf / INDEX, ("image_id", "sha256"))
        except LesionflowError:
            continue
        found[shelf] = {*index["image_id"], *index["sha256"]}
    return found


def _name(path: Path, layout: Layout) -> str:
    return path.relative_to(layout.root).as_posix()
