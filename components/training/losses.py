"""Losses for classes of very different size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.training.config import TrainingParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]


def build_loss(
    params: TrainingParams, class_counts: npt.NDArray[np.int64], device: torch.device
) -> Loss:
    """Return the loss that `params` asks for.

    It maps logits `[N, C]` and target shares `[N, C]` (rows sum to 1) to one loss per image `[N]`,
    in float32. `class_counts` are those of the images *as they are drawn*: logit adjustment and
    class weights correct what the sampling has left of the imbalance.

    References
    ----------
    Lin et al. 2017, Focal loss for dense object detection. Menon et al. 2021, Long-tail learning
    via logit adjustment.
    """
    import torch

    counts = np.maximum(class_counts.astype(float), 1e-9)
    seen = class_counts > 0
    weights = np.where(seen, counts**-params.class_weight_power, 0.0)
    weights *= counts[seen].sum() / (weights * counts)[seen].sum()  # mean weight of an image: 1
    prior = np.where(seen, np.log(counts / counts[seen].sum()), 0.0)
    weight = torch.tensor(weights, dtype=torch.float32, device=device)
    shift = torch.tensor(params.logit_adjustment * prior, dtype=torch.float32, device=device)
    gamma = params.focal_gamma if params.loss == "focal" else 0.0
    smoothing = params.label_smoothing

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        log_p = torch.log_softmax(logits.float() + shift, dim=1)
        per_image_weight = targets @ weight
        smooth = targets * (1 - smoothing) + smoothing / targets.shape[1]
        if gamma:
            log_p = (1 - log_p.exp()).clamp_min(0) ** gamma * log_p
        return -(smooth * log_p).sum(dim=1) * per_image_weight

    return loss
