"""Descriptors dealt to cells, so that a neighbour is looked for among hundreds, not millions.

Two-level k-means without any draw: the first centres are evenly spaced rows, and centres are
rounded to whole numbers, so that every distance is exact and every machine makes the same cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

NUM_PROBES = 3
"""Cells that a descriptor is compared in."""
_PER_CELL = 180  # descriptors
_ITERATIONS = 6
_BEAM = 3  # coarse cells whose fine cells are looked through
_ROWS = 20_000


@dataclass(frozen=True)
class Cells:
    """The centres, whole numbers.

    Attributes
    ----------
    coarse
        Shape (c, 128).
    fine
        For each coarse cell its centres, shape (f, 128), f at least 1.
    """

    coarse: Floats
    fine: tuple[Floats, ...]

    @property
    def first(self) -> npt.NDArray[np.int64]:
        """Number of the first fine cell of each coarse cell; last, the number of all cells."""
        return np.concatenate([[0], np.cumsum([len(centres) for centres in self.fine])])


def make_cells(sample: Bytes, count: int) -> Cells:
    """Make cells for `count` descriptors of which `sample`, shape (n, 128), is typical."""
    num_cells = max(1, count // _PER_CELL)
    num_coarse = max(1, round(num_cells**0.5))
    coarse = _k_means(sample, num_coarse)
    home = _nearest(sample, coarse)
    fine = []
    for cell in range(num_coarse):
        members = sample[home == cell]
        wanted = round(num_cells * len(members) / len(sample))
        number = max(1, min(wanted, len(members) // 4))
        fine.append(_k_means(members, number) if len(members) else coarse[cell : cell + 1])
    return Cells(coarse, tuple(fine))


def nearest_cells(descriptors: Bytes, cells: Cells) -> npt.NDArray[np.int32]:
    """Return the `NUM_PROBES` nearest cells of each descriptor, nearest first.

    Returns
    -------
    ndarray of shape (n, NUM_PROBES), int32
        -1 where there are fewer cells.
    """
    parts = [
        _nearest_cells(descriptors[start : start + _ROWS], cells)
        for start in range(0, len(descriptors), _ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, NUM_PROBES), np.int32)


def _nearest_cells(descriptors: Bytes, cells: Cells) -> npt.NDArray[np.int32]:
    values = descriptors.astype(np.float32)
    beam = min(_BEAM, len(cells.coarse))
    chosen, _ = top_columns(_closeness(values, cells.coarse), beam)
    number = np.full((len(values), beam, NUM_PROBES), -1, np.int32)
    closeness = np.full(number.shape, -np.inf, np.float32)
    order = np.argsort(chosen, axis=None, kind="stable")
    bounds = np.searchsorted(chosen.ravel()[order], np.arange(len(cells.coarse) + 1))
    for cell, first in enumerate(cells.first[:-1]):
        rows, slots = np.divmod(order[bounds[cell] : bounds[cell + 1]], beam)
        if not len(rows):
            continue
        found, value = top_columns(_closeness(values[rows], cells.fine[cell]), NUM_PROBES)
        number[rows, slots, : found.shape[1]] = first + found
        closeness[rows, slots, : found.shape[1]] = value
    best, value = top_columns(closeness.reshape(len(values), -1), NUM_PROBES)
    probes = np.take_along_axis(number.reshape(len(values), -1), best, axis=1)
    probes[value == -np.inf] = -1
    return probes


def top_columns(scores: Floats, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return columns and values of each row's `count` largest scores (the first of equals).

    `scores` is overwritten. At most as many columns are returned as there are.
    """
    rows = np.arange(len(scores))
    columns = np.empty((len(scores), min(count, scores.shape[1])), np.int64)
    values = np.empty(columns.shape, np.float32)
    for rank in range(columns.shape[1]):
        columns[:, rank] = scores.argmax(axis=1)
        values[:, rank] = scores[rows, columns[:, rank]]
        scores[rows, columns[:, rank]] = -np.inf
    return columns, values


def _closeness(values: Floats, centres: Floats) -> Floats:
    """|values|² minus the squared distance: the larger, the nearer; exact."""
    return np.asarray(2 * (values @ centres.T) - (centres * centres).sum(axis=1))


def _nearest(descriptors: Bytes, centres: Floats) -> npt.NDArray[np.int64]:
    return np.concatenate(
        [
            _closeness(descriptors[start : start + _ROWS].astype(np.float32), centres).argmax(
                axis=1
            )
            for start in range(0, len(descriptors), _ROWS)
        ]
    )


def _k_means(descriptors: Bytes, number: int) -> Floats:
    """Return `number` centres of at least as many descriptors."""
    centres = descriptors[np.arange(number) * len(descriptors) // number].astype(np.float32)
    for _ in range(_ITERATIONS):
        home = _nearest(descriptors, centres)
        order = np.argsort(home, kind="stable")
        bounds = np.searchsorted(home[order], np.arange(number + 1))
        sizes = np.diff(bounds)
        taken = sizes > 0  # an empty cell keeps its centre
        sums = np.add.reduceat(descriptors[order], bounds[:-1][taken], axis=0, dtype=np.int64)
        centres[taken] = np.rint(sums / sizes[taken, None])
    return centres
