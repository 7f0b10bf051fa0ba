"""What the trials try: values of the searched keys, spread evenly over the space."""

from __future__ import annotations

import math
from collections.abc import Mapping

from components.tuning.config import Range, Value

Changes = dict[str, Value]
"""Searched key → its value in one trial."""


def suggest(
    space: Mapping[str, Range | tuple[Value, ...]], num_suggestions: int, seed: int
) -> list[Changes]:
    """Draw values for every key of `space`; the same arguments give the same values.

    A Latin hypercube (McKay et al. 1979): each range is cut into as many strips of equal
    probability as there are suggestions, and each strip is hit once. For few trials that covers
    every key better than independent draws do. Numbers are rounded to three digits.
    """
    from scipy.stats import qmc

    shares = qmc.LatinHypercube(d=len(space), rng=seed).random(num_suggestions)
    return [
        {
            key: _value_at(dimension, float(share))
            for (key, dimension), share in zip(space.items(), row, strict=True)
        }
        for row in shares
    ]


def _value_at(dimension: Range | tuple[Value, ...], share: float) -> Value:
    """Return the value that `share` (0 to 1) of all values are not above."""
    if not isinstance(dimension, Range):
        return dimension[min(int(share * len(dimension)), len(dimension) - 1)]
    low, high = dimension.low, dimension.high
    if dimension.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    return min(max(float(f"{value:.3g}"), low), high)
