"""The nearest pictures of every keypoint, among hundreds of thousands of keypoints of others.

A keypoint looks in the cells next to it only (an inverted file), so that the work grows little
faster than the number of pictures. Products are exact, and of equal ones the first picture's
counts: what is found follows from the descriptors alone, however many processes search.

What was found is kept. The cells are made from the largest sources, which stay when others are
added; and the nearest of all are the nearest of those that were there and of those that are new.
So an added picture asks all, all ask it, and the outcome is that of a search from nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.dataset.cells import NUM_PROBES, Cells, make_cells, nearest_cells, top_columns
from components.dataset.keypoints import UNIT, KeypointFiles, keypoints_version
from components.dataset.last_search import NUM_NEIGHBOURS, Neighbours, Search, recall, remember
from components.dataset.workers import ProgressPrinter, Workers

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_VERSION = 2  # of cells and search: a search of another version is not gone on with
_SAMPLE = 200_000  # descriptors that the cells are made from
_DEALT = 100_000  # keypoints that are dealt to cells at once
_LEAST_PRODUCT = 0.88 * UNIT**2  # descriptors of a smaller cosine are no neighbours
_SEARCHED = 1_500_000  # keypoints that search at once: bounds the memory of a process


def find_neighbours(
    files: KeypointFiles,
    hashes: Sequence[str],
    sources: Sequence[str],
    memory: Path,
    workers: Workers,
) -> Neighbours:
    """Find the nearest other pictures of each keypoint.

    Parameters
    ----------
    files
        The keypoints, one at least; files for the search are added to its folder.
    hashes
        sha256 of each picture's file, ascending.
    sources
        The source of each picture.
    memory
        The file in which the last search is kept.
    workers
        Processes to search with.

    Raises
    ------
    ResourceError
        `memory` cannot be read or written.
    """
    base = largest_sources(sources, np.diff(files.load("starts")))
    version = _version(hashes, base)
    last = recall(memory, version)
    if last is not None and not set(last.hashes) <= set(hashes):
        last = None  # nobody knows whom those that are gone have displaced
    num_known = len(last.hashes) if last is not None else 0
    print(f"pairs: {num_known} of {len(hashes)} pictures searched before", flush=True)
    if last is None:
        ((_, cells),) = workers.map(_make_cells, [(files, base)])
        found = _search_for(files, np.ones(files.num_pictures, bool), None, cells, workers)
    else:
        new = ~np.isin(np.asarray(hashes), np.asarray(last.hashes))
        if not new.any():
            return last.neighbours
        cells = last.cells
        found = _search_for(files, new, last.neighbours, cells, workers)
    remember(memory, version, Search(tuple(hashes), cells, found))
    return found


def largest_sources(sources: Sequence[str], sizes: npt.NDArray[Any]) -> Bools:
    """Return which pictures belong to the fewest sources that have half of all keypoints.

    They stay the same while what is added is less than they are.

    Parameters
    ----------
    sources
        The source of each picture.
    sizes
        How many keypoints each picture has.
    """
    names, number = np.unique(np.asarray(sources, dtype=object).astype(str), return_inverse=True)
    share = np.bincount(number, weights=sizes, minlength=len(names))
    order = np.argsort(-share, kind="stable")
    enough = int(np.searchsorted(np.cumsum(share[order]), share.sum() / 2)) + 1
    return np.isin(number, order[:enough])


def _version(hashes: Sequence[str], base: Bools) -> str:
    of_base = hashlib.sha256()
    for number in np.flatnonzero(base).tolist():
        of_base.update(hashes[number].encode())
    return f"search {_VERSION}, {keypoints_version()}, cells of {of_base.hexdigest()}"


def _search_for(
    files: KeypointFiles, new: Bools, known: Neighbours | None, cells: Cells, workers: Workers
) -> Neighbours:
    """Let `new` pictures ask all; the others, of `known` neighbours, ask the new ones."""
    is_new = new[files.pictures]
    rows, others = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    found = Neighbours.none(files.num_keypoints)
    found.probes[rows] = _deal(files, rows, cells, workers)
    if known is not None:
        # Both orders are by hash: those that were there come in the same order as before.
        found.probes[others] = known.probes
        found.products[others] = known.products
        found.pictures[others] = np.append(np.flatnonzero(~new), -1)[known.pictures]
    files.save("probes", found.probes)
    # What is not nearer than the farthest of those that are known is not looked at any further.
    files.save("floors", np.maximum(found.products[:, -1], _LEAST_PRODUCT))
    num_cells = int(cells.first[-1])
    tasks = [*_ask(files, "new", rows, "all", workers)]
    _save_members(files, "all", np.arange(files.num_keypoints), found.probes, num_cells)
    if len(others):
        _save_members(files, "new", rows, found.probes, num_cells)
        tasks += _ask(files, "others", others, "new", workers)
    progress = ProgressPrinter("neighbours", len(rows) + len(others), "keypoints")
    for task, (asking, products, pictures) in workers.map(_search, tasks):
        found.products[asking], found.pictures[asking] = nearest_pictures(
            np.concatenate([found.products[asking], products], axis=1),
            np.concatenate([found.pictures[asking], pictures], axis=1),
        )
        progress.add(task.stop - task.start)
    return found


def _make_cells(task: tuple[KeypointFiles, Bools]) -> Cells:
    """Make the cells in another process: what it maps into memory goes with it."""
    files, base = task
    rows = np.flatnonzero(base[files.pictures])
    step = max(1, len(rows) // _SAMPLE)
    return make_cells(files.descriptors[rows[::step]], len(rows))


def _deal(
    files: KeypointFiles, rows: Ints, cells: Cells, workers: Workers
) -> npt.NDArray[np.int32]:
    """Return the nearest cells of the keypoints `rows`."""
    probes = np.empty((len(rows), NUM_PROBES), np.int32)
    files.save("dealt", rows)
    tasks = [(files, cells, start) for start in range(0, len(rows), _DEALT)]
    for (_, _, start), found in workers.map(_deal_part, tasks):
        probes[start : start + _DEALT] = found
    return probes


def _deal_part(task: tuple[KeypointFiles, Cells, int]) -> npt.NDArray[np.int32]:
    files, cells, start = task
    return nearest_cells(files.descriptors[files.load("dealt")[start : start + _DEALT]], cells)


def _save_members(
    files: KeypointFiles, name: str, rows: Ints, probes: npt.NDArray[np.int32], num_cells: int
) -> None:
    """Write the keypoints `rows` in the order of their cell, and where each cell begins."""
    home = probes[rows, 0]
    order = np.argsort(home, kind="stable")
    files.save(f"{name}_members", rows[order])
    files.save(f"{name}_cells", np.searchsorted(home[order], np.arange(num_cells + 1)))


@dataclass(frozen=True)
class _Task:
    """Keypoints `start` to `stop` of the file `asking` look among those of `members`."""

    files: KeypointFiles
    asking: str
    members: str
    start: int
    stop: int


def _ask(
    files: KeypointFiles, asking: str, rows: Ints, members: str, workers: Workers
) -> list[_Task]:
    """Cut the search of the keypoints `rows` into as many parts for each process."""
    files.save(f"{asking}_asking", rows)
    rounds = -(-len(rows) // (workers.num_processes * _SEARCHED))
    edges = np.linspace(0, len(rows), workers.num_processes * rounds + 1).astype(int).tolist()
    return [_Task(files, f"{asking}_asking", members, *part) for part in pairwise(edges)]


def _search(
    task: _Task,
) -> tuple[Ints, npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Search for some keypoints.

    Returns
    -------
    asking, products, pictures
        The keypoints that have neighbours, and as in `Neighbours` what these are.
    """
    files = task.files
    descriptors, pictures, floors = files.descriptors, files.pictures, files.load("floors")
    members, cells = (files.load(f"{task.members}_{part}") for part in ("members", "cells"))
    asking = files.load(task.asking)[task.start : task.stop]
    probes = files.load("probes")[asking].ravel()
    order = np.argsort(probes, kind="stable")
    edges = np.searchsorted(probes[order], np.arange(len(cells)))
    product = np.full((len(probes), NUM_NEIGHBOURS), -np.inf, np.float32)
    picture = np.full(product.shape, -1, np.int32)
    for cell in range(len(cells) - 1):
        slots = order[edges[cell] : edges[cell + 1]]
        here = members[cells[cell] : cells[cell + 1]]
        if not len(slots) or not len(here):
            continue
        query = asking[slots // NUM_PROBES]
        owner = pictures[here]
        products = _products(descriptors[query], descriptors[here])
        products[pictures[query][:, None] == owner] = -np.inf
        near = products.max(axis=1) >= floors[query]
        slots, products = slots[near], products[near]
        for rank in range(min(NUM_NEIGHBOURS, len(here))):
            best, value = top_columns(products, 1)
            chosen = owner[best[:, 0]]
            product[slots, rank] = value[:, 0]
            picture[slots, rank] = chosen
            products[chosen[:, None] == owner] = -np.inf  # one place for a picture
    shape = (len(asking), NUM_PROBES * NUM_NEIGHBOURS)
    product, picture = product.reshape(shape), picture.reshape(shape)
    far = product < _LEAST_PRODUCT
    product[far], picture[far] = -np.inf, -1
    found = ~far.all(axis=1)
    return asking[found], *nearest_pictures(product[found], picture[found])


def nearest_pictures(
    products: npt.NDArray[np.float32], pictures: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return the `NUM_NEIGHBOURS` different pictures of the largest products in each row.

    Of equal products the smaller picture's counts, wherever it stands.
    """
    # Whole numbers: a product, and below it how early the picture comes.
    key = (np.maximum(products, -1).astype(np.int64) << 32) + (2**31 - 1 - pictures)
    rows = np.arange(len(key))
    best = np.full((len(key), NUM_NEIGHBOURS), -np.inf, np.float32)
    chosen = np.full(best.shape, -1, np.int32)
    for rank in range(NUM_NEIGHBOURS):
        column = key.argmax(axis=1)
        there = key[rows, column] >= 0
        best[there, rank] = products[rows, column][there]
        chosen[there, rank] = pictures[rows, column][there]
        key[pictures == pictures[rows, column][:, None]] = -1
    return best, chosen


def _products(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(left.astype(np.float32) @ right.astype(np.float32).T)
