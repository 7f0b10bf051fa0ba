"""The head that replaces a network's ImageNet classifier, and the model that both make."""

from __future__ import annotations

from torch import Tensor, nn


class Head(nn.Sequential):
    """Dropout and one linear layer: features `[N, D]` to logits `[N, C]`.

    The layer starts with small weights and no bias, so that the first loss is log C and the
    first gradients do not shake pretrained features.
    """

    def __init__(self, num_features: int, num_classes: int, dropout: float) -> None:
        linear = nn.Linear(num_features, num_classes)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        super().__init__(nn.Dropout(dropout), linear)


class Classifier(nn.Module):
    """A body (images to pooled features) and its head (features to logits).

    The state dict has the upstream names of the network below `body.` and the new layer below
    `head.`.
    """

    def __init__(self, body: nn.Module, head: Head) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `[N, C]` of normalised images `[N, 3, H, W]`."""
        logits: Tensor = self.head(self.body(images))
        return logits
