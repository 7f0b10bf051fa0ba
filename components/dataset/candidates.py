"""Which of all pairs of pictures are worth a closer look: those that share keypoints.

Every keypoint votes for its nearest pictures; pairs with enough votes are candidates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from components.dataset.keypoints import KeypointFiles
from components.dataset.last_search import NUM_NEIGHBOURS, Neighbours

Ints = npt.NDArray[np.int64]

MIN_VOTES = 3
"""Keypoints of either picture that must vote for the other."""
NUM_CANDIDATES = 10
"""Pairs of a picture that are looked at: those with the most votes."""


def find_candidates(files: KeypointFiles, neighbours: Neighbours, lesions: Ints) -> Ints:
    """Return the pairs of pictures that are worth a closer look.

    Parameters
    ----------
    files
        The keypoints.
    neighbours
        The nearest pictures of each keypoint.
    lesions
        Shape (number of pictures,): pictures of the same number are not paired; -1 for unknown.

    Returns
    -------
    ndarray of shape (n, 2), int64
        Numbers of pictures, the smaller one first, sorted.
    """
    pairs, votes = np.unique(_ballots(files, neighbours), return_counts=True)
    low, high = np.divmod(pairs, files.num_pictures)
    kept = (votes >= MIN_VOTES) & ((lesions[low] != lesions[high]) | (lesions[low] < 0))
    return _most_voted(np.stack([low[kept], high[kept]], axis=1), votes[kept])


def _ballots(files: KeypointFiles, neighbours: Neighbours) -> Ints:
    """Return one number for each vote: a × (number of pictures) + b for pictures a < b."""
    ballots = []
    for rank in range(NUM_NEIGHBOURS):
        valid = neighbours.pictures[:, rank] >= 0
        own = files.pictures[valid].astype(np.int64)
        chosen = neighbours.pictures[valid, rank].astype(np.int64)
        ballots.append(np.minimum(own, chosen) * files.num_pictures + np.maximum(own, chosen))
    return np.concatenate(ballots)


def _most_voted(pairs: Ints, votes: Ints) -> Ints:
    """Keep the pairs that are among the most voted for of either picture."""
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    order = np.lexsort((ends[:, 1], -np.concatenate([votes, votes]), ends[:, 0]))
    sorted_ends = ends[order]
    rank = np.arange(len(ends)) - np.searchsorted(sorted_ends[:, 0], sorted_ends[:, 0])
    kept = np.unique(order[rank < NUM_CANDIDATES] % max(1, len(pairs)))
    return np.asarray(pairs[kept])
