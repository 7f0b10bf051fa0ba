"""How long a training takes compared with others: known without running any."""

from __future__ import annotations

from components.backbones.zoo import backbone
from components.training.config import TrainingParams

_PASSES = {"all": 3.0, "last_block": 1.5}
"""Forward passes that one training step is worth: going back costs twice as much as going forth."""
_PIXELS = 224 * 224


def relative_cost(name: str, params: TrainingParams) -> float:
    """Estimate the work of one worker per training image, in thousands of millions of MACs.

    It is good for an order, not for a clock: depthwise convolutions take longer than their
    multiply-adds say, and memory has its say, too.
    """
    forward = backbone(name).gigamacs * params.image_size**2 / _PIXELS
    if params.unfreeze == "none":
        return forward / params.num_workers  # features are computed once, for all epochs
    head_first = 1.0 if params.head_epochs else 0.0
    passes = params.epochs * _PASSES[params.unfreeze] + head_first
    return forward * passes / params.num_workers
