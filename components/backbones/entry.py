"""What an entry of the zoo says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """One published ImageNet file: its names, where it comes from, how its keys become ours.

    `names` are the file names that it is known by (the first is upstream's own). A hash in a name
    (`-b0353104.pth`) is checked. `layout` is a key of `keymaps.LAYOUTS`.
    """

    names: tuple[str, ...]
    url: str = ""
    hub: str = ""
    """Repository on the Hugging Face hub that holds it as `model.safetensors`."""
    package: str = ""
    """Installed package that carries it (never imported, only searched)."""
    layout: str = "upstream"


@dataclass(frozen=True)
class Backbone:
    """What is known of one backbone.

    `blocks` are prefixes of module or parameter names of the body, from the stem to the last
    block; every parameter of the body is in exactly one of them.
    """

    name: str
    library: Literal["torchvision", "timm"]
    constructor: str
    num_features: int
    gigamacs: float
    """Multiply-adds of one picture of 224 px, in thousands of millions."""
    blocks: tuple[tuple[str, ...], ...]
    published: tuple[Published, ...]
    cut: tuple[str, ...] = ()
    """Modules of the torchvision model that end up as identity: its classifier."""
    head: tuple[str, ...] = ()
    """Prefixes in a published file that belong to its classifier (an auxiliary one too)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    image_size: int = 224
    min_image_size: int = 32
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def last_block(self) -> tuple[str, ...]:
        """Prefixes of what `last_block` unfreezes."""
        return self.blocks[-1]
