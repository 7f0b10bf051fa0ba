"""Packed squares become the network's input, each alone and always alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.backbones.preprocess import Preprocessing
from components.errors import ParamsError


def spec(pack_size: int = 16, image_size: int = 16) -> Preprocessing:
    return Preprocessing(
        pack_size=pack_size,
        fit="crop",
        image_size=image_size,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def squares(count: int, size: int, seed: int = 0) -> torch.Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def test_without_a_resize_it_is_the_textbook_normalisation() -> None:
    batch = squares(3, 16)
    given_input = spec().to_input(batch)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((batch.numpy() / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert given_input.dtype == torch.float32
    np.testing.assert_allclose(given_input.numpy(), expected, atol=1e-5)
    assert given_input.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=25, deadline=None)
@given(pack=st.integers(8, 40), image=st.integers(8, 40), level=st.integers(0, 255))
def test_a_plain_colour_stays_what_it_is_at_every_size(pack: int, image: int, level: int) -> None:
    plain = torch.full((1, pack, pack, 3), level, dtype=torch.uint8)
    resized = spec(pack, image).resize(plain)
    assert resized.shape == (1, 3, image, image)
    torch.testing.assert_close(resized, torch.full_like(resized, float(level)), atol=1e-3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(pack=st.integers(8, 40), image=st.integers(8, 40), seed=st.integers(0, 1000))
def test_an_image_does_not_depend_on_its_batch(pack: int, image: int, seed: int) -> None:
    batch = squares(4, pack, seed)
    whole = spec(pack, image).to_input(batch)
    alone = torch.cat([spec(pack, image).to_input(batch[i : i + 1]) for i in range(4)])
    assert torch.equal(whole, alone)


def test_shrinking_is_antialiased() -> None:
    """Stripes of two pixels at a quarter of the size are grey; two-point sampling says white."""
    stripes = np.where(np.isin(np.arange(32) % 4, (1, 2)), 255, 0).astype(np.uint8)
    batch = torch.from_numpy(np.broadcast_to(stripes[None, None, :, None], (1, 32, 32, 3)).copy())
    inner = spec(32, 8).resize(batch)[..., 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 127.5), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    "batch",
    [squares(2, 15), squares(2, 16).float(), squares(2, 16).permute(0, 3, 1, 2)],
    ids=["size", "dtype", "order"],
)
def test_squares_of_another_kind_are_refused(batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        spec().to_input(batch)


def test_the_backbone_gives_mean_and_std_and_its_smallest_size() -> None:
    lite = Preprocessing.of("tf_efficientnet_lite0", pack_size=64, fit="pad", image_size=96)
    assert (lite.mean, lite.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (lite.pack_spec.image_size, lite.pack_spec.fit) == (64, "pad")
    with pytest.raises(ParamsError, match="too small for inception_v3"):
        Preprocessing.of("inception_v3", pack_size=64, fit="pad", image_size=64)


def test_a_later_version_is_refused() -> None:
    document = spec().model_dump(mode="json") | {"version": 2}
    with pytest.raises(ValidationError, match="version"):
        Preprocessing.model_validate(document)
