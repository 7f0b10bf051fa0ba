"""Augmentation of a whole batch on the device, steered by numbers that were drawn beforehand.

One resampling does flips, turning, zoom, stretch and shift; one 3×3 matrix per image does colour
and the normalisation. A lesion looks as likely from every side, hence the full circle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.backbones.preprocess import Preprocessing
from components.training.config import TrainingParams

if TYPE_CHECKING:
    from torch import Tensor

NUM_DRAWS = 16
"""Uniform numbers that one image needs."""

# Ranges at strength 1. Zoom and stretch are factors, shift is a share of the side.
_ZOOM, _STRETCH, _SHIFT = 1.25, 1.1, 0.1
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE_DEGREES = 0.1, 1.2, 1.25, 6.0


def augmented(
    squares: Tensor, draws: Tensor, preprocessing: Preprocessing, params: TrainingParams
) -> Tensor:
    """Return the network's input of packed squares: augmented, normalised, channels last.

    Parameters
    ----------
    squares
        uint8 `[N, S, S, 3]`.
    draws
        Uniform float32 `[N, NUM_DRAWS]` on the same device.

    Returns
    -------
    Tensor
        float32 `[N, 3, image_size, image_size]`.
    """
    import torch

    if params.augmentation == 0:
        images = preprocessing.to_input(squares)
    else:
        images = resampled(preprocessing.resize(squares), affine(draws[:, :8], params.augmentation))
        images = recoloured(images, draws[:, 8:12], params.augmentation, preprocessing)
    if params.cutout:
        images = cut_out(images, draws[:, 12:14], params.cutout)
    return images.contiguous(memory_format=torch.channels_last)


def affine(draws: Tensor, strength: float) -> Tensor:
    """Return matrices `[N, 2, 3]` from output to input coordinates (-1 to 1)."""
    import torch

    signed = 2 * draws - 1
    angle = math.pi * signed[:, 0]
    zoom = torch.exp(signed[:, 1] * strength * math.log(_ZOOM))
    stretch = torch.exp(signed[:, 2] * strength * math.log(_STRETCH))
    mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    wide, high = zoom * stretch * mirror, zoom / stretch
    shift_x, shift_y = 2 * _SHIFT * strength * signed[:, 4], 2 * _SHIFT * strength * signed[:, 5]
    rows = (
        torch.stack([wide * cos, -high * sin, shift_x], dim=1),
        torch.stack([wide * sin, high * cos, shift_y], dim=1),
    )
    return torch.stack(rows, dim=1)


def resampled(images: Tensor, matrices: Tensor) -> Tensor:
    """Sample `images` `[N, C, H, W]` where `matrices` say; beyond the edge they are mirrored."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    height, width = images.shape[-2:]
    # What `affine_grid` computes, as one sum of a part per row and a part per column.
    rows = torch.linspace(1 / height - 1, 1 - 1 / height, height, device=images.device)
    columns = torch.linspace(1 / width - 1, 1 - 1 / width, width, device=images.device)
    by_row = rows[:, None] * matrices[:, None, :, 1] + matrices[:, None, :, 2]
    by_column = columns[:, None] * matrices[:, None, :, 0]
    grid = by_row[:, :, None] + by_column[:, None]
    return F.grid_sample(images.contiguous(), grid, padding_mode="reflection", align_corners=False)


def recoloured(
    images: Tensor, draws: Tensor, strength: float, preprocessing: Preprocessing
) -> Tensor:
    """Change brightness, contrast, saturation and hue of `images` (0 to 255), and normalise.

    All of it is one matrix and one offset per image: colour' = matrix · colour + offset.
    """
    import torch

    signed = (2 * draws - 1) * strength
    brightness = _BRIGHTNESS * signed[:, 0].view(-1, 1, 1)
    contrast = torch.exp(signed[:, 1] * math.log(_CONTRAST)).view(-1, 1, 1)
    saturation = torch.exp(signed[:, 2] * math.log(_SATURATION)).view(-1, 1, 1)
    matrix = contrast * _hue(signed[:, 3] * math.radians(_HUE_DEGREES), saturation)
    mean = images.new_tensor(preprocessing.mean).view(1, 3, 1)
    scale = 1 / images.new_tensor(preprocessing.std).view(1, 3, 1)
    # Contrast turns about the mean colour, so that it does not change the brightness as well.
    offset = scale * (brightness + mean - matrix @ mean) - scale * mean
    count, _, height, width = images.shape
    flat = torch.baddbmm(offset, matrix * scale / 255, images.reshape(count, 3, -1))
    return flat.view(count, 3, height, width)


def _hue(angle: Tensor, saturation: Tensor) -> Tensor:
    """Return matrices `[N, 3, 3]` that turn colours about the grey axis and scale them off it."""
    import torch

    grey = torch.full((3, 3), 1 / 3, device=angle.device)
    cross = torch.tensor(
        [[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=angle.device
    ) / math.sqrt(3)
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    eye = torch.eye(3, device=angle.device)
    return grey + saturation * (cos * (eye - grey) + sin * cross)


def cut_out(images: Tensor, draws: Tensor, side: float) -> Tensor:
    """Set one square per image, of `side` times its side, to 0 (the mean colour)."""
    import torch

    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) + 0.5) / height
    columns = (torch.arange(width, device=images.device) + 0.5) / width
    in_rows = (rows - draws[:, :1]).abs() < side / 2
    in_columns = (columns - draws[:, 1:2]).abs() < side / 2
    return images.masked_fill((in_rows[:, None, :, None] & in_columns[:, None, None, :]), 0.0)


def mixes(params: TrainingParams) -> bool:
    """Whether images are mixed with each other (mixup or CutMix)."""
    return bool(params.mixup or params.cutmix)


def mixed(
    images: Tensor,
    targets: Tensor,
    draws: npt.NDArray[np.float32],
    params: TrainingParams,
    count: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Mix every image with the one before it (mixup or CutMix), the first with the last one.

    Parameters
    ----------
    images, targets
        `[N, C, H, W]` and `[N, num_classes]`.
    draws
        `[NUM_DRAWS]` of one image: there is one share per batch, as in both papers' code.
    count
        How many of the images to return; what stands behind them is only mixed in.
    """
    if not mixes(params) or len(images) < 2:
        return images, targets
    with_cutmix = bool(params.cutmix) and (not params.mixup or draws[14] < 0.5)
    share = _beta(float(draws[15]), params.cutmix if with_cutmix else params.mixup)
    others, other_targets = images.roll(1, 0)[:count], targets.roll(1, 0)[:count]
    images, targets = images[:count], targets[:count]
    if with_cutmix:
        height, width = images.shape[-2:]
        side = math.sqrt(1 - share)
        top, left = int(draws[12] * height * (1 - side)), int(draws[13] * width * (1 - side))
        bottom, right = top + round(height * side), left + round(width * side)
        images = images.clone()
        images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        images = share * images + (1 - share) * others
    return images, share * targets + (1 - share) * other_targets


def _beta(uniform: float, alpha: float) -> float:
    """Return the Beta(alpha, alpha) quantile of `uniform`."""
    from scipy.stats import beta

    return float(beta.ppf(uniform, alpha, alpha))
