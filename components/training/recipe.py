"""From params to what torch needs: what is trained, at which rate, on which device, how exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from components.backbones.zoo import head_parameters, last_block_parameters, layer_groups
from components.training.config import TrainingParams

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from components.backbones.heads import Classifier
    from components.training.ranks import Ranks


_LIGHT = frozenset(
    {
        *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"),
        *("efficientnet_b0", "tf_efficientnet_lite0"),
    }
)
"""Their time goes into depthwise convolutions, which gain least from a CPU's bf16."""
_LIGHT_BF16_FROM_PIXELS = 144


def choose_precision(
    params: TrainingParams, backbone: str, device: torch.device
) -> torch.dtype | None:
    """Return the dtype of autocast, or None for plain float32.

    `auto` takes bf16 on a GPU that has it, and on a CPU that computes it (AVX-512 BF16 or AMX); but
    for a light backbone and small images fp32 on any CPU. No measurement of that rule is kept.
    """
    import torch

    if params.precision == "fp32":
        return None
    if params.precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if backbone in _LIGHT and params.image_size < _LIGHT_BF16_FROM_PIXELS:
        return None
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else None


def precision_name(dtype: torch.dtype | None) -> str:
    """Return `fp32` or `bf16`."""
    return "fp32" if dtype is None else "bf16"


def precision_called(name: str) -> torch.dtype | None:
    """Return the dtype that `precision_name` calls `name`."""
    import torch

    return {"fp32": None, "bf16": torch.bfloat16}[name]


def computes(device: torch.device, dtype: torch.dtype | None) -> bool:
    """Whether `device` can compute in `dtype` at all; a CPU can, if slowly."""
    import torch

    return dtype is None or device.type == "cpu" or torch.cuda.is_bf16_supported()


def common_precision(dtype: torch.dtype | None, ranks: Ranks) -> torch.dtype | None:
    """Return the precision of all workers: fp32 unless each of them has chosen `dtype`."""
    num_reduced = ranks.sum(np.array([float(dtype is not None)]))[0]
    return dtype if num_reduced == ranks.world_size else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Return the context in which the network computes."""
    import torch

    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def freeze(model: Classifier, params: TrainingParams, backbone: str) -> None:
    """Let only what `params.unfreeze` names be trained."""
    if params.unfreeze == "all":
        return
    model.requires_grad_(False)
    trained = head_parameters(model)
    if params.unfreeze == "last_block":
        trained += last_block_parameters(model, backbone)
    for parameter in trained:
        parameter.requires_grad_(True)


def train_mode(model: nn.Module) -> None:
    """Switch to training, but keep modules whose own parameters are all frozen as they are.

    A frozen batch norm must not move its statistics.
    """
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


def build_optimizer(
    model: Classifier, params: TrainingParams, backbone: str
) -> torch.optim.Optimizer:
    """Return AdamW over the trained parameters.

    Each block has its own learning rate (`layer_decay`); norms and biases (tensors with one
    dimension) have no weight decay.
    """
    import torch

    groups = layer_groups(model, backbone)
    settings = []
    for depth, group in enumerate(groups):
        # Head and last block train at the full rate.
        distance = max(0, len(groups) - 2 - depth)
        for decayed in (True, False):
            chosen = [p for p in group if p.requires_grad and (p.ndim > 1) is decayed]
            if chosen:
                settings.append(
                    {
                        "params": chosen,
                        "lr": params.learning_rate * params.layer_decay**distance,
                        "weight_decay": params.weight_decay if decayed else 0.0,
                    }
                )
    return torch.optim.AdamW(settings, fused=True)


@dataclass
class Schedule:
    """Sets every group's learning rate for a step: linear warm-up, then a cosine to 0."""

    optimizer: torch.optim.Optimizer
    num_steps: int
    warmup: float

    def __post_init__(self) -> None:
        self._peaks = [float(group["lr"]) for group in self.optimizer.param_groups]

    def set(self, step: int) -> float:
        """Set the rates for `step` (from 0); return the largest."""
        factor = schedule_factor(step, self.num_steps, self.warmup)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        return max(self._peaks) * factor


def schedule_factor(step: int, num_steps: int, warmup: float) -> float:
    """Return the learning rate of `step` as a share of its peak."""
    rising = math.ceil(warmup * num_steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising + 0.5) / max(1, num_steps - rising)))


class MovingAverage:
    """Exponential moving average of a model's weights and statistics (EMA).

    Early on it follows faster: decay = min(`decay`, (1 + step) / (10 + step)), as in TensorFlow.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        theirs = {name: value.detach() for name, value in model.state_dict().items()}
        self.state = {name: value.clone() for name, value in theirs.items()}
        self._decay = decay
        # The model's tensors are changed in place, so these stay the ones to follow.
        moving = [name for name, value in theirs.items() if value.is_floating_point()]
        self._moving = [self.state[name] for name in moving], [theirs[name] for name in moving]
        self._copied = [(self.state[n], value) for n, value in theirs.items() if n not in moving]

    def update(self, step: int) -> None:
        """Move towards the model's weights after `step` steps."""
        import torch

        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._moving, 1 - decay)
        for mine, theirs in self._copied:
            mine.copy_(theirs)


@contextmanager
def weights_of(model: nn.Module, state: dict[str, Tensor] | None) -> Iterator[None]:
    """Give `model` other weights for a block (None: its own)."""
    if state is None:
        yield
        return
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    try:
        yield
    finally:
        model.load_state_dict(own)


def data_parallel(model: Classifier, ranks: Ranks) -> nn.Module:
    """Return what averages gradients over the workers; alone, the model itself."""
    if ranks.world_size == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state by name."""
    return {
        f"optimizer.{index}.{name}": value
        for index, parameter in enumerate(_trained(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned.

    Each tensor gets the memory layout of its parameter, as the optimizer made it: the fused
    kernel, and a bitwise equal continuation, need that.
    """
    import torch

    for index, parameter in enumerate(_trained(optimizer)):
        state = {}
        for name in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"optimizer.{index}.{name}")
            if value is None:
                continue
            if name == "step":
                state[name] = value.clone().to(parameter.device)
            else:
                state[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter] = state


def _trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
