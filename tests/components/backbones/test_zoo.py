"""Every backbone is built, cut into blocks, trained a step, saved, read back and predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from components.backbones.config import BACKBONE_NAMES
from components.backbones.heads import Classifier
from components.backbones.keymaps import LAYOUTS
from components.backbones.preprocess import Preprocessing
from components.backbones.saved import Member, ModelFile, load_model, save_model
from components.backbones.zoo import (
    ZOO,
    backbone,
    create_backbone,
    features,
    head,
    head_parameters,
    last_block_parameters,
    layer_groups,
)
from components.errors import ParamsError

Settle = Callable[[nn.Module, Tensor], nn.Module]
HEAVY = ("resnet101", "densenet201", "vit_b_16", "efficientnet_v2_s", "swin_t", "convnext_tiny")
WITH_HEAVY_ONES_SLOW = [
    pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in BACKBONE_NAMES
]


def on_meta(name: str) -> Classifier:
    with torch.device("meta"):
        return create_backbone(name, 7)


def upstream(name: str, **options: Any) -> nn.Module:
    """Return the whole published network with its ImageNet classifier."""
    import timm
    import torchvision.models

    entry = backbone(name)
    if entry.library == "timm":
        return timm.create_model(entry.constructor, **entry.options, **options)
    return getattr(torchvision.models, entry.constructor)(weights=None, **options)


def test_the_zoo_has_the_names_that_params_know() -> None:
    assert tuple(ZOO) == BACKBONE_NAMES


def test_an_unknown_backbone_is_refused_by_name() -> None:
    with pytest.raises(ParamsError, match=r"'resnet19'(.|\n)*resnet18"):
        create_backbone("resnet19", 7)


@pytest.mark.parametrize("name", WITH_HEAVY_ONES_SLOW)
def test_trains_a_step_saves_reloads_with_identical_logits_and_predicts(
    name: str, tmp_path: Path
) -> None:
    size = max(backbone(name).min_image_size, 64)
    torch.manual_seed(0)
    model = create_backbone(name, 7).to(memory_format=torch.channels_last).train()
    before = model.head[1].weight.clone()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
    logits = model(torch.randn(4, 3, size, size))
    assert logits.shape == (4, 7)
    nn.functional.cross_entropy(logits, torch.tensor([0, 6, 1, 3])).backward()
    untouched = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert untouched == []
    optimiser.step()
    assert not torch.equal(model.head[1].weight, before)

    preprocessing = Preprocessing.of(name, pack_size=size, fit="crop", image_size=size)
    member = Member(file="model.safetensors", backbone=name, preprocessing=preprocessing)
    classes = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    saved = ModelFile(classes=classes, malignant=("mel",), members=(member,))
    save_model(tmp_path, [model.state_dict()], saved)
    loaded = load_model(tmp_path, device="cpu")
    squares = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = model.eval()(preprocessing.to_input(torch.from_numpy(squares)))
    np.testing.assert_array_equal(loaded.logits(0, squares), expected.double().numpy())
    probabilities = loaded.predict_proba(squares)
    assert probabilities.shape == (3, 7)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_the_smallest_size_is_enough(name: str) -> None:
    size = backbone(name).min_image_size
    assert on_meta(name)(torch.empty(2, 3, size, size, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_every_parameter_is_in_exactly_one_layer_group(name: str) -> None:
    model = on_meta(name)
    groups = layer_groups(model, name)
    assert all(groups)
    together = [id(parameter) for group in groups for parameter in group]
    assert len(together) == len(set(together))
    assert set(together) == {id(parameter) for parameter in model.parameters()}
    assert [id(p) for p in groups[-1]] == [id(p) for p in head_parameters(model)]
    assert [id(p) for p in groups[-2]] == [id(p) for p in last_block_parameters(model, name)]


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_groups_follow_the_way_of_the_image(name: str) -> None:
    """The order in which modules run, stem first, is the order of the groups."""
    model = on_meta(name).eval()
    ran: list[int] = []
    group_of = {id(p): i for i, group in enumerate(layer_groups(model, name)) for p in group}
    for module in model.modules():
        own = [group_of[id(p)] for p in module.parameters(recurse=False)]
        if own:
            module.register_forward_hook(lambda *_, own=own: ran.append(min(own)))
    size = backbone(name).image_size
    model(torch.empty(2, 3, size, size, device="meta"))
    firsts = list(dict.fromkeys(ran))
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_the_head_takes_the_pooled_features(name: str) -> None:
    model = on_meta(name)
    size = backbone(name).image_size
    pooled = features(model, torch.empty(2, 3, size, size, device="meta"))
    assert pooled.shape == (2, backbone(name).num_features)
    assert head(model)(pooled).shape == (2, 7)


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_a_published_file_has_a_place_for_every_tensor(name: str) -> None:
    """Names and shapes of upstream's network without its classifier are those of our body."""
    with torch.device("meta"):
        published = upstream(name).state_dict()
    heads = tuple(f"{prefix}." for prefix in backbone(name).head)
    given = {k: v.shape for k, v in published.items() if not k.startswith(heads)}
    assert given == {k: v.shape for k, v in on_meta(name).body.state_dict().items()}
    assert len(given) < len(published)
    assert all(published_.layout in LAYOUTS for published_ in backbone(name).published)


