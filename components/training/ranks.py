"""The workers of one training, and what they tell each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This worker's number among all of them."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that prints and stores."""
        return self.rank == 0

    def sum(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sum of `values` over all workers; each of them must call this."""
        if self.world_size == 1:
            return values
        import torch
        from torch import distributed

        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        distributed.all_reduce(tensor)
        return tensor.cpu().numpy()

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite every worker's `tensors` with those of the first worker."""
        if self.world_size == 1:
            return
        from torch import distributed

        for tensor in tensors:
            distributed.broadcast(tensor.detach(), src=0)

    def share(self, num_items: int) -> slice:
        """Return which of `num_items` are this worker's."""
        return slice(self.rank, num_items, self.world_size)
