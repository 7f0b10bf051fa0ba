"""Grad-CAM: which regions of a picture speak for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017. It works on any backbone of the zoo: the layer is found by looking at what
one forward pass makes, instead of a list of names.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn

_LEAST_SIDE = 4
"""A map of fewer positions a side shows nothing; an earlier layer is taken then."""


def grad_cam(network: nn.Module, images: Tensor, classes: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return one map per picture of what speaks for a class.

    Parameters
    ----------
    network
        In evaluation mode; maps images to logits `[N, C]`.
    images
        Normalised input `[N, 3, H, W]`, square.
    classes
        The class that each map is about, shape `[N]`.

    Returns
    -------
    ndarray of float32 `[N, h, w]`
        Between 0 and 1 (the strongest position of each picture; all 0 where nothing speaks for
        the class), of the size of the deepest layer with at least 4×4 positions that still has
        a gradient at more than one of them.
    """
    import torch

    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and _positions(output) is not None:
            seen.append(output)

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        with torch.enable_grad():
            logits = network(images.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    score = logits[torch.arange(len(images)), torch.as_tensor(classes)].sum()
    gradients = torch.autograd.grad(score, seen, allow_unused=True)
    layers = [
        (_as_map(layer.detach()), _as_map(gradient))
        for layer, gradient in zip(seen, gradients, strict=True)
        if gradient is not None
    ]
    activation, gradient = _deepest(layers)
    weights = gradient.mean(dim=(1, 2), keepdim=True)
    maps = (weights * activation).sum(dim=3).clamp(min=0)
    strongest = maps.amax(dim=(1, 2), keepdim=True)
    scaled = torch.where(strongest > 0, maps / strongest.clamp(min=1e-30), maps)
    return np.asarray(scaled.float().cpu().numpy(), dtype=np.float32)


def _positions(output: Tensor) -> int | None:
    """Return the side of the square map that a layer's output is, or None."""
    shape = output.shape
    if output.ndim == 4:
        if shape[2] == shape[3]:
            return int(shape[2])
        return int(shape[1]) if shape[1] == shape[2] else None
    if output.ndim == 3 and isqrt(shape[1] - 1) ** 2 == shape[1] - 1:
        return isqrt(shape[1] - 1)  # a class token and a square of patches
    return None


def _as_map(output: Tensor) -> Tensor:
    """Return `[N, h, w, D]` of `[N, D, h, w]`, `[N, h, w, D]` or tokens `[N, 1 + h·w, D]`."""
    if output.ndim == 3:
        side = isqrt(output.shape[1] - 1)
        return output[:, 1:].reshape(len(output), side, side, -1)
    return output.permute(0, 2, 3, 1) if output.shape[2] == output.shape[3] else output


def _deepest(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the last layer that is fine enough and matters at more than one position."""
    alive = [
        (activation, gradient)
        for activation, gradient in layers
        if int((gradient.abs().sum(dim=(0, 3)) > 0).sum()) > 1
    ]
    fine = [layer for layer in alive if layer[0].shape[1] >= _LEAST_SIDE]
    return (fine or alive)[-1]