def test_torchvisions_file_names_are_those_that_torchvision_downloads() -> None:
    import torchvision.models

    for entry in ZOO.values():
        if entry.library == "torchvision":
            weights = torchvision.models.get_model_weights(entry.constructor)
            assert entry.published[0].url == weights["IMAGENET1K_V1"].url
            assert {p.url for p in entry.published} <= {w.url for w in weights}


def test_timms_hub_names_are_those_that_timm_downloads() -> None:
    import timm.models

    for name, constructor in (
        ("mobilenet_v1", "mobilenetv1_100"),
        ("tf_efficientnet_lite0", "tf_efficientnet_lite0"),
        ("xception", "legacy_xception"),
    ):
        cfg = timm.models.get_pretrained_cfg(constructor)
        known = {p.url for p in backbone(name).published} | {
            p.hub for p in backbone(name).published
        }
        assert {cfg.url, cfg.hf_hub_id} & known - {"", None}
        assert (cfg.mean, cfg.std) == (backbone(name).mean, backbone(name).std)


def test_inception_gives_one_tensor_while_training_and_is_fed_as_the_original(
    settle: Settle,
) -> None:
    """Ours, fed with mean = std = 0.5, is the original, fed as ImageNet's others."""
    torch.manual_seed(0)
    images = torch.rand(8, 3, 96, 96)
    original = upstream("inception_v3", init_weights=False, transform_input=True)
    original.aux_logits, original.AuxLogits = False, None
    settle(original, images)
    original.fc = nn.Identity()
    ours = create_backbone("inception_v3", 7)
    ours.body.load_state_dict(original.state_dict())
    original, ours, images = original.double(), ours.double(), images.double()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    as_imagenet = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.inference_mode():
        expected = original(as_imagenet)
        assert expected.std(dim=0).mean() > 1e-2
        # torchvision's constants in `transform_input` are exact to seven digits or so.
        torch.testing.assert_close(
            features(ours.eval(), (images - 0.5) / 0.5), expected, rtol=1e-4, atol=1e-4
        )
    assert isinstance(ours.train()(images), torch.Tensor)


def test_mobilenet_v3_keeps_its_pretrained_dense_layer_as_a_feature(settle: Settle) -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 64, 64)
    original = settle(upstream("mobilenet_v3_large"), images)
    ours = create_backbone("mobilenet_v3_large", 7).eval()
    result = ours.body.load_state_dict(original.state_dict(), strict=False)
    assert result.unexpected_keys == ["classifier.3.weight", "classifier.3.bias"]
    assert result.missing_keys == []
    with torch.inference_mode():
        expected = original(images)
        assert expected.std(dim=0).mean() > 1e-2
        torch.testing.assert_close(original.classifier[3](features(ours, images)), expected)


def test_vgg_is_its_convolutions_and_a_pool() -> None:
    model = on_meta("vgg19")
    assert sum(p.numel() for p in model.parameters()) == 20_024_384 + 512 * 7 + 7


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 96])
def test_vit_is_torchvisions_with_its_positions_interpolated(size: int) -> None:
    from torchvision.models import vit_b_16
    from torchvision.models.vision_transformer import interpolate_embeddings

    torch.manual_seed(0)
    ours = create_backbone("vit_b_16", 7).eval()
    state = ours.body.state_dict()
    original = vit_b_16(weights=None, image_size=size).eval()
    original.heads = nn.Identity()
    original.load_state_dict(interpolate_embeddings(size, 16, dict(state)))
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(features(ours, images), original(images), rtol=1e-3, atol=1e-4)
