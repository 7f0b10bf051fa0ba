"""Grad-CAM points at what decides, in every kind of network of the zoo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from components.backbones.zoo import create_backbone
from components.evaluation.gradcam import grad_cam


class Blobs(nn.Module):
    """Class 0 counts red light, class 1 blue light, both through a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        weights = torch.zeros(2, 3, 4, 4)
        weights[0, 0], weights[1, 2] = 1.0, 1.0
        self.conv.weight = nn.Parameter(weights, requires_grad=False)
        self.relu = nn.ReLU(inplace=True)  # changes its input in place, as most backbones do

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.conv(images)).mean(dim=(2, 3))


def test_the_map_is_about_the_class_that_is_asked_for() -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[:, 0, :8, :8] = 1  # red in the upper left corner
    images[:, 2, 24:, 24:] = 1  # blue in the lower right one
    maps = grad_cam(Blobs().eval(), images, [0, 1])
    assert maps.shape == (2, 8, 8)
    assert (maps[0, :2, :2] == 1).all()
    assert (maps[1, 6:, 6:] == 1).all()
    assert maps.sum() == 8


def test_a_class_that_nothing_speaks_for_has_an_empty_map() -> None:
    maps = grad_cam(Blobs().eval(), torch.zeros(1, 3, 32, 32), [0])
    assert (maps == 0).all()


def test_the_network_is_left_as_it_was() -> None:
    network = Blobs().eval()
    before = torch.rand(1, 3, 32, 32)
    expected = network(before)
    grad_cam(network, before, [0])
    assert not network.conv._forward_hooks
    assert network.conv.weight.grad is None
    assert not before.requires_grad
    torch.testing.assert_close(network(before), expected)


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "mobilenet_v2", "densenet121", "convnext_tiny", "swin_t"]
)
def test_every_kind_of_backbone_has_a_map(name: str) -> None:
    torch.manual_seed(3)
    network = create_backbone(name, 7).eval().requires_grad_(False)
    maps = grad_cam(network, torch.randn(2, 3, 64, 64), [2, 5])
    assert maps.shape == (2, 4, 4)
    assert np.isfinite(maps).all()
    assert set(np.unique(maps.max(axis=(1, 2)))) <= {0.0, 1.0}


def test_a_transformer_of_tokens_has_a_map_of_its_patches() -> None:
    torch.manual_seed(3)
    network = create_backbone("vit_b_16", 3).eval().requires_grad_(False)
    maps = grad_cam(network, torch.randn(1, 3, 80, 80), [1])
    assert maps.shape == (1, 5, 5)
    assert maps.max() == 1
