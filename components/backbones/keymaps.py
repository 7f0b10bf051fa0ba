"""What a published file calls its tensors, turned into the names and values of our bodies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]


def upstream(state: State) -> State:
    """Keep everything: the file has the names of torchvision or timm."""
    return state


_DENSE_LAYER = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def densenet(state: State) -> State:
    """`norm.1.weight`, as files of before 2018 have it, is `norm1.weight` today."""
    return {_DENSE_LAYER.sub(r"\1\2", name): value for name, value in state.items()}


# First block of each stage of EfficientNet-B0's plan, which lite0 shares: 1+2+2+3+3+4+1 blocks.
_LITE_STAGES = (1, 2, 2, 3, 3, 4, 1)
_LITE_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_FIRST = {  # the first block has no expansion
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_LITE_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def efficientnet_lite_package(state: State) -> State:
    """Names of the `efficientnet_lite_pytorch` port to timm's `tf_efficientnet_lite0`.

    Both are ports of TensorFlow's weights with its padding, epsilon and ReLU6, so that values
    stay as they are. A name that is not known is kept, and found to be too much later.
    """
    places = [(stage, i) for stage, count in enumerate(_LITE_STAGES) for i in range(count)]

    def renamed(name: str) -> str:
        parts = name.split(".")
        if parts[0] != "_blocks":
            return ".".join([_LITE_OUTER.get(parts[0], parts[0]), *parts[1:]])
        number = int(parts[1])
        stage, index = places[number]
        table = _LITE_FIRST if number == 0 else _LITE_EXPANDED
        return ".".join([f"blocks.{stage}.{index}", table.get(parts[2], parts[2]), *parts[3:]])

    return {renamed(name): value for name, value in state.items()}


def mobilenet_v1_symmetric(state: State) -> State:
    """timm's own MobileNet v1 weights for the architecture with TensorFlow's constants.

    They were trained with one pixel of padding on every side and an epsilon of 1e-5; ours pads a
    stride-2 convolution at the bottom and right only, with an epsilon of 1e-3. Turning every 3×3
    kernel by 180° gives, where all sides are even (an image size that 32 divides), exactly the
    network of the image turned by 180°: a skin lesion has no up and down. Scaling each norm's
    weight by sqrt((variance + 1e-3) / (variance + 1e-5)) undoes the other epsilon.
    """
    converted = dict(state)
    for name, value in state.items():
        if value.ndim == 4 and value.shape[-1] > 1:
            converted[name] = value.flip(2, 3)
        if name.endswith("running_var"):
            weight = name.replace("running_var", "weight")
            ratio = (value.double() + 1e-3) / (value.double() + 1e-5)
            converted[weight] = (state[weight].double() * ratio.sqrt()).float()
    return converted


LAYOUTS: Mapping[str, Callable[[State], State]] = {
    "upstream": upstream,
    "densenet": densenet,
    "efficientnet_lite_package": efficientnet_lite_package,
    "mobilenet_v1_symmetric": mobilenet_v1_symmetric,
}
