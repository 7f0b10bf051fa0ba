"""Batches of packed images on the training device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.dataset.pack import PackedImages
from components.training.sampling import Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SHARE_OF_GPU = 0.4  # of its free memory the packed set may take


class Squares:
    """The packed images: in device memory when they fit, else gathered from the memory map."""

    def __init__(self, packed: PackedImages, device: torch.device) -> None:
        import warnings

        import torch

        with warnings.catch_warnings():
            # The map is read-only, and so is all that we do with it.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self._images = torch.from_numpy(packed.images)
        self._device = device
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if packed.images.nbytes < _SHARE_OF_GPU * free:
                self._images = self._images.to(device)

    def __getitem__(self, rows: Ints) -> Tensor:
        """Return uint8 `[len(rows), S, S, 3]` on the device, by one gather."""
        import torch

        index = torch.from_numpy(rows).to(self._images.device)
        return self._images.index_select(0, index).to(self._device, non_blocking=True)
