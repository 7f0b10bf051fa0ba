"""Published files of other layouts become our bodies' tensors, and mean the same."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from components.backbones.keymaps import (
    densenet,
    efficientnet_lite_package,
    mobilenet_v1_symmetric,
)
from components.backbones.zoo import create_backbone

Settle = Callable[[nn.Module, Tensor], nn.Module]


def test_densenets_old_names_are_the_new_ones() -> None:
    with torch.device("meta"):
        new = create_backbone("densenet121", 7).body.state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", k): v for k, v in new.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert densenet(old).keys() == new.keys()
    assert densenet(dict(new)).keys() == new.keys()


def test_the_lite_package_has_a_name_for_every_tensor() -> None:
    kinds = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
    names = [f"_blocks.{n}.{kind}.weight" for n in range(16) for kind in kinds[2 * (n == 0) :]]
    names += [f"{name}.weight" for name in ("_conv_stem", "_bn0", "_conv_head", "_bn1")]
    renamed = efficientnet_lite_package({name: torch.zeros(1) for name in names})
    with torch.device("meta"):
        body = create_backbone("tf_efficientnet_lite0", 7).body.state_dict()
    assert set(renamed) == {name for name in body if name.endswith(".weight")}


def test_timms_own_mobilenet_v1_is_ours_on_the_image_turned_by_half(settle: Settle) -> None:
    import timm

    torch.manual_seed(0)
    images = torch.rand(8, 3, 96, 96)
    theirs = settle(timm.create_model("mobilenetv1_100", num_classes=0), images)
    assert min(float(v.min()) for k, v in theirs.state_dict().items() if "running_var" in k) < 1e-4
    ours = create_backbone("mobilenet_v1", 7).eval()
    ours.body.load_state_dict(mobilenet_v1_symmetric(theirs.state_dict()))
    with torch.inference_mode():
        expected = theirs(images)
        assert expected.std(dim=0).mean() > 1e-3
        torch.testing.assert_close(
            ours.body(images.rot90(2, dims=(2, 3))), expected, rtol=1e-3, atol=1e-4
        )
        assert not torch.allclose(ours.body(images), expected, rtol=1e-3, atol=1e-4)
