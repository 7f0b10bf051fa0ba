"""Which images an epoch shows, in which order, and how they are cut into batches.

Everything here is a function of seed and epoch alone: a training that resumes, or that runs on
another number of workers, draws the same images in the same order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def epoch_order(labels: Ints, power: float, num_images: int, seed: int, epoch: int) -> Ints:
    """Return `num_images` positions in `labels`, shuffled.

    Of a class with n images, a number in proportion to n**power is drawn (`class_quotas`); its
    images take turns, so that over the epochs each is drawn equally often (give or take one).
    """
    counts = np.bincount(labels)
    quotas = class_quotas(counts, power, num_images)
    drawn = [
        _take_turns(np.flatnonzero(labels == label), int(quota), seed, int(label), epoch)
        for label, quota in enumerate(quotas)
        if quota
    ]
    order = np.concatenate(drawn)
    _generator(seed, epoch, 0).shuffle(order)
    return order


def class_quotas(counts: Ints, power: float, num_images: int) -> Ints:
    """Divide `num_images` in proportion to counts**power, by largest remainders.

    A class with images gets at least one, if there is one for each: the quotas are the same in
    every epoch, so that one without would never be seen.
    """
    weights = np.where(counts > 0, counts.astype(float) ** power, 0.0)
    exact = num_images * weights / weights.sum()
    single = np.zeros(len(counts), dtype=bool)
    if num_images >= np.count_nonzero(counts):
        # What these get beyond their share the others lack, who may then be short themselves.
        while (short := (counts > 0) & ~single & (exact < 1)).any():
            single |= short
            others = np.where(single, 0.0, weights)
            exact = (num_images - single.sum()) * others / max(others.sum(), 1e-300)
    quotas: Ints = np.floor(exact).astype(np.int64) + single
    most = np.argsort(-(exact - np.floor(exact)), kind="stable")[: num_images - quotas.sum()]
    quotas[most] += 1
    return quotas


def _take_turns(members: Ints, quota: int, seed: int, label: int, epoch: int) -> Ints:
    """Return entries `epoch * quota` to `(epoch + 1) * quota` of an endless row of shuffles."""
    start, stop = epoch * quota, (epoch + 1) * quota
    first, last = start // len(members), (stop - 1) // len(members)
    rounds = [
        _generator(seed, round_number, label + 1).permutation(members)
        for round_number in range(first, last + 1)
    ]
    offset = first * len(members)
    turns: Ints = np.concatenate(rounds)[start - offset : stop - offset]
    return turns


def batches(num_images: int, batch_size: int, rank: int, world_size: int) -> list[tuple[Ints, int]]:
    """Cut positions 0 to `num_images` into batches of nearly the same size.

    Returns
    -------
    list
        For each step: this rank's positions in the epoch's order, and how many all ranks have.
        Sizes differ by at most one, within a step and over the steps, so there is no tiny last
        batch, and (from two images per rank on) no rank is left without one.
    """
    steps = np.array_split(np.arange(num_images), max(1, -(-num_images // batch_size)))
    return [(np.array_split(step, world_size)[rank], len(step)) for step in steps]


def with_partner(positions: Ints, together: Ints) -> Ints:
    """Return `positions` and, behind them, the one that their first image is mixed with.

    Each image is mixed with the one before it in the batch, the first one with the last: whoever
    has a part of the batch needs one image more, and whoever has all of it has that one, too.

    Parameters
    ----------
    positions
        Those of one rank in a step, as `batches` gives them.
    together
        Those of all ranks in that step.
    """
    before = positions[0] - 1 if positions[0] > together[0] else together[-1]
    return positions if before == positions[-1] else np.append(positions, before)


def draws(seed: int, epoch: int, num_images: int, per_image: int) -> npt.NDArray[np.float32]:
    """Return uniform numbers `[num_images, per_image]` for the augmentation of one epoch."""
    return _generator(seed, epoch, 2**32 - 1).random((num_images, per_image), dtype=np.float32)


def _generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, stream))))
