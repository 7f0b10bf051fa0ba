"""From packed squares to what a network is fed: one spec, stored with every model.

The whole way of a picture is: bytes, decoded to a square (`components.dataset.decode`), resized to
the backbone's size, normalised. The last two happen here, on the device, for a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from components.backbones.zoo import backbone
from components.errors import ParamsError
from components.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from components.dataset.decode import PackSpec

Triple = tuple[float, float, float]


class Preprocessing(Settings):
    """How a picture becomes the input of one network; a change of meaning raises `version`."""

    version: Literal[1] = 1
    pack_size: int = Field(ge=1)
    """Side of the packed square in pixels."""
    fit: Literal["crop", "pad", "stretch"]
    image_size: int = Field(ge=1)
    """Side of the network's input in pixels."""
    mean: Triple
    std: Triple
    """Per channel, of values between 0 and 1."""

    @staticmethod
    def of(
        name: str, *, pack_size: int, fit: Literal["crop", "pad", "stretch"], image_size: int
    ) -> Preprocessing:
        """Return the preprocessing of backbone `name` at `image_size`.

        Raises
        ------
        ParamsError
            The backbone cannot work on so small an image.
        """
        entry = backbone(name)
        if image_size < entry.min_image_size:
            raise ParamsError(
                f"image_size {image_size} is too small for {name}",
                where=f"backbones.{name}.image_size or training.image_size",
                fix=f"give at least {entry.min_image_size}",
            )
        return Preprocessing(
            pack_size=pack_size, fit=fit, image_size=image_size, mean=entry.mean, std=entry.std
        )

    @property
    def pack_spec(self) -> PackSpec:
        """How the squares that `to_input` takes are decoded."""
        from components.dataset.decode import PackSpec

        return PackSpec(image_size=self.pack_size, fit=self.fit)

    def to_input(self, squares: Tensor) -> Tensor:
        """Return the network's input of a batch of packed squares.

        Parameters
        ----------
        squares
            uint8 `[N, pack_size, pack_size, 3]`, RGB, on any device.

        Returns
        -------
        Tensor
            float32 `[N, 3, image_size, image_size]` on the same device, channels last in memory.
        """
        return self.normalise(self.resize(squares))

    def resize(self, squares: Tensor) -> Tensor:
        """Return float32 `[N, 3, image_size, image_size]` between 0 and 255.

        Antialiased bilinear, as torchvision and timm resize for their published weights.
        """
        import torch
        from torch.nn.functional import interpolate

        side = self.pack_size
        if squares.dtype != torch.uint8 or tuple(squares.shape[1:]) != (side, side, 3):
            raise ValueError(
                f"expected uint8 [N, {side}, {side}, 3], got {squares.dtype} {list(squares.shape)}"
            )
        images = squares.permute(0, 3, 1, 2)  # NHWC seen as NCHW is "channels last": no copy
        if side == self.image_size:
            return images.float()
        size = (self.image_size, self.image_size)
        planes = images.contiguous().float()  # the same result, faster than channels last
        resized = interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
        return resized.contiguous(memory_format=torch.channels_last)

    def normalise(self, images: Tensor) -> Tensor:
        """Return `(images / 255 - mean) / std` of float `[N, 3, H, W]`."""
        import torch

        scale = [1 / (255 * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        # One pass over the pixels, which on a CPU is what it costs.
        return torch.addcmul(
            images.new_tensor(shift).view(1, 3, 1, 1),
            images,
            images.new_tensor(scale).view(1, 3, 1, 1),
        )
