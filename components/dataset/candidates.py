"""Which of all pairs of pictures are worth a closer look: those that share keypoints.

Every keypoint looks for its nearest neighbours among the keypoints of all other pictures and votes
for the pictures that they lie in; pairs with enough votes are candidates. The neighbours are looked
for in the nearest cells only (an inverted file), so that the work grows little faster than the
number of pictures. Products are exact and ties go to the first: the candidates follow from the
descriptors alone, however many processes search.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from components.dataset.cells import NUM_PROBES, Cells, make_cells, nearest_cells, top_columns
from components.dataset.keypoints import UNIT, KeypointFiles
from components.dataset.workers import ProgressPrinter, Workers

Ints = npt.NDArray[np.int64]

MIN_VOTES = 3
"""Keypoints of either picture that must vote for the other."""
NUM_CANDIDATES = 10
"""Pairs of a picture that are looked at: those with the most votes."""

_SAMPLE = 200_000  # descriptors that the cells are made from
_NEIGHBOURS = 3  # pictures that a keypoint votes for
_LEAST_PRODUCT = 0.88 * UNIT**2  # descriptors of a smaller cosine are no neighbours
_DEALT = 100_000  # keypoints that are dealt to cells at once
_SEARCHED = 750_000  # keypoints that search at once: bounds the memory of a process


def find_candidates(files: KeypointFiles, lesions: Ints, workers: Workers) -> Ints:
    """Return the pairs of pictures that are worth a closer look.

    Parameters
    ----------
    files
        The keypoints; files with the cells are added to its folder.
    lesions
        Shape (number of pictures,): pictures of the same number are not paired; -1 for unknown.
    workers
        Processes to search with.

    Returns
    -------
    ndarray of shape (n, 2), int64
        Numbers of pictures, the smaller one first, sorted.
    """
    count = files.num_keypoints
    if count < 2:
        return np.zeros((0, 2), np.int64)
    ((_, cells),) = workers.map(_make_cells, [files])
    _deal(files, cells, workers)
    progress = ProgressPrinter("candidates", count, "keypoints")
    ballots = np.zeros(0, np.int64)
    tasks = [(files, start, stop) for start, stop in _shares(count, workers.num_processes)]
    for (_, start, stop), found in workers.map(_search, tasks):
        ballots = np.concatenate([ballots, found])
        progress.add(stop - start)
    pairs, votes = np.unique(ballots, return_counts=True)
    low, high = np.divmod(pairs, files.num_pictures)
    kept = (votes >= MIN_VOTES) & ((lesions[low] != lesions[high]) | (lesions[low] < 0))
    return _most_voted(np.stack([low[kept], high[kept]], axis=1), votes[kept])


def _most_voted(pairs: Ints, votes: Ints) -> Ints:
    """Keep the pairs that are among the most voted for of either picture."""
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    order = np.lexsort((ends[:, 1], -np.concatenate([votes, votes]), ends[:, 0]))
    sorted_ends = ends[order]
    rank = np.arange(len(ends)) - np.searchsorted(sorted_ends[:, 0], sorted_ends[:, 0])
    kept = np.unique(order[rank < NUM_CANDIDATES] % max(1, len(pairs)))
    return np.asarray(pairs[kept])


def _shares(count: int, num_processes: int) -> list[tuple[int, int]]:
    """Cut `count` keypoints into as many parts for each process, none too large."""
    rounds = -(-count // (num_processes * _SEARCHED))
    edges = np.linspace(0, count, num_processes * rounds + 1).astype(int).tolist()
    return list(pairwise(edges))


def _make_cells(files: KeypointFiles) -> Cells:
    """Make the cells in another process: what it maps into memory goes with it."""
    step = max(1, files.num_keypoints // _SAMPLE)
    return make_cells(np.ascontiguousarray(files.descriptors[::step]), files.num_keypoints)


def _deal(files: KeypointFiles, cells: Cells, workers: Workers) -> None:
    """Write each keypoint's nearest cells, and the keypoints in the order of their cell."""
    count = files.num_keypoints
    probes = np.empty((count, NUM_PROBES), np.int32)
    tasks = [(files, cells, start) for start in range(0, count, _DEALT)]
    for (_, _, start), found in workers.map(_deal_part, tasks):
        probes[start : start + _DEALT] = found
    files.save("probes", probes)
    files.save("by_cell", np.argsort(probes[:, 0], kind="stable"))
    files.save(
        "cell_starts", np.searchsorted(np.sort(probes[:, 0]), np.arange(cells.first[-1] + 1))
    )


def _deal_part(task: tuple[KeypointFiles, Cells, int]) -> npt.NDArray[np.int32]:
    files, cells, start = task
    return nearest_cells(files.descriptors[start : start + _DEALT], cells)


def _search(task: tuple[KeypointFiles, int, int]) -> Ints:
    """Let the keypoints from `start` to `stop` vote.

    Returns
    -------
    ndarray of int64
        One number for each vote: a × (number of pictures) + b for pictures a < b.
    """
    files, start, stop = task
    value, picture = _neighbours(files, start, stop)
    rows = np.arange(stop - start)
    own = files.pictures[start:stop].astype(np.int64)
    ballots = []
    for _ in range(_NEIGHBOURS):
        best, found = top_columns(value, 1)
        chosen = picture[rows, best[:, 0]].astype(np.int64)
        valid = found[:, 0] >= _LEAST_PRODUCT
        low, high = np.minimum(own, chosen)[valid], np.maximum(own, chosen)[valid]
        ballots.append(low * files.num_pictures + high)
        value[picture == chosen[:, None]] = -np.inf  # one vote for a picture
    return np.concatenate(ballots)


def _neighbours(
    files: KeypointFiles, start: int, stop: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Find the nearest keypoints of other pictures in each searched cell.

    Returns
    -------
    value, picture
        Shape (stop - start, cells × neighbours): products with the neighbours, largest first
        within a cell, and the pictures that these belong to.
    """
    descriptors, pictures = files.descriptors, files.pictures
    by_cell, cell_starts = files.load("by_cell"), files.load("cell_starts")
    probes = files.load("probes")[start:stop].ravel()
    order = np.argsort(probes, kind="stable")
    edges = np.searchsorted(probes[order], np.arange(len(cell_starts)))
    value = np.full((len(probes), _NEIGHBOURS), -np.inf, np.float32)
    picture = np.full(value.shape, -1, np.int32)
    for cell in range(len(cell_starts) - 1):
        asking = order[edges[cell] : edges[cell + 1]]
        members = by_cell[cell_starts[cell] : cell_starts[cell + 1]]
        if not len(asking) or not len(members):
            continue
        query = start + asking // NUM_PROBES
        products = _products(descriptors[query], descriptors[members])
        products[pictures[query][:, None] == pictures[members]] = -np.inf
        best, found = top_columns(products, _NEIGHBOURS)
        value[asking, : found.shape[1]] = found
        picture[asking, : found.shape[1]] = pictures[members][best]
    shape = (stop - start, NUM_PROBES * _NEIGHBOURS)
    return value.reshape(shape), picture.reshape(shape)


def _products(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(left.astype(np.float32) @ right.astype(np.float32).T)
