"""The names of the backbones, light enough to be read with `params.yaml`."""

from __future__ import annotations

BACKBONE_NAMES = (
    "resnet18",
    "resnet50",
    "resnet101",
    "vgg11",
    "vgg19",
    "densenet121",
    "densenet201",
    "inception_v3",
    "xception",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "efficientnet_v2_s",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
)
