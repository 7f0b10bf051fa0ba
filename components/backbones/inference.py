"""What predicting shares: plain float32, the eight views of a picture, softmax."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Floats = npt.NDArray[np.float64]


_PIXELS_AT_ONCE_ON_A_CPU = 2048  # of the images' sides, one after the other
_IMAGES_AT_ONCE_ON_A_GPU = 64


def images_at_once(image_size: int, device: torch.device) -> int:
    """Return how many images to send through a network at once, where no gradients are kept.

    On a CPU so few that what one layer gives to the next stays in its caches: two cores that others
    used, too, took 157 to 333 images/s of 128 pixels through MobileNetV2 with 16 at once and 133 to
    152 with 64, 57 to 75 of 224 pixels with 8 and 31 with 64; a tenth more through ResNet-18, and
    no more through ResNet-50. The results were the same to the last bit.

    Parameters
    ----------
    image_size
        Side in pixels.
    """
    if device.type != "cpu":
        return _IMAGES_AT_ONCE_ON_A_GPU
    return max(1, _PIXELS_AT_ONCE_ON_A_CPU // image_size)


def eight_views(images: Tensor) -> Iterator[Tensor]:
    """Yield `[N, C, S, S]` in the four quarter turns and their mirror images."""
    import torch

    for turns in range(4):
        turned = torch.rot90(images, turns, dims=(2, 3))
        for view in (turned, turned.flip(3)):
            yield view.contiguous(memory_format=torch.channels_last)


def softmax(logits: Floats) -> Floats:
    """Return the softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in plain float32: no TF32, no bf16, no algorithm picked by timing.

    What the process had set before (a training in it, say) is put back at the end.
    """
    import torch
    from torch import backends

    # Per operation, as torch asks for it: its older global switches refuse to be read as soon as
    # somebody has used the newer ones.
    cudnn: Any = backends.cudnn
    mkldnn: Any = backends.mkldnn
    operations: tuple[Any, ...] = (
        *(backends.cuda.matmul, cudnn.conv),
        *(mkldnn.matmul, mkldnn.conv),
    )
    precisions = [operation.fp32_precision for operation in operations]
    benchmark, deterministic = backends.cudnn.benchmark, backends.cudnn.deterministic
    try:
        for operation in operations:
            operation.fp32_precision = "ieee"
        backends.cudnn.benchmark, backends.cudnn.deterministic = False, True
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        backends.cudnn.benchmark, backends.cudnn.deterministic = benchmark, deterministic
        for operation, precision in zip(operations, precisions, strict=True):
            operation.fp32_precision = precision
