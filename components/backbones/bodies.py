"""The part of a network in front of its head, built from torchvision or timm.

A body maps images `[N, 3, H, W]` to pooled features `[N, D]`. Its parameters keep the upstream
names, so that a published file fits without a translation table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def torchvision_body(constructor: str, options: Mapping[str, Any], cut: Sequence[str]) -> nn.Module:
    """Build a torchvision model without weights and replace the modules named in `cut`."""
    import torchvision.models

    if constructor.startswith("vgg"):
        return vgg_body(constructor)
    if constructor == "vit_b_16":
        return vit_body()
    model: nn.Module = getattr(torchvision.models, constructor)(weights=None, **options)
    for name in cut:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    return model


def timm_body(constructor: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a timm model without weights and without its classifier."""
    import timm

    model: nn.Module = timm.create_model(constructor, pretrained=False, num_classes=0, **options)
    return model


def vgg_body(name: str) -> nn.Module:
    """VGG's convolutions with a global average pool behind them.

    Of VGG-19's 144 million parameters 124 are its three dense layers, which want 7×7 positions
    (224 px) and the classes of ImageNet. A pooled 512-vector takes any image size, trains and
    loads seven times faster, and is what comparisons with "a new head" on VGG use.
    """
    from torchvision.models.vgg import cfgs, make_layers

    convolutions = make_layers(cfgs[{"vgg11": "A", "vgg19": "E"}[name]], batch_norm=False)
    for module in convolutions.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return nn.Sequential(
        OrderedDict(features=convolutions, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    )


def vit_body() -> nn.Module:
    """torchvision's ViT-B/16 for any image size of at least one patch."""
    from torchvision.models import VisionTransformer

    class AnySizeViT(VisionTransformer):  # type: ignore[misc]
        """The position embedding is interpolated to the image's grid of patches.

        What is stored stays the 14×14 grid of 224 px: a checkpoint does not depend on the size
        that it was trained at. Bicubic, as torchvision's own `interpolate_embeddings` does it.
        """

        def forward(self, images: Tensor) -> Tensor:
            patches = self.conv_proj(images)
            rows, columns = patches.shape[-2:]
            tokens = patches.flatten(2).transpose(1, 2)
            first = self.class_token.expand(len(tokens), -1, -1)
            tokens = torch.cat([first, tokens], dim=1) + self._positions(rows, columns)
            encoded = self.encoder.ln(self.encoder.layers(self.encoder.dropout(tokens)))
            return encoded[:, 0]  # type: ignore[no-any-return]

        def _positions(self, rows: int, columns: int) -> Tensor:
            stored: Tensor = self.encoder.pos_embedding
            side = self.image_size // self.patch_size
            if (rows, columns) == (side, side):
                return stored
            # As a product with a constant matrix, because the gradient of an interpolation is
            # not deterministic on a GPU.
            basis = torch.eye(side * side, device=stored.device).reshape(1, -1, side, side)
            weights = F.interpolate(basis, (rows, columns), mode="bicubic", align_corners=True)
            grid = weights.reshape(side * side, -1).T @ stored[0, 1:].float()
            return torch.cat([stored[:, :1], grid[None].to(stored.dtype)], dim=1)

    model = AnySizeViT(
        image_size=224, patch_size=16, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072
    )
    model.heads = nn.Identity()
    return model
